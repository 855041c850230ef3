//! People: they deploy, promote, abort and roll back, at any time and for no reason.

use super::apps::Flaw;
use super::coordinator::Input;
use super::happening::{Happening, Place};
use super::world::{Act, World};
use greenlight_protocol::coordinator::{Order, Promotion, RollbackOrder};
use greenlight_protocol::policy::{Exclusive, PeerChecks};
use greenlight_protocol::{
    Command, DeploymentId, OnUncertain, Phase, Plan, Policy, Release, ServiceName, Strategy,
};
use std::collections::BTreeMap;
use std::time::Duration;

impl World {
    pub(crate) fn person_acts(&mut self) {
        if self.act != Act::Chaos {
            return;
        }
        let pause = self.chance.micros(300_000, 6_000_000);
        self.after(pause, Happening::PersonActs);
        let is_ready = |phase: &Phase| matches!(phase, Phase::Ready { .. });
        let coordinator = self.coordinator.machine.as_ref();
        let ready = coordinator.is_some_and(|c| is_ready(c.phase()));
        let command = match self.chance.below(20) {
            0 => Command::Abort {
                requested_by: "a person".to_owned(),
            },
            1..=3 => {
                let order = self.order(false);
                let policy = self.chance.hits(0.7).then_some(order.policy);
                Command::Rollback(Box::new(RollbackOrder {
                    deployment: order.deployment,
                    requested_by: order.requested_by,
                    plan: order.plan,
                    policy,
                }))
            }
            _ if ready => Command::Promote,
            4 => Command::Promote,
            _ => Command::Deploy(Box::new(self.order(true))),
        };
        self.command(command);
    }

    pub(crate) fn command(&mut self, command: Command) {
        if self.coordinator.is_up() {
            let input = Input::Command(Box::new(command));
            self.coordinator.inbox.push_back(input);
            self.wake(Place::Coordinator);
        }
    }

    fn order(&mut self, with_releases: bool) -> Order {
        let mut services = self.services.clone();
        services.retain(|_| self.chance.hits(0.7));
        if services.is_empty() {
            services = self.services.clone();
        }
        let strategy = if self.chance.hits(0.2) {
            let parallelism = 1 + self.chance.index(self.machines.len());
            Strategy::Rolling { parallelism }
        } else {
            Strategy::BlueGreen
        };
        let releases = if with_releases {
            let flaw = self.flaw();
            let mut releases = self.releases(&services, &flaw);
            for release in releases.values_mut() {
                release.take_if(|_| self.chance.hits(0.05));
            }
            releases
        } else {
            BTreeMap::new()
        };
        let policy = self.policy();
        let promotion = self.chance.pick(&[
            Promotion::Automatic,
            Promotion::Automatic,
            Promotion::Manual,
        ]);
        self.order_of(releases, strategy, policy, promotion)
    }

    fn order_of(
        &self,
        releases: BTreeMap<ServiceName, Option<Release>>,
        strategy: Strategy,
        policy: Policy,
        promotion: Promotion,
    ) -> Order {
        let instances = self.names.keys().cloned().collect();
        Order {
            deployment: DeploymentId(format!("d{}", self.versions)),
            requested_by: "a person".to_owned(),
            releases,
            plan: Plan::compile(strategy, &instances).expect("the fleet is not empty"),
            policy,
            promotion,
        }
    }

    /// A new version of each of these services.
    fn releases(
        &mut self,
        services: &[ServiceName],
        flaw: &Flaw,
    ) -> BTreeMap<ServiceName, Option<Release>> {
        self.versions += 1;
        let version = format!("v{}", self.versions);
        let mut releases = BTreeMap::new();
        for service in services {
            let digest = format!("{service}@{version}");
            self.flaws.insert(digest.clone(), flaw.clone());
            let release = Release {
                version: version.clone(),
                digest,
                spec: String::new(),
            };
            releases.insert(service.clone(), Some(release));
        }
        releases
    }

    fn flaw(&mut self) -> Flaw {
        let mut flaw = Flaw::default();
        if self.chance.hits(self.profile.bad_release) {
            let at = self.chance.index(self.machines.len());
            match self.chance.below(3) {
                0 => {
                    flaw.exits.insert(at);
                }
                1 => {
                    flaw.never_ready.insert(at);
                }
                _ => flaw.lives_for = Some(self.chance.micros(200_000, 10_000_000)),
            }
        }
        flaw
    }

    fn policy(&mut self) -> Policy {
        Policy {
            before_switch: None,
            peer_checks: self.chance.pick(&[PeerChecks::No, PeerChecks::Yes]),
            hold_budget: Duration::from_millis(self.chance.pick(&[60, 140, 250, 300, 600])),
            max_hold: self.chance.millis(700, 2_000),
            on_uncertain: self
                .chance
                .pick(&[OnUncertain::ServeOld, OnUncertain::Shed]),
            exclusive: self
                .chance
                .pick(&[Exclusive::No, Exclusive::No, Exclusive::Yes]),
            prepare: self.chance.millis(2_000, 6_000),
            watch: self.chance.millis(100, 3_000),
            keep_warm: self.chance.millis(500, 8_000),
            drain: self.chance.millis(200, 3_000),
            stop: self.chance.millis(100, 1_000),
            rollback_attempts: 3,
        }
    }

    /// A good release of everything, ordered when the faults are over: it has to succeed.
    pub(crate) fn last_order(&mut self) {
        let services = self.services.clone();
        let releases = self.releases(&services, &Flaw::default());
        let policy = Policy {
            keep_warm: self.chance.millis(500, 2_000),
            ..Policy::default()
        };
        let order = self.order_of(releases, Strategy::BlueGreen, policy, Promotion::Automatic);
        self.command(Command::Deploy(Box::new(order)));
    }
}
