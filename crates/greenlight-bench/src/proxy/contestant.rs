//! The proxies that are compared, each configured for the same job: keep connections to the
//! application, add `X-Forwarded-For`, write no access log, use one thread.

use crate::Outcome;
use crate::child::{Child, find};
use greenlight_admin::{AdminClient, Color, OpenRequest, ServiceSettings};
use serde::Serialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a proxy may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A proxy that takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Contestant {
    Greenlight,
    /// Debian's, with its default buffers.
    Nginx,
    /// The same, with buffers that hold a whole 64 KiB answer.
    NginxLargeBuffers,
    /// Debian's.
    Haproxy,
    /// No proxy: what generator and application can do.
    Direct,
}

impl Contestant {
    pub(super) const ALL: [Self; 5] = [
        Self::Greenlight,
        Self::Nginx,
        Self::NginxLargeBuffers,
        Self::Haproxy,
        Self::Direct,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Greenlight => "greenlight",
            Self::Nginx => "nginx",
            Self::NginxLargeBuffers => "nginx, large buffers",
            Self::Haproxy => "haproxy",
            Self::Direct => "no proxy",
        }
    }
}

/// A proxy that answers.
pub(super) struct Running {
    /// Its process, if there is one.
    pub(super) child: Option<Child>,
    /// Where it takes requests.
    pub(super) address: SocketAddr,
}

/// Starts a proxy on the given core and waits until it answers. Its files are in `dir`.
pub(super) async fn start(
    contestant: Contestant,
    greenlight: &Path,
    application: SocketAddr,
    core: usize,
    dir: &Path,
) -> Outcome<Running> {
    let address = greenlight_ports::reserve_address()?;
    let log = dir.join("log");
    let begin = |program: &Path, arguments: &[&str]| {
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        Child::start(program, &arguments, &[], Some(core), &log)
    };
    let written = |name: &str, text: &str| -> Outcome<String> {
        let path: PathBuf = dir.join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let child = match contestant {
        Contestant::Direct => {
            return Ok(Running {
                child: None,
                address: application,
            });
        }
        Contestant::Greenlight => {
            let (admin, state) = (dir.join("admin.sock"), dir.join("routing"));
            let arguments = [
                "proxy",
                "--listen",
                &address.to_string(),
                "--admin",
                &admin.display().to_string(),
                "--state",
                &state.display().to_string(),
                "--threads",
                "1",
            ];
            let child = begin(greenlight, &arguments)?;
            route(&admin, application).await?;
            child
        }
        Contestant::Nginx | Contestant::NginxLargeBuffers => {
            let buffers = match contestant {
                Contestant::NginxLargeBuffers => {
                    "proxy_buffer_size 16k; proxy_buffers 8 32k; proxy_busy_buffers_size 64k;"
                }
                Contestant::Nginx
                | Contestant::Haproxy
                | Contestant::Greenlight
                | Contestant::Direct => "",
            };
            let config = nginx_config(dir, address, application, buffers);
            let config = written("nginx.conf", &config)?;
            begin(&find("nginx")?, &["-c", &config])?
        }
        Contestant::Haproxy => {
            let config = written("haproxy.cfg", &haproxy_config(address, application))?;
            begin(&find("haproxy")?, &["-db", "-f", &config])?
        }
    };
    let deadline = Instant::now() + START_TIMEOUT;
    while super::generator::ask(address).await.is_err() {
        if Instant::now() > deadline {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(format!("{} does not answer: {text}", contestant.name()).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Running {
        child: Some(child),
        address,
    })
}

async fn route(admin: &Path, application: SocketAddr) -> Outcome<()> {
    let client = AdminClient::new(admin);
    let settings = ServiceSettings {
        hosts: Vec::new(),
        path_prefix: "/".to_owned(),
        blue: application.to_string(),
        green: application.to_string(),
        request_timeout_ms: 30_000,
    };
    let deadline = Instant::now() + START_TIMEOUT;
    while let Err(error) = client.define("bench", &settings).await {
        if Instant::now() > deadline {
            return Err(error.into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let open = OpenRequest {
        epoch: 1,
        services: [("bench".to_owned(), Some(Color::Blue))].into(),
    };
    client.open(&open).await?;
    Ok(())
}

fn nginx_config(dir: &Path, listen: SocketAddr, application: SocketAddr, buffers: &str) -> String {
    let dir = dir.display();
    format!(
        "daemon off;
user root;
worker_processes 1;
pid {dir}/nginx.pid;
error_log {dir}/nginx.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {dir}/nginx-body;
    proxy_temp_path {dir}/nginx-proxy;
    fastcgi_temp_path {dir}/nginx-fastcgi;
    uwsgi_temp_path {dir}/nginx-uwsgi;
    scgi_temp_path {dir}/nginx-scgi;
    keepalive_requests 1000000000;
    tcp_nodelay on;
    {buffers}
    upstream application {{
        server {application};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {listen} backlog=4096;
        location / {{
            proxy_pass http://application;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
        }}
    }}
}}
"
    )
}

fn haproxy_config(listen: SocketAddr, application: SocketAddr) -> String {
    format!(
        "global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option forwardfor
    http-reuse always
frontend users
    bind {listen}
    default_backend applications
backend applications
    server application {application} pool-max-conn 256
"
    )
}
