//! What a prepared agent does for the fleet before the barrier: check its peers, and, on one
//! instance, run the command that comes before the switch (database migrations).
//!
//! Changes what of it was begun, and nothing else.

use super::attempt::Attempt;
use super::effect::{AgentEffect, BeforeSwitchFailed};
use super::ledger::{Decision, Ledger};
use super::output::{Fits, Output};
use super::participation::Participation;
use crate::id::{Epoch, InstanceId};
use crate::message::Report;
use std::collections::{BTreeMap, BTreeSet};

/// Directive `CheckPeers`.
pub(super) fn check_peers(
    epoch: Epoch,
    peers: BTreeSet<InstanceId>,
    participation: &mut Participation,
    ledger: &Ledger,
    output: &mut Output,
) -> Fits {
    match participation {
        Participation::Prepared {
            cut_over,
            peer_check,
            ..
        } if cut_over.epoch == epoch => {
            match peer_check {
                Attempt::NotBegun => {
                    *peer_check = Attempt::Running;
                    let releases = cut_over.new_releases();
                    let releases = releases.map(|(s, release)| (s.clone(), release.clone()));
                    output.push(AgentEffect::CheckPeers {
                        epoch,
                        peers,
                        releases: releases.collect(),
                    });
                }
                Attempt::Running => {}
                Attempt::Ended(unseen) => {
                    output.report(ledger, epoch, peer_report(unseen.clone()));
                }
            }
            Fits::Yes
        }
        Participation::Idle
        | Participation::Preparing { .. }
        | Participation::Prepared { .. }
        | Participation::Armed { .. }
        | Participation::Retiring { .. } => not_prepared(epoch, ledger, output),
    }
}

pub(super) fn peers_checked(
    epoch: Epoch,
    unseen: BTreeMap<InstanceId, String>,
    participation: &mut Participation,
    ledger: &Ledger,
    output: &mut Output,
) {
    if let Participation::Prepared {
        cut_over,
        peer_check,
        ..
    } = participation
        && cut_over.epoch == epoch
        && *peer_check != Attempt::NotBegun
    {
        *peer_check = Attempt::Ended(unseen.clone());
        output.report(ledger, epoch, peer_report(unseen));
    }
}

/// Directive `BeforeSwitch`.
pub(super) fn run_before_switch(
    epoch: Epoch,
    participation: &mut Participation,
    ledger: &Ledger,
    output: &mut Output,
) -> Fits {
    match participation {
        Participation::Prepared {
            cut_over,
            before_switch,
            ..
        } if cut_over.epoch == epoch => {
            match before_switch {
                Attempt::NotBegun => {
                    *before_switch = Attempt::Running;
                    let releases = cut_over.new_releases();
                    let releases = releases.map(|(s, r)| (ledger.idle_slot(s), r.clone()));
                    output.push(AgentEffect::BeforeSwitch {
                        epoch,
                        releases: releases.collect(),
                        within: cut_over.policy.before_switch.unwrap_or_default(),
                    });
                }
                Attempt::Running => {}
                Attempt::Ended(result) => {
                    output.report(ledger, epoch, command_report(result.clone()));
                }
            }
            Fits::Yes
        }
        Participation::Idle
        | Participation::Preparing { .. }
        | Participation::Prepared { .. }
        | Participation::Armed { .. }
        | Participation::Retiring { .. } => not_prepared(epoch, ledger, output),
    }
}

pub(super) fn before_switch_ended(
    epoch: Epoch,
    result: Result<String, BeforeSwitchFailed>,
    participation: &mut Participation,
    ledger: &Ledger,
    output: &mut Output,
) {
    if let Participation::Prepared {
        cut_over,
        before_switch,
        ..
    } = participation
        && cut_over.epoch == epoch
        && *before_switch != Attempt::NotBegun
    {
        *before_switch = Attempt::Ended(result.clone());
        output.report(ledger, epoch, command_report(result));
    }
}

/// The directive is of a cut-over that this agent is not prepared for: it says how it stands.
fn not_prepared(epoch: Epoch, ledger: &Ledger, output: &mut Output) -> Fits {
    match ledger.decided.get(&epoch) {
        Some(Decision::Aborted) => {
            output.report(ledger, epoch, Report::Aborted);
            Fits::Yes
        }
        Some(Decision::Committed) | None => Fits::No,
    }
}

fn peer_report(unseen: BTreeMap<InstanceId, String>) -> Report {
    match unseen.is_empty() {
        true => Report::PeersReady,
        false => Report::PeersNotReady { unseen },
    }
}

fn command_report(result: Result<String, BeforeSwitchFailed>) -> Report {
    match result {
        Ok(output) => Report::BeforeSwitchDone { output },
        Err(BeforeSwitchFailed(reason)) => Report::BeforeSwitchFailed { reason },
    }
}
