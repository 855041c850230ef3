//! How it is done without Greenlight: an Nginx and an application on each of two machines, and
//! scripts that do their best.
//!
//! | Way | What its scripts do, and what they are spared |
//! |---|---|
//! | recreate | both machines at once: SIGTERM, wait until the old application has answered what it had and ended, start the new one |
//! | rolling | the balancer is told to leave a machine alone before it is touched, as Ansible's `haproxy` module does; then as above; when its check passes, looked at every second, it gets its traffic back; when the next of the users' checks, every 5 s, finds it well with users on it, the next machine's turn comes. Docker Swarm, too, watches for 5 s unless told otherwise |
//! | blue/green | the new application beside the old one; asked every 5 s; upstream rewritten, `nginx -s reload`; a pause for Nginx's old workers; SIGTERM to the old one |

use super::balancer::Balancer;
use super::{APPLICATION, LATE};
use crate::child::Child;
use crate::machine::{Machine, until_healthy};
use crate::readiness::{POLL, phases};
use crate::{Outcome, Setting};
use greenlight_ports::reserve_address;
use std::net::SocketAddr;
use std::time::Duration;

/// How often a roll looks whether a machine is healthy.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What a machine still has to answer after the balancer has left it.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// Nginx's old workers still accept for a moment after a reload.
const OLD_WORKERS: Duration = Duration::from_secs(1);

/// Two machines.
pub(super) struct Scripts {
    sites: [Site; 2],
}

struct Site {
    machine: Machine,
    application: SocketAddr,
    /// How late a command reaches it.
    late: Duration,
}

impl Scripts {
    pub(super) fn new(setting: &Setting) -> Outcome<Self> {
        let site = |late| -> Outcome<Site> {
            Ok(Site {
                machine: Machine::new(setting)?,
                application: reserve_address()?,
                late,
            })
        };
        Ok(Self {
            sites: [site(Duration::ZERO)?, site(LATE)?],
        })
    }

    pub(super) fn fronts(&self) -> Vec<SocketAddr> {
        self.sites.iter().map(|site| site.machine.front).collect()
    }

    pub(super) async fn deploy_first(&mut self, version: &str) -> Outcome<()> {
        for site in &mut self.sites {
            site.replace(version).await?;
            site.machine.serve(site.application)?;
            until_healthy(site.machine.front, Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Both at once.
    pub(super) async fn recreate(&mut self, version: &str) -> Outcome<()> {
        let [one, other] = &mut self.sites;
        tokio::try_join!(one.replace(version), other.replace(version))?;
        Ok(())
    }

    /// One after the other.
    pub(super) async fn roll(&mut self, version: &str, balancer: &Balancer) -> Outcome<()> {
        for (number, site) in self.sites.iter_mut().enumerate() {
            balancer.leave_alone(number);
            tokio::time::sleep(LAST_ANSWERS).await;
            site.replace(version).await?;
            balancer.come_back(number);
            // Whether it is well with users on it, before it may become the only one. Not after
            // the last: then nothing depends on it.
            if number == 0 {
                tokio::time::sleep(POLL).await;
                until_healthy(site.machine.front, POLL).await;
            }
        }
        Ok(())
    }

    /// Each separately, when its own check passes.
    pub(super) async fn blue_green(
        &mut self,
        version: &str,
        number: usize,
        rounds: usize,
    ) -> Outcome<()> {
        let [at_one, at_other] = phases(number, rounds);
        let [one, other] = &mut self.sites;
        tokio::try_join!(one.switch(version, at_one), other.switch(version, at_other))?;
        Ok(())
    }
}

impl Site {
    async fn replace(&mut self, version: &str) -> Outcome<()> {
        tokio::time::sleep(self.late).await;
        stop(self.machine.application.take()).await?;
        let started = self
            .machine
            .start_application(self.application, version, APPLICATION)?;
        self.machine.application = Some(started);
        until_healthy(self.application, LOOK_EVERY).await;
        Ok(())
    }

    async fn switch(&mut self, version: &str, asks_at: Duration) -> Outcome<()> {
        tokio::time::sleep(self.late).await;
        let address = reserve_address()?;
        let started = self
            .machine
            .start_application(address, version, APPLICATION)?;
        let old = self.machine.application.replace(started);
        self.machine
            .switch_when_healthy(address, asks_at, POLL)
            .await?;
        self.application = address;
        tokio::time::sleep(OLD_WORKERS).await;
        stop(old).await
    }
}

/// SIGTERM, and what it has begun to answer is answered.
async fn stop(application: Option<Child>) -> Outcome<()> {
    // Waiting for its end blocks.
    Ok(tokio::task::spawn_blocking(move || drop(application)).await?)
}
