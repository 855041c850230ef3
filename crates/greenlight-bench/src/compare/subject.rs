//! What is compared: the ways of deploying, and two machines on which one of them is used.

use super::balancer::Balancer;
use super::scripts::Scripts;
use super::{APPLICATION, LATE};
use crate::rig::Rig;
use crate::{Outcome, Setting};
use greenlight_protocol::Policy;
use greenlight_release::front::FrontKind;
use serde::Serialize;
use std::net::SocketAddr;
use std::time::Duration;

/// A way of deploying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Way {
    /// On both machines at once: stop the old release, start the new one.
    Recreate,
    /// One machine after the other.
    Rolling,
    /// On each machine separately: start the new one beside the old one, check it every 5 s,
    /// reload.
    BlueGreen,
    /// Greenlight, with an Nginx that is reloaded.
    Reloading,
    /// Greenlight, with an Nginx before its gate.
    BehindNginx,
    /// Greenlight, with its own proxy.
    Builtin,
}

impl Way {
    pub(super) const ALL: [Self; 6] = [
        Self::Recreate,
        Self::Rolling,
        Self::BlueGreen,
        Self::Reloading,
        Self::BehindNginx,
        Self::Builtin,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Recreate => "recreate",
            Self::Rolling => "rolling",
            Self::BlueGreen => "blue/green per machine",
            Self::Reloading => "Greenlight, nginx_reload",
            Self::BehindNginx => "Greenlight, nginx",
            Self::Builtin => "Greenlight, builtin",
        }
    }
}

/// Two machines, and what deploys on them.
pub(super) struct Subject {
    way: Way,
    by: By,
}

enum By {
    Scripts(Scripts),
    Greenlight(Rig),
}

impl Subject {
    /// Starts the machines; nothing is deployed yet.
    pub(super) async fn start(way: Way, setting: &Setting) -> Outcome<Self> {
        let front = match way {
            Way::Recreate | Way::Rolling | Way::BlueGreen => None,
            Way::Reloading => Some(FrontKind::NginxReload),
            Way::BehindNginx => Some(FrontKind::Nginx),
            Way::Builtin => Some(FrontKind::Builtin),
        };
        let by = match front {
            None => By::Scripts(Scripts::new(setting)?),
            Some(front) => {
                let late = [Duration::ZERO, LATE];
                By::Greenlight(Rig::start_behind(front, setting, &late).await?)
            }
        };
        Ok(Self { way, by })
    }

    pub(super) fn way(&self) -> Way {
        self.way
    }

    /// Where the balancer comes in, by machine.
    pub(super) fn fronts(&self) -> Vec<SocketAddr> {
        match &self.by {
            By::Scripts(scripts) => scripts.fronts(),
            By::Greenlight(rig) => rig.targets(),
        }
    }

    /// Deploys the first release, without measuring.
    pub(super) async fn deploy_first(&mut self, version: &str) -> Outcome<()> {
        match &mut self.by {
            By::Scripts(scripts) => scripts.deploy_first(version).await,
            By::Greenlight(rig) => {
                rig.deploy_weighing(version, APPLICATION, &policy()).await?;
                Ok(())
            }
        }
    }

    /// Waits until only one release is left.
    pub(super) async fn settle(&self) -> Outcome<()> {
        match &self.by {
            // They end when everything has.
            By::Scripts(_) => {}
            By::Greenlight(rig) => {
                rig.wait(|status| !status.retiring && !status.warm).await?;
            }
        }
        Ok(())
    }

    /// Deploys a version; of so many rounds this is that number.
    pub(super) async fn deploy(
        &mut self,
        version: &str,
        number: usize,
        rounds: usize,
        balancer: &Balancer,
    ) -> Outcome<()> {
        match &mut self.by {
            By::Greenlight(rig) => {
                rig.deploy_weighing(version, APPLICATION, &policy()).await?;
                Ok(())
            }
            By::Scripts(scripts) => match self.way {
                Way::Recreate => scripts.recreate(version).await,
                Way::Rolling => scripts.roll(version, balancer).await,
                Way::BlueGreen | Way::Reloading | Way::BehindNginx | Way::Builtin => {
                    scripts.blue_green(version, number, rounds).await
                }
            },
        }
    }

    /// Stops everything.
    pub(super) async fn stop(self) {
        match self.by {
            By::Scripts(scripts) => drop(scripts),
            By::Greenlight(rig) => rig.stop().await,
        }
    }
}

/// The defaults, but for what would only lengthen the benchmark: none of the others watches the
/// new release or keeps the old one.
fn policy() -> Policy {
    Policy {
        watch: Duration::from_millis(500),
        keep_warm: Duration::ZERO,
        ..Policy::default()
    }
}
