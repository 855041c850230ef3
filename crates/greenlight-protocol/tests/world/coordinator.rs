//! The one meaning of what the coordinator does, and which votes are stale.

use super::message::{Message, index};
use greenlight_protocol::{
    Coordinator, CoordinatorEffect, CoordinatorEvent, CoordinatorRecord, CoordinatorTimer, Report,
};
use std::time::Duration;

/// What an effect of the coordinator begins; the driver decides how long it takes.
#[derive(Clone, Debug)]
pub(crate) enum Begun {
    /// To be written to the journal before anything else happens.
    Write(Box<CoordinatorRecord>),
    Send(Message),
    SetTimer {
        timer: CoordinatorTimer,
        after: Duration,
    },
}

pub(crate) fn begin(effect: CoordinatorEffect) -> Begun {
    match effect {
        CoordinatorEffect::Persist(record) => Begun::Write(Box::new(record)),
        CoordinatorEffect::Send { to, envelope } => {
            Begun::Send(Message::Directive(index(&to), envelope))
        }
        CoordinatorEffect::SetTimer { timer, after } => Begun::SetTimer { timer, after },
    }
}

/// Whether G6 forbids the event to change anything: a vote that was given to an earlier term.
pub(crate) fn is_stale(coordinator: &Coordinator, event: &CoordinatorEvent) -> bool {
    let CoordinatorEvent::Reported { envelope, .. } = event else {
        return false;
    };
    is_vote(&envelope.report) && envelope.token.term < coordinator.term()
}

/// Whether a report answers a directive, and counts only in the term of that.
pub(crate) fn is_vote(report: &Report) -> bool {
    match report {
        Report::Prepared
        | Report::PrepareFailed { .. }
        | Report::PeersReady
        | Report::PeersNotReady { .. }
        | Report::BeforeSwitchDone { .. }
        | Report::BeforeSwitchFailed { .. }
        | Report::Armed { .. }
        | Report::Held(_)
        | Report::HoldRefused { .. } => true,
        Report::Status(_)
        | Report::Switched(_)
        | Report::SwitchFailed { .. }
        | Report::Aborted
        | Report::Retired(_)
        | Report::Unhealthy { .. }
        | Report::InDoubt
        | Report::Fenced => false,
    }
}
