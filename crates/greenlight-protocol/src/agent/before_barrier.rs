//! What a prepared agent does for the fleet before the barrier: check its peers, and, on one
//! instance, run the command that comes before the switch (database migrations).

use super::attempt::Attempt;
use super::participation::Participation;
use super::{Agent, AgentEffect, Decision};
use crate::id::{Epoch, InstanceId};
use crate::message::Report;
use std::collections::{BTreeMap, BTreeSet};

impl Agent {
    /// Directive `CheckPeers`.
    pub(super) fn check_peers(&mut self, epoch: Epoch, peers: BTreeSet<InstanceId>) {
        match &mut self.participation {
            Participation::Prepared {
                cut_over,
                peer_check,
                ..
            } if cut_over.epoch == epoch => match peer_check.clone() {
                Attempt::NotBegun => {
                    *peer_check = Attempt::Running;
                    let releases = cut_over.new_releases();
                    let releases = releases.map(|(s, release)| (s.clone(), release.clone()));
                    self.effects.push(AgentEffect::CheckPeers {
                        epoch,
                        peers,
                        releases: releases.collect(),
                    });
                }
                Attempt::Running => {}
                Attempt::Ended(unseen) => self.report(epoch, peer_report(unseen)),
            },
            Participation::Idle
            | Participation::Preparing { .. }
            | Participation::Prepared { .. }
            | Participation::Armed { .. }
            | Participation::Retiring { .. } => self.not_prepared(epoch),
        }
    }

    pub(super) fn peers_checked(&mut self, epoch: Epoch, unseen: BTreeMap<InstanceId, String>) {
        if let Participation::Prepared {
            cut_over,
            peer_check,
            ..
        } = &mut self.participation
            && cut_over.epoch == epoch
            && *peer_check != Attempt::NotBegun
        {
            *peer_check = Attempt::Ended(unseen.clone());
            self.report(epoch, peer_report(unseen));
        }
    }

    /// Directive `BeforeSwitch`.
    pub(super) fn run_before_switch(&mut self, epoch: Epoch) {
        match &mut self.participation {
            Participation::Prepared {
                cut_over,
                before_switch,
                ..
            } if cut_over.epoch == epoch => match before_switch.clone() {
                Attempt::NotBegun => {
                    *before_switch = Attempt::Running;
                    let releases = cut_over.new_releases();
                    let releases = releases.map(|(s, r)| (self.ledger.idle_slot(s), r.clone()));
                    self.effects.push(AgentEffect::BeforeSwitch {
                        epoch,
                        releases: releases.collect(),
                        within: cut_over.policy.before_switch.unwrap_or_default(),
                    });
                }
                Attempt::Running => {}
                Attempt::Ended(result) => self.report(epoch, command_report(result)),
            },
            Participation::Idle
            | Participation::Preparing { .. }
            | Participation::Prepared { .. }
            | Participation::Armed { .. }
            | Participation::Retiring { .. } => self.not_prepared(epoch),
        }
    }

    pub(super) fn before_switch_ended(&mut self, epoch: Epoch, result: Result<String, String>) {
        if let Participation::Prepared {
            cut_over,
            before_switch,
            ..
        } = &mut self.participation
            && cut_over.epoch == epoch
            && *before_switch != Attempt::NotBegun
        {
            *before_switch = Attempt::Ended(result.clone());
            self.report(epoch, command_report(result));
        }
    }

    /// The directive is of a cut-over that this agent is not prepared for: it says how it stands.
    fn not_prepared(&mut self, epoch: Epoch) {
        match self.ledger.decided.get(&epoch) {
            Some(Decision::Aborted) => self.report(epoch, Report::Aborted),
            Some(Decision::Committed) | None => self.report_status(),
        }
    }
}

fn peer_report(unseen: BTreeMap<InstanceId, String>) -> Report {
    match unseen.is_empty() {
        true => Report::PeersReady,
        false => Report::PeersNotReady { unseen },
    }
}

fn command_report(result: Result<String, String>) -> Report {
    match result {
        Ok(output) => Report::BeforeSwitchDone { output },
        Err(reason) => Report::BeforeSwitchFailed { reason },
    }
}
