//! The examination of one machine, for `doctor`: by its agent, or by `doctor --local`.
//!
//! Each file is one subject, with two halves: one that collects facts, and one that makes
//! findings of facts and is tested without a machine.
//!
//! Deliberately absent: changing anything; and conclusions about a whole fleet, which the command
//! makes.

mod certificate;
mod clock;
mod disk_space;
mod docker;
mod nginx;
mod ports;
mod procfs;
mod proxy;
mod reloads;

use crate::front::ask_proxy_status;
use crate::runtime::Running;
use greenlight_link::doctor::{Expected, Finding, MachineReport};
use greenlight_protocol::ServiceName;
use greenlight_release::ports::RequestedPorts;
use greenlight_shell::clock::wall_ms;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where on this machine the parts of an instance are.
#[derive(Clone, Debug)]
pub struct MachinePaths {
    /// The instance's folder, if there is one.
    pub state: Option<PathBuf>,
    /// The admin socket of its proxy, if it has one.
    pub admin: Option<PathBuf>,
    /// Docker's socket; its usual one if none.
    pub docker: Option<String>,
    /// The folder with the machine's files: `/`, or where that is mounted.
    pub root: PathBuf,
}

impl MachinePaths {
    /// The folder to look in: that in `GREENLIGHT_ROOT`, which is where an agent in a container
    /// has the machine's files; the machine's own otherwise.
    pub fn usual_root() -> PathBuf {
        std::env::var_os("GREENLIGHT_ROOT").map_or_else(|| "/".into(), PathBuf::from)
    }

    /// Examines this machine. `running` is what the instance's runtime runs.
    /// `slots` are the ports that its slots have.
    pub async fn examine(
        &self,
        expected: Option<&Expected>,
        running: &[Running],
        slots: &BTreeMap<ServiceName, RequestedPorts>,
    ) -> MachineReport {
        let received_ms = wall_ms();
        let mut findings = vec![kernel(), clock::keeper(&self.root)];
        if let Some(state) = &self.state {
            findings.push(disk_space::state(state, disk_space::free(state)));
            findings.extend(disk_space::journal(&state.join("agent.redb")));
            findings.extend(certificate::check(&state.join("identity/cert.pem")));
        }
        let mut proxy = None;
        if let Some(admin) = &self.admin {
            let status = ask_proxy_status(admin).await;
            findings.extend(proxy::check(&status));
            proxy = status.ok();
        }
        let mut docker = None;
        if let Some(expected) = expected {
            findings.push(disk_space::memory(
                disk_space::available(),
                needs(expected, running),
            ));
            findings.extend(ports::check(
                expected,
                running,
                slots,
                proxy.as_ref().map(|p| p.pid),
            ));
            if expected.has_images() {
                let facts = docker::gather(self.docker.as_deref(), expected, running).await;
                findings.extend(docker::judge(&facts));
                docker = facts.ok();
            }
            if let Some(there) = &expected.nginx {
                findings.extend(nginx::check(expected, there, &self.root).await);
            }
        }
        MachineReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            proxy: proxy.map(|proxy| proxy.version),
            architecture: std::env::consts::ARCH.to_owned(),
            docker: docker.map(|docker| docker.version),
            received_ms,
            answered_ms: wall_ms(),
            findings,
        }
    }
}

/// What a second copy of every service takes: its limit, or what the first one uses.
fn needs(expected: &Expected, running: &[Running]) -> Option<u64> {
    let needs = expected.services.iter().map(|(service, settings)| {
        let used = running.iter().filter(|r| r.launch.slot.service == *service);
        settings
            .memory
            .or_else(|| used.filter_map(docker::used).max())
    });
    needs.sum()
}

fn kernel() -> Finding {
    // A descriptor (pidfd) distinguishes a process from a later one with the same number.
    const OLDEST: (u32, u32) = (5, 3);
    const CHECK: &str = "kernel";
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut parts = release.split(['.', '-']).map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < OLDEST => {
            Finding::problem(CHECK, release, "use Linux 5.3 or newer")
        }
        (_, _) => Finding::ok(CHECK, release),
    }
}
