//! A machine as it is today: an nginx on the public port before an application, and what scripts
//! on it do: start and stop the application, rewrite the upstream, reload.

use crate::child::{Child, find};
use crate::{Outcome, Setting};
use greenlight_agent::health::Probe;
use greenlight_ports::reserve_address;
use greenlight_release::health::HealthCheck;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What the application costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weight {
    /// Before it listens.
    pub(crate) startup: Duration,
    pub(crate) answer: Duration,
    /// Megabytes that it holds.
    pub(crate) ballast_mb: u64,
}

impl Weight {
    /// Nothing.
    pub(crate) const NONE: Self = Self {
        startup: Duration::ZERO,
        answer: Duration::ZERO,
        ballast_mb: 0,
    };

    /// As the sample application's variable has it.
    pub(crate) fn env(self) -> BTreeMap<String, String> {
        [
            ("STARTUP_MS", self.startup.as_millis().to_string()),
            ("ANSWER_MS", self.answer.as_millis().to_string()),
            ("BALLAST_MB", self.ballast_mb.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// A machine.
pub(crate) struct Machine {
    dir: PathBuf,
    nginx: PathBuf,
    program: PathBuf,
    /// Where users come in.
    pub(crate) front: SocketAddr,
    // Kept because they end when they are dropped.
    /// What serves.
    pub(crate) application: Option<Child>,
    server: Option<Child>,
    _files: tempfile::TempDir,
}

impl Machine {
    /// A machine on which nothing runs yet.
    pub(crate) fn new(setting: &Setting) -> Outcome<Self> {
        let files = tempfile::tempdir_in(&setting.scratch)?;
        Ok(Self {
            dir: files.path().to_owned(),
            nginx: find("nginx")?,
            program: setting.greenlight.clone(),
            front: reserve_address()?,
            application: None,
            server: None,
            _files: files,
        })
    }

    /// Starts the application.
    pub(crate) fn start_application(
        &self,
        address: SocketAddr,
        version: &str,
        weight: Weight,
    ) -> Outcome<Child> {
        let own = [
            ("PORT", address.port().to_string()),
            ("VERSION", version.to_owned()),
        ];
        let weight = weight.env();
        let weight = weight
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()));
        let env: Vec<_> = weight.chain(own).collect();
        Child::start(
            &self.program,
            &["sample-app".to_owned()],
            &env,
            None,
            &self.log(),
        )
    }

    /// Starts nginx before the application.
    pub(crate) fn serve(&mut self, application: SocketAddr) -> Outcome<()> {
        self.configure(application)?;
        let arguments = ["-c".to_owned(), self.config()];
        let nginx = Child::start(&self.nginx, &arguments, &[], None, &self.log())?;
        self.server = Some(nginx);
        Ok(())
    }

    /// Asks the application after `phase` and then at each `poll`, until it is healthy; then
    /// rewrites the upstream and reloads nginx.
    pub(crate) async fn switch_when_healthy(
        &self,
        application: SocketAddr,
        phase: Duration,
        poll: Duration,
    ) -> Outcome<()> {
        tokio::time::sleep(phase).await;
        until_healthy(application, poll).await;
        self.configure(application)?;
        let reload = [
            "-c".to_owned(),
            self.config(),
            "-s".to_owned(),
            "reload".to_owned(),
        ];
        let reloaded = tokio::process::Command::new(&self.nginx)
            .args(reload)
            .output()
            .await?;
        match reloaded.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&reloaded.stderr)
                .into_owned()
                .into()),
        }
    }

    fn configure(&self, application: SocketAddr) -> Outcome<()> {
        let (dir, front) = (self.dir.display(), self.front);
        let text = format!(
            "daemon off;
worker_processes 2;
pid {dir}/nginx.pid;
error_log {dir}/nginx.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {dir}/nginx-body;
    proxy_temp_path {dir}/nginx-proxy;
    fastcgi_temp_path {dir}/nginx-fastcgi;
    uwsgi_temp_path {dir}/nginx-uwsgi;
    scgi_temp_path {dir}/nginx-scgi;
    server {{
        listen {front};
        location / {{ proxy_pass http://{application}; }}
    }}
}}
"
        );
        Ok(std::fs::write(self.dir.join("nginx.conf"), text)?)
    }

    fn config(&self) -> String {
        self.dir.join("nginx.conf").display().to_string()
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }
}

/// Asks an application at each `poll`, until its check passes.
pub(crate) async fn until_healthy(application: SocketAddr, poll: Duration) {
    let probe = Probe::new(application, HealthCheck::default());
    while probe.ask().await.is_err() {
        tokio::time::sleep(poll).await;
    }
}
