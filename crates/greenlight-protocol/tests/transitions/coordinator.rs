//! The coordinator: every phase and what each event makes of it.

use super::cell;
use greenlight_protocol::coordinator::{DeploymentRequest, Promotion};
use greenlight_protocol::message::{Healthy, LiveReleaseView};
use greenlight_protocol::policy::PeerChecks;
use greenlight_protocol::{
    Color, Command, Coordinator, CoordinatorEffect, CoordinatorEvent, CoordinatorRecord,
    CoordinatorTimer, DeploymentId, Direction, DrainEvidence, HoldEvidence, InstanceId,
    InstanceStatus, Phase, Plan, Policy, Release, Report, ReportEnvelope, ServiceName, Strategy,
    SwitchEvidence, Timestamp, Token,
};
use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) const EVENTS: [&str; 8] = [
    "all answer yes",
    "one says no",
    "its time is over",
    "one aborts by itself",
    "one is unhealthy",
    "a link breaks",
    "a person aborts",
    "restart",
];

/// Every phase in which a deployment is under way.
const PHASES: [&str; 17] = [
    "preparing",
    "checking peers",
    "ready",
    "before the switch",
    "arming",
    "holding",
    "switching",
    "watching",
    "confirming",
    "aborting",
    "rollback: preparing",
    "rollback: arming",
    "rollback: holding",
    "rollback: switching",
    "rollback: retiring",
    "rollback: aborting",
    "rollback: retrying the rollback",
];

/// Something that happens to a host.
type Step = fn(&mut Host);

/// A coordinator, its records, and the timers that it has set.
#[derive(Clone)]
struct Host {
    coordinator: Coordinator,
    records: Vec<CoordinatorRecord>,
    timers: Vec<CoordinatorTimer>,
}

pub(crate) fn rows() -> Vec<(String, Vec<String>)> {
    let events: [Step; 8] = [
        Host::all_say_yes,
        Host::one_says_no,
        Host::time_is_over,
        |host| host.report("b", Report::Aborted),
        |host| {
            let (service, reason) = ("shop".into(), "it died".to_owned());
            host.report("b", Report::Unhealthy { service, reason });
        },
        |host| host.handle(CoordinatorEvent::Disconnected("b".into())),
        |host| {
            let requested_by = "a person".to_owned();
            host.command(Command::Abort { requested_by });
        },
        Host::restarts,
    ];
    let row = |phase: &str| {
        let cells = events.map(|event| {
            let mut host = at(phase);
            event(&mut host);
            cell(phase, &host.name())
        });
        (phase.to_owned(), cells.to_vec())
    };
    PHASES.map(row).to_vec()
}

/// A host whose coordinator is in this phase.
fn at(phase: &str) -> Host {
    let mut host = Host::deploying();
    if phase.starts_with("rollback: ") {
        host.go_to("watching");
        host.report_unhealthy();
    }
    if phase.ends_with("aborting") || phase.contains("retrying") {
        host.one_says_no();
    }
    host.go_to(phase);
    host
}

impl Host {
    /// A fleet of two that has never served, and is told to deploy.
    fn deploying() -> Self {
        let fleet = ["a".into(), "b".into()].into();
        let (coordinator, effects) = Coordinator::recover(fleet, &[], Timestamp(0));
        let mut host = Self {
            coordinator,
            records: Vec::new(),
            timers: Vec::new(),
        };
        host.carry_out(effects);
        for instance in ["a", "b"] {
            host.handle(CoordinatorEvent::Connected(instance.into()));
        }
        let instances = host.coordinator.fleet().clone();
        host.command(Command::Deploy(Box::new(DeploymentRequest {
            deployment: DeploymentId("d1".to_owned()),
            requested_by: "a person".to_owned(),
            releases: [("shop".into(), Some(release()))].into(),
            plan: Plan::compile(Strategy::BlueGreen, &instances).expect("there are instances"),
            policy: Policy {
                peer_checks: PeerChecks::Yes,
                before_switch: Some(Duration::from_secs(1)),
                ..Policy::default()
            },
            promotion: Promotion::Manual,
        })));
        host
    }

    fn name(&self) -> String {
        let phase = self.coordinator.phase().name();
        let latest = self.coordinator.ledger().latest();
        match latest.is_some_and(|(started, _)| started.cut_over.direction == Direction::Back) {
            true => format!("rollback: {phase}"),
            false => phase.to_string(),
        }
    }

    /// Lets all answer yes until this phase has come.
    fn go_to(&mut self, phase: &str) {
        for _ in 0..PHASES.len() {
            if self.name() == phase {
                return;
            }
            match *self.coordinator.phase() == Phase::Watching {
                true => self.time_is_over(),
                false => self.all_say_yes(),
            }
        }
        panic!("`{phase}` does not come after `{}`", self.name());
    }

