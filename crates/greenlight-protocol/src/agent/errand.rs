//! What a prepared agent does for the fleet before the barrier: look at its peers, and, on one
//! instance, run the command that comes before the switch (database migrations).
//!
//! The coordinator asks, and asks again until it is answered; an errand that is under way is not
//! begun again. Nothing about it is in the journal: a restart of the agent only asks its shell
//! again. To look at peers twice does no harm. What makes the command run once is the shell: a run
//! is known by its epoch, outlives the agent, and is found again by it. If the epoch is refused,
//! the run ends with the slots that it was made for.

use super::{Agent, AgentEffect, Decision, Stage};
use crate::cut_over::CutOver;
use crate::id::{Epoch, InstanceId};
use crate::message::Report;
use std::collections::{BTreeMap, BTreeSet};

/// What was begun, and how it ended, if it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Errand<T> {
    epoch: Epoch,
    ended: Option<T>,
}

impl<T: Clone> Errand<T> {
    /// Begins one for this epoch unless that was done; then says how it ended, if it has.
    fn begin(errand: &mut Option<Self>, epoch: Epoch) -> Begun<T> {
        match errand {
            Some(known) if known.epoch == epoch => Begun::Before(known.ended.clone()),
            Some(_) | None => {
                *errand = Some(Self { epoch, ended: None });
                Begun::Now
            }
        }
    }

    /// Notes how it ended; says whether it is the one that was begun.
    fn end(errand: &mut Option<Self>, epoch: Epoch, result: &T) -> bool {
        let Some(known) = errand.as_mut().filter(|known| known.epoch == epoch) else {
            return false;
        };
        known.ended = Some(result.clone());
        true
    }
}

enum Begun<T> {
    Now,
    Before(Option<T>),
}

impl Agent {
    /// Directive `CheckPeers`.
    pub(super) fn check_peers(
        &mut self,
        epoch: Epoch,
        peers: BTreeSet<InstanceId>,
        fx: &mut Vec<AgentEffect>,
    ) {
        let Some(cut_over) = self.prepared(epoch, fx) else {
            return;
        };
        match Errand::begin(&mut self.peer_check, epoch) {
            Begun::Now => {
                let brought = cut_over.brought();
                let releases = brought.map(|(s, release)| (s.clone(), release.clone()));
                fx.push(AgentEffect::CheckPeers {
                    epoch,
                    peers,
                    releases: releases.collect(),
                });
            }
            Begun::Before(Some(unseen)) => self.report_peers(epoch, unseen, fx),
            Begun::Before(None) => {}
        }
    }

    pub(super) fn peers_checked(
        &mut self,
        epoch: Epoch,
        unseen: BTreeMap<InstanceId, String>,
        fx: &mut Vec<AgentEffect>,
    ) {
        if Errand::end(&mut self.peer_check, epoch, &unseen) {
            self.report_peers(epoch, unseen, fx);
        }
    }

    fn report_peers(
        &self,
        epoch: Epoch,
        unseen: BTreeMap<InstanceId, String>,
        fx: &mut Vec<AgentEffect>,
    ) {
        let report = match unseen.is_empty() {
            true => Report::PeersReady,
            false => Report::PeersNotReady { unseen },
        };
        self.report(epoch, report, fx);
    }

    /// Directive `BeforeSwitch`.
    pub(super) fn run_before_switch(&mut self, epoch: Epoch, fx: &mut Vec<AgentEffect>) {
        let Some(cut_over) = self.prepared(epoch, fx) else {
            return;
        };
        match Errand::begin(&mut self.before_switch, epoch) {
            Begun::Now => {
                let brought = cut_over.brought();
                let releases = brought.map(|(s, r)| (self.ledger.idle_slot(s), r.clone()));
                fx.push(AgentEffect::BeforeSwitch {
                    epoch,
                    releases: releases.collect(),
                    within: cut_over.policy.before_switch.unwrap_or_default(),
                });
            }
            Begun::Before(Some(result)) => self.report_before_switch(epoch, result, fx),
            Begun::Before(None) => {}
        }
    }

    pub(super) fn before_switch_ended(
        &mut self,
        epoch: Epoch,
        result: Result<String, String>,
        fx: &mut Vec<AgentEffect>,
    ) {
        if Errand::end(&mut self.before_switch, epoch, &result) {
            self.report_before_switch(epoch, result, fx);
        }
    }

    fn report_before_switch(
        &self,
        epoch: Epoch,
        result: Result<String, String>,
        fx: &mut Vec<AgentEffect>,
    ) {
        let report = match result {
            Ok(output) => Report::BeforeSwitchDone { output },
            Err(reason) => Report::BeforeSwitchFailed { reason },
        };
        self.report(epoch, report, fx);
    }

    /// The cut-over, if this agent is prepared for it; if not, the coordinator is told how it stands.
    fn prepared(&self, epoch: Epoch, fx: &mut Vec<AgentEffect>) -> Option<CutOver> {
        if let Stage::Prepared(cut_over) = &self.ledger.stage
            && cut_over.epoch == epoch
        {
            return Some(cut_over.clone());
        }
        match self.ledger.decided.get(&epoch) {
            Some(Decision::Refused) => self.report(epoch, Report::Aborted, fx),
            Some(Decision::Committed) | None => self.report_status(fx),
        }
        None
    }
}
