//! Today's practice, twice on this machine: an nginx in front of an old and a new application,
//! and a script that asks the new one, rewrites the upstream and reloads.

use crate::child::{Child, find};
use crate::{Outcome, Setting};
use greenlight::fleet::free_address;
use greenlight::health::{HealthCheck, Probe};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Two machines.
pub(super) struct Practice {
    machines: [Machine; 2],
    deployments: usize,
}

struct Machine {
    dir: PathBuf,
    nginx: PathBuf,
    program: PathBuf,
    front: SocketAddr,
    // Kept because they end when they are dropped.
    application: Option<Child>,
    server: Option<Child>,
    _files: tempfile::TempDir,
}

impl Practice {
    /// Starts both machines with a first version.
    pub(super) async fn start(setting: &Setting) -> Outcome<Self> {
        let mut machines = [Machine::new(setting)?, Machine::new(setting)?];
        for machine in &mut machines {
            let (child, address) = machine.start_application("first", Duration::ZERO)?;
            machine.application = Some(child);
            super::answers(address).await?;
            machine.configure(address)?;
            let arguments = ["-c".to_owned(), machine.config()];
            let nginx = Child::start(&machine.nginx, &arguments, &[], None, &machine.log())?;
            machine.server = Some(nginx);
            super::serves_only(machine.front, "first").await?;
        }
        Ok(Self {
            machines,
            deployments: 0,
        })
    }

    /// Deploys a version that takes `startup` to start, with scripts that first ask after these
    /// times. Returns the wait.
    pub(super) async fn deploy(
        &mut self,
        startup: Duration,
        phases: [Duration; 2],
    ) -> Outcome<Duration> {
        self.deployments += 1;
        let version = format!("v{}", self.deployments);
        let mut coming = Vec::new();
        for machine in &self.machines {
            coming.push(machine.start_application(&version, startup)?);
        }
        let addresses: Vec<_> = coming.iter().map(|(_, address)| *address).collect();
        let fronts = self.machines.iter().map(|machine| machine.front).collect();
        let watched = super::wait_between(addresses.clone(), fronts, &version);
        let [one, other] = &self.machines;
        let scripts = async {
            tokio::try_join!(
                one.script(addresses[0], phases[0]),
                other.script(addresses[1], phases[1])
            )
        };
        let (wait, _) = tokio::try_join!(watched, scripts)?;
        for (machine, (child, _)) in self.machines.iter_mut().zip(coming) {
            machine.application = Some(child);
        }
        Ok(wait)
    }
}

impl Machine {
    fn new(setting: &Setting) -> Outcome<Self> {
        let files = tempfile::tempdir_in(&setting.scratch)?;
        Ok(Self {
            dir: files.path().to_owned(),
            nginx: find("nginx")?,
            program: setting.greenlight.clone(),
            front: free_address()?,
            application: None,
            server: None,
            _files: files,
        })
    }

    fn start_application(&self, version: &str, startup: Duration) -> Outcome<(Child, SocketAddr)> {
        let address = free_address()?;
        let env = [
            ("PORT", address.port().to_string()),
            ("VERSION", version.to_owned()),
            ("STARTUP_MS", startup.as_millis().to_string()),
        ];
        let arguments = ["sample-app".to_owned()];
        let child = Child::start(&self.program, &arguments, &env, None, &self.log())?;
        Ok((child, address))
    }

    /// What runs on each machine today.
    async fn script(&self, application: SocketAddr, phase: Duration) -> Outcome<()> {
        let probe = Probe::new(application, HealthCheck::default());
        tokio::time::sleep(phase).await;
        while probe.ask().await.is_err() {
            tokio::time::sleep(super::POLL).await;
        }
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
worker_processes 1;
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

/// Which release answers a new connection.
pub(super) async fn release_at(front: SocketAddr) -> Outcome<String> {
    let mut stream = TcpStream::connect(front).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {front}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(&answer)?;
    let mut headers = response.headers.iter();
    let release = headers.find(|header| header.name.eq_ignore_ascii_case("x-release"));
    let release = release.ok_or("an answer names no release")?;
    Ok(String::from_utf8_lossy(release.value).into_owned())
}
