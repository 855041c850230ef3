//! The one meaning of what an agent does: each effect, what an opening leads to, and which
//! directives are stale.

use super::message::{Message, index};
use super::proxy::{Admits, Asked, Targets};
use greenlight_protocol::agent::Promise;
use greenlight_protocol::{
    Agent, AgentEffect, AgentEvent, AgentRecord, AgentTimer, Color, Directive, DirectiveEnvelope,
    Epoch, GateAction, Incarnation, InstanceId, ParticipationView, Release, ServiceName, Slot,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// What an effect of an agent begins. The driver has the parts of the world that it is done to,
/// and decides how long it takes.
#[derive(Clone, Debug)]
pub(crate) enum Begun {
    /// To be written to the journal before anything else happens.
    Write(AgentRecord),
    Send(Message),
    /// For [`super::proxy::Proxy::ask`].
    Ask(Asked),
    /// For [`super::slots::Slots::start`].
    Start {
        slot: Slot,
        incarnation: Incarnation,
        release: Release,
        ready_within: Duration,
    },
    /// For [`super::slots::Slots::stop`].
    Stop {
        slot: Slot,
        drain: Duration,
        stop: Duration,
    },
    CheckPeers {
        epoch: Epoch,
        peers: BTreeSet<InstanceId>,
    },
    RunBeforeSwitch(Epoch),
    SetTimer {
        timer: AgentTimer,
        after: Duration,
    },
}

/// What an effect of the agent of an instance begins; or the rule that it breaks.
pub(crate) fn begin(at: usize, agent: &Agent, effect: AgentEffect) -> Result<Begun, &'static str> {
    Ok(match effect {
        AgentEffect::Persist(record) => Begun::Write(record),
        AgentEffect::Report(envelope) => Begun::Send(Message::Report(at, envelope)),
        AgentEffect::AskPeer { peer, epoch } => Begun::Send(Message::Ask {
            from: at,
            to: index(&peer),
            epoch,
        }),
        AgentEffect::AnswerPeer {
            peer,
            epoch,
            answer,
        } => Begun::Send(Message::Answer {
            from: at,
            to: index(&peer),
            epoch,
            answer,
        }),
        AgentEffect::Gate(action) => {
            let targets = targets(agent, &action);
            let none = "a gate opened to a release that nothing was decided on";
            Begun::Ask(Asked {
                targets: targets.ok_or(none)?,
                action,
                has_flipped: false,
                is_forgotten: false,
            })
        }
        AgentEffect::Start {
            slot,
            incarnation,
            release,
            ready_within,
        } => Begun::Start {
            slot,
            incarnation,
            release,
            ready_within,
        },
        AgentEffect::Stop { slot, drain, stop } => Begun::Stop { slot, drain, stop },
        AgentEffect::CheckPeers { epoch, peers, .. } => Begun::CheckPeers { epoch, peers },
        AgentEffect::BeforeSwitch { epoch, .. } => Begun::RunBeforeSwitch(epoch),
        AgentEffect::SetTimer { timer, after } => Begun::SetTimer { timer, after },
    })
}

/// What an opening leads to; nothing if nothing was decided on that is there.
fn targets(agent: &Agent, action: &GateAction) -> Option<Targets> {
    let GateAction::Open { colors, .. } = action else {
        return Some(Targets::new());
    };
    let targets = colors.iter().map(|(service, color)| {
        let target = match color {
            Some(color) => Some(admits(agent, service, *color)?),
            None => None,
        };
        Some((service.clone(), target))
    });
    targets.collect()
}

/// Which cut-over made live what the agent opens to.
fn admits(agent: &Agent, service: &ServiceName, color: Color) -> Option<Admits> {
    let ledger = agent.ledger();
    let ordinal = match (ledger.live.get(service), &ledger.promise) {
        (Some(live), _) if live.color == color => live.epoch,
        (_, Promise::Armed(cut_over)) if ledger.idle_slot(service).color == color => cut_over.epoch,
        (_, Promise::None | Promise::Prepared(_) | Promise::Armed(_)) => return None,
    };
    Some(Admits { color, ordinal })
}

/// Whether G6 forbids the event to change anything: an older term; or, in the same term, an
/// older cut-over than the one at hand, unless it is a decision.
pub(crate) fn is_stale(agent: &Agent, event: &AgentEvent) -> bool {
    let AgentEvent::Directed(DirectiveEnvelope { token, directive }) = event else {
        return false;
    };
    if token.term != agent.term() {
        return token.term < agent.term();
    }
    match directive {
        Directive::Prepare(_) | Directive::Arm | Directive::Hold => token.epoch < at_hand(agent),
        Directive::Retire => token.epoch < agent.ledger().switched,
        Directive::CheckPeers(_)
        | Directive::BeforeSwitch
        | Directive::Switch
        | Directive::Abort
        | Directive::QueryStatus => false,
    }
}

/// The cut-over at hand: the one under way, or the last one decided.
pub(crate) fn at_hand(agent: &Agent) -> Epoch {
    match agent.status().participation {
        ParticipationView::Idle => agent.ledger().latest_decided(),
        ParticipationView::Preparing(epoch)
        | ParticipationView::Prepared(epoch)
        | ParticipationView::Armed(epoch) => epoch,
    }
}
