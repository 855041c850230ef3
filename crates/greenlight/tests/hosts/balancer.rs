//! A load balancer that nobody here wrote: Debian's HAProxy, set up as a cloud's would be.
//!
//! It checks the health of each host, keeps connections to them, and never sends a request
//! again, neither to the same host nor to another: nothing that goes wrong is hidden.

use crate::network::{Namespace, Running};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const START_TIMEOUT: Duration = Duration::from_mins(2);

/// How the balancer asks a host whether it is well.
pub(crate) struct Check {
    pub(crate) path: &'static str,
    pub(crate) port: u16,
}

/// Whether the balancer keeps its connections to the hosts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToHosts {
    Kept,
    /// A new one for each request.
    New,
}

pub(crate) struct Balancer {
    stats: PathBuf,
    process: Running,
}

/// What HAProxy counts for one host.
#[derive(Debug)]
pub(crate) struct Counted(BTreeMap<String, String>);

impl Balancer {
    /// Starts it, and waits until it has found every host well.
    pub(crate) fn start(
        namespace: &Namespace,
        dir: &Path,
        listen: SocketAddr,
        hosts: &[(&str, IpAddr)],
        check: &Check,
        to_hosts: ToHosts,
    ) -> Self {
        std::fs::create_dir_all(dir).expect("a folder");
        let stats = dir.join("stats.sock");
        let keep = match to_hosts {
            ToHosts::Kept => "option http-keep-alive\n    http-reuse safe",
            ToHosts::New => "option http-server-close",
        };
        let mut text = format!(
            "global\n    stats socket {stats} mode 600\n\
             defaults\n    mode http\n    {keep}\n    retries 0\n    no option redispatch\n    \
             timeout connect 30s\n    timeout client 60s\n    timeout server 60s\n    \
             timeout tunnel 1h\n    timeout check 30s\n\
             frontend users\n    bind {listen}\n    option forwardfor\n    default_backend shop\n\
             backend shop\n    balance roundrobin\n    option httpchk\n    \
             http-check send meth GET uri {path}\n    http-check expect status 200\n",
            stats = stats.display(),
            path = check.path,
        );
        for (name, address) in hosts {
            writeln!(
                text,
                "    server {name} {address}:80 check port {} inter 1s fall 2 rise 2",
                check.port
            )
            .expect("a string takes all");
        }
        let config = dir.join("haproxy.cfg");
        std::fs::write(&config, text).expect("a folder");
        let mut command = Command::new(program());
        command.arg("-db").arg("-f").arg(&config);
        command.stdin(Stdio::null());
        let log = std::fs::File::create(dir.join("haproxy.log")).expect("a folder");
        command.stdout(log.try_clone().expect("a descriptor"));
        command.stderr(log);
        let balancer = Self {
            process: namespace.start(&mut command),
            stats,
        };
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let counted = balancer.counted();
            let well = |c: &Counted| c.0["status"] == "UP" && c.0["check_status"] == "L7OK";
            if counted.len() == hosts.len() && counted.values().all(well) {
                return balancer;
            }
            let log = std::fs::read_to_string(dir.join("haproxy.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "{log}\n{counted:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it counts, by host; empty while it starts.
    pub(crate) fn counted(&self) -> BTreeMap<String, Counted> {
        let text = self.ask("show stat\n").unwrap_or_default();
        let mut lines = text.lines();
        let head: Vec<_> = lines
            .next()
            .unwrap_or_default()
            .trim_start_matches("# ")
            .split(',')
            .collect();
        let rows = lines.map(|line| {
            let values = head.iter().zip(line.split(','));
            values
                .map(|(name, value)| ((*name).to_owned(), value.to_owned()))
                .collect::<BTreeMap<_, _>>()
        });
        let hosts = rows.filter(|row| {
            row.get("pxname").is_some_and(|name| name == "shop") && row["svname"] != "BACKEND"
        });
        hosts
            .map(|row| (row["svname"].clone(), Counted(row)))
            .collect()
    }

    /// No host was ever found unwell, refused a connection, broke one off, or answered 5xx; and
    /// nothing was sent again.
    pub(crate) fn saw_nothing_wrong(&self) {
        for (host, counted) in self.counted() {
            for bad in [
                "chkfail", "chkdown", "econ", "eresp", "wretr", "wredis", "hrsp_5xx",
            ] {
                let count = &counted.0[bad];
                assert!(count == "0" || count.is_empty(), "{host}: {bad} is {count}");
            }
            assert_ne!(counted.0["hrsp_2xx"], "0", "{host} got nothing");
        }
    }

    /// Whether it sends users to a host.
    pub(crate) fn is_up(&self, host: &str) -> bool {
        self.counted()
            .get(host)
            .is_some_and(|counted| counted.0["status"].starts_with("UP"))
    }

    fn ask(&self, question: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(&self.stats)?;
        stream.write_all(question.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    pub(crate) fn stop(&mut self) {
        self.process.terminate();
    }
}

/// Debian keeps daemons where only root's `PATH` leads.
fn program() -> &'static str {
    let usual = "/usr/sbin/haproxy";
    match Path::new(usual).exists() {
        true => usual,
        false => "haproxy",
    }
}
