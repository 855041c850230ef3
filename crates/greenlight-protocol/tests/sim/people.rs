//! People: they deploy, promote, abort and roll back, at any time and for no reason.

use super::apps::Flaw;
use super::coordinator::Input;
use super::event::{Event, Place};
use super::simulation::{Act, Simulation};
use greenlight_protocol::coordinator::{DeploymentRequest, Promotion, RollbackRequest};
use greenlight_protocol::policy::{Exclusive, PeerChecks};
use greenlight_protocol::{
    Command, DeploymentId, OnUncertain, Phase, Plan, Policy, Release, ServiceName, Strategy,
};
use std::collections::BTreeMap;
use std::time::Duration;

impl Simulation {
    pub(crate) fn person_acts(&mut self) {
        if self.act != Act::Chaos {
            return;
        }
        let pause = self.rng.micros(300_000, 6_000_000);
        self.after(pause, Event::PersonActs);
        let is_ready = |phase: &Phase| matches!(phase, Phase::Ready);
        let coordinator = self.coordinator.machine.as_ref();
        let ready = coordinator.is_some_and(|c| is_ready(c.phase()));
        let command = match self.rng.below(20) {
            0 => Command::Abort {
                requested_by: "a person".to_owned(),
            },
            1..=3 => {
                let request = self.request(false);
                let policy = self.rng.hits(0.7).then_some(request.policy);
                Command::Rollback(Box::new(RollbackRequest {
                    deployment: request.deployment,
                    requested_by: request.requested_by,
                    plan: request.plan,
                    policy,
                }))
            }
            _ if ready => Command::Promote,
            4 => Command::Promote,
            _ => Command::Deploy(Box::new(self.request(true))),
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

    fn request(&mut self, with_releases: bool) -> DeploymentRequest {
        let mut services = self.services.clone();
        services.retain(|_| self.rng.hits(0.7));
        if services.is_empty() {
            services = self.services.clone();
        }
        let strategy = if self.rng.hits(0.2) {
            let parallelism = 1 + self.rng.index(self.machines.len());
            Strategy::Rolling { parallelism }
        } else {
            Strategy::BlueGreen
        };
        let releases = if with_releases {
            let flaw = self.flaw();
            let mut releases = self.releases(&services, &flaw);
            for release in releases.values_mut() {
                release.take_if(|_| self.rng.hits(0.05));
            }
            releases
        } else {
            BTreeMap::new()
        };
        let policy = self.policy();
        let promotion = self.rng.pick(&[
            Promotion::Automatic,
            Promotion::Automatic,
            Promotion::Manual,
        ]);
        self.request_of(releases, strategy, policy, promotion)
    }

    fn request_of(
        &self,
        releases: BTreeMap<ServiceName, Option<Release>>,
        strategy: Strategy,
        policy: Policy,
        promotion: Promotion,
    ) -> DeploymentRequest {
        let instances = self.names.keys().cloned().collect();
        DeploymentRequest {
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
        if self.rng.hits(self.profile.bad_release) {
            let at = self.rng.index(self.machines.len());
            match self.rng.below(3) {
                0 => {
                    flaw.exits.insert(at);
                }
                1 => {
                    flaw.never_ready.insert(at);
                }
                _ => flaw.lives_for = Some(self.rng.micros(200_000, 10_000_000)),
            }
        }
        flaw
    }

    fn policy(&mut self) -> Policy {
        Policy {
            before_switch: None,
            peer_checks: self.rng.pick(&[PeerChecks::No, PeerChecks::Yes]),
            hold_budget: Duration::from_millis(self.rng.pick(&[60, 140, 250, 300, 600])),
            max_hold: self.rng.millis(700, 2_000),
            on_uncertain: self.rng.pick(&[OnUncertain::ServeOld, OnUncertain::Shed]),
            exclusive: self
                .rng
                .pick(&[Exclusive::No, Exclusive::No, Exclusive::Yes]),
            prepare: self.rng.millis(2_000, 6_000),
            watch: self.rng.millis(100, 3_000),
            keep_warm: self.rng.millis(500, 8_000),
            drain: self.rng.millis(200, 3_000),
            stop: self.rng.millis(100, 1_000),
            rollback_attempts: 3,
        }
    }

    /// A good release of everything, deployed when the faults are over: it has to succeed.
    pub(crate) fn last_request(&mut self) {
        let services = self.services.clone();
        let releases = self.releases(&services, &Flaw::default());
        let policy = Policy {
            keep_warm: self.rng.millis(500, 2_000),
            ..Policy::default()
        };
        let request = self.request_of(releases, Strategy::BlueGreen, policy, Promotion::Automatic);
        self.command(Command::Deploy(Box::new(request)));
    }
}