    fn handle(&mut self, event: CoordinatorEvent) {
        let effects = self.coordinator.handle(event, Timestamp(0));
        self.carry_out(effects);
    }

    fn command(&mut self, command: Command) {
        if let Ok((_, effects)) = self.coordinator.command(command, Timestamp(0)) {
            self.carry_out(effects);
        }
    }

    fn carry_out(&mut self, effects: Vec<CoordinatorEffect>) {
        for effect in effects {
            match effect {
                CoordinatorEffect::Persist(record) => self.records.push(record),
                CoordinatorEffect::SetTimer { timer, .. } => self.timers.push(timer),
                CoordinatorEffect::Send { .. } => {}
            }
        }
    }

    fn report(&mut self, from: &str, report: Report) {
        let token = Token {
            term: self.coordinator.term(),
            epoch: self.coordinator.epoch().unwrap_or_default(),
        };
        let from = InstanceId::from(from);
        let envelope = ReportEnvelope { token, report };
        self.handle(CoordinatorEvent::Reported { from, envelope });
    }

    fn report_unhealthy(&mut self) {
        let (service, reason) = ("shop".into(), "it died".to_owned());
        self.report("b", Report::Unhealthy { service, reason });
    }

    fn all_say_yes(&mut self) {
        let answer = match self.coordinator.phase() {
            Phase::Idle | Phase::Watching | Phase::RetryingRollback => return,
            Phase::Preparing => Report::Prepared,
            Phase::CheckingPeers { .. } => Report::PeersReady,
            Phase::Ready => return self.command(Command::Promote),
            Phase::BeforeSwitch => Report::BeforeSwitchDone {
                output: String::new(),
            },
            Phase::Arming { .. } => Report::Armed {
                sync: Duration::ZERO,
            },
            Phase::Holding { .. } => Report::Held(HoldEvidence::default()),
            Phase::Switching => Report::Switched(SwitchEvidence::default()),
            Phase::Confirming => Report::Status(serving()),
            Phase::Aborting => Report::Aborted,
            Phase::Retiring => Report::Retired(DrainEvidence::default()),
        };
        for instance in ["a", "b"] {
            self.report(instance, answer.clone());
        }
    }

    /// The no that belongs to the phase; in a phase that has none, the one to an earlier directive.
    fn one_says_no(&mut self) {
        let reason = "no".to_owned();
        let answer = match self.coordinator.phase() {
            Phase::CheckingPeers { .. } => {
                let unseen = BTreeMap::from([("b".into(), reason)]);
                self.report("b", Report::PeersReady);
                return self.report("a", Report::PeersNotReady { unseen });
            }
            Phase::BeforeSwitch => Report::BeforeSwitchFailed { reason },
            Phase::Holding { .. } => Report::HoldRefused { reason },
            Phase::Switching => {
                self.report("a", Report::Switched(SwitchEvidence::default()));
                Report::SwitchFailed { reason }
            }
            Phase::Idle
            | Phase::Preparing
            | Phase::Ready
            | Phase::Arming { .. }
            | Phase::Watching
            | Phase::Confirming
            | Phase::Aborting
            | Phase::RetryingRollback
            | Phase::Retiring => Report::PrepareFailed { reason },
        };
        self.report("b", answer);
    }

    /// The timers of the present cut-over fire, save the one that repeats directives, until one does
    /// something.
    fn time_is_over(&mut self) {
        let before = self.name();
        for timer in self.timers.clone() {
            let is_resend = matches!(
                timer,
                CoordinatorTimer::Resend(_) | CoordinatorTimer::WarmOver(_)
            );
            if !is_resend && self.name() == before {
                self.handle(CoordinatorEvent::TimerFired(timer));
            }
        }
    }

    fn restarts(&mut self) {
        let fleet = self.coordinator.fleet().clone();
        let (coordinator, effects) = Coordinator::recover(fleet, &self.records, Timestamp(0));
        self.coordinator = coordinator;
        self.carry_out(effects);
    }
}

fn release() -> Release {
    Release {
        version: "v1".to_owned(),
        digest: "v1".to_owned(),
        spec: String::new(),
    }
}

/// An instance on which the new release is well.
fn serving() -> InstanceStatus {
    let live = LiveReleaseView {
        version: "v1".to_owned(),
        digest: "v1".to_owned(),
        color: Color::Blue,
        healthy: Healthy::Yes,
    };
    InstanceStatus {
        live: BTreeMap::from([(ServiceName::from("shop"), live)]),
        ..InstanceStatus::default()
    }
}
