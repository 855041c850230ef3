//! What a prepared agent does for the fleet before the barrier: look at its peers, and, on one
//! instance, run the command that comes before the switch (database migrations).
//!
//! The coordinator asks, and asks again until it is answered; an attempt in progress is not
//! begun again. Nothing about it is in the journal: a restart of the agent only asks its shell
//! again. To look at peers twice does no harm. What makes the command run once is the shell: a run
//! is known by its epoch, outlives the agent, and is found again by it. If the epoch is aborted,
//! the run ends with the slots that it was made for.

use super::{Agent, AgentEffect, Decision, Participation};
use crate::cut_over::CutOver;
use crate::id::{Epoch, InstanceId};
use crate::message::Report;
use std::collections::{BTreeMap, BTreeSet};

/// What was begun, and how it ended, if it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Attempt<T> {
    epoch: Epoch,
    ended: Option<T>,
}

impl<T: Clone> Attempt<T> {
    /// Begins one for this epoch unless that was done; then says how it ended, if it has.
    fn begin(attempt: &mut Option<Self>, epoch: Epoch) -> Begun<T> {
        match attempt {
            Some(known) if known.epoch == epoch => Begun::Before(known.ended.clone()),
            Some(_) | None => {
                *attempt = Some(Self { epoch, ended: None });
                Begun::Now
            }
        }
    }

    /// Notes how it ended; says whether it is the one that was begun.
    fn end(attempt: &mut Option<Self>, epoch: Epoch, result: &T) -> bool {
        let Some(known) = attempt.as_mut().filter(|known| known.epoch == epoch) else {
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
        effects: &mut Vec<AgentEffect>,
    ) {
        let Some(cut_over) = self.prepared(epoch, effects) else {
            return;
        };
        match Attempt::begin(&mut self.peer_check, epoch) {
            Begun::Now => {
                let new_releases = cut_over.new_releases();
                let releases = new_releases.map(|(s, release)| (s.clone(), release.clone()));
                effects.push(AgentEffect::CheckPeers {
                    epoch,
                    peers,
                    releases: releases.collect(),
                });
            }
            Begun::Before(Some(unseen)) => self.report_peers(epoch, unseen, effects),
            Begun::Before(None) => {}
        }
    }

    pub(super) fn peers_checked(
        &mut self,
        epoch: Epoch,
        unseen: BTreeMap<InstanceId, String>,
        effects: &mut Vec<AgentEffect>,
    ) {
        if Attempt::end(&mut self.peer_check, epoch, &unseen) {
            self.report_peers(epoch, unseen, effects);
        }
    }

    fn report_peers(
        &self,
        epoch: Epoch,
        unseen: BTreeMap<InstanceId, String>,
        effects: &mut Vec<AgentEffect>,
    ) {
        let report = match unseen.is_empty() {
            true => Report::PeersReady,
            false => Report::PeersNotReady { unseen },
        };
        self.report(epoch, report, effects);
    }

    /// Directive `BeforeSwitch`.
    pub(super) fn run_before_switch(&mut self, epoch: Epoch, effects: &mut Vec<AgentEffect>) {
        let Some(cut_over) = self.prepared(epoch, effects) else {
            return;
        };
        match Attempt::begin(&mut self.before_switch, epoch) {
            Begun::Now => {
                let new_releases = cut_over.new_releases();
                let releases = new_releases.map(|(s, r)| (self.ledger.idle_slot(s), r.clone()));
                effects.push(AgentEffect::BeforeSwitch {
                    epoch,
                    releases: releases.collect(),
                    within: cut_over.policy.before_switch.unwrap_or_default(),
                });
            }
            Begun::Before(Some(result)) => self.report_before_switch(epoch, result, effects),
            Begun::Before(None) => {}
        }
    }

    pub(super) fn before_switch_ended(
        &mut self,
        epoch: Epoch,
        result: Result<String, String>,
        effects: &mut Vec<AgentEffect>,
    ) {
        if Attempt::end(&mut self.before_switch, epoch, &result) {
            self.report_before_switch(epoch, result, effects);
        }
    }

    fn report_before_switch(
        &self,
        epoch: Epoch,
        result: Result<String, String>,
        effects: &mut Vec<AgentEffect>,
    ) {
        let report = match result {
            Ok(output) => Report::BeforeSwitchDone { output },
            Err(reason) => Report::BeforeSwitchFailed { reason },
        };
        self.report(epoch, report, effects);
    }

    /// The cut-over, if this agent is prepared for it; if not, the coordinator is told how it stands.
    fn prepared(&self, epoch: Epoch, effects: &mut Vec<AgentEffect>) -> Option<CutOver> {
        if let Participation::Prepared(cut_over) = &self.ledger.participation
            && cut_over.epoch == epoch
        {
            return Some(cut_over.clone());
        }
        match self.ledger.decided.get(&epoch) {
            Some(Decision::Aborted) => self.report(epoch, Report::Aborted, effects),
            Some(Decision::Committed) | None => self.report_status(effects),
        }
        None
    }
}
