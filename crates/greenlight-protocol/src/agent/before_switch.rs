//! The command that is run once in a deployment, before the switch: database migrations.
//!
//! One agent is asked, and asked again until it answers. What makes it run once is the shell: a
//! run is known by its epoch, outlives the agent, and is found again by it. So nothing about it is
//! in the journal, and a restart of the agent only asks the shell again. If the epoch is refused,
//! the run ends with the slots that it was made for.

use super::{Agent, AgentEffect, Decision, Stage};
use crate::id::Epoch;
use crate::message::Report;
use std::collections::BTreeMap;

/// A command that was begun, and how it ended, if it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct BeforeSwitch {
    epoch: Epoch,
    ended: Option<Result<String, String>>,
}

impl Agent {
    /// Directive `BeforeSwitch`.
    pub(super) fn run_before_switch(&mut self, epoch: Epoch, fx: &mut Vec<AgentEffect>) {
        let cut_over = match &self.ledger.stage {
            Stage::Prepared(cut_over) if cut_over.epoch == epoch => cut_over.clone(),
            Stage::Settled | Stage::Prepared(_) | Stage::Armed(_) => {
                match self.ledger.decided.get(&epoch) {
                    Some(Decision::Refused) => self.report(epoch, Report::Aborted, fx),
                    Some(Decision::Committed) | None => self.report_status(fx),
                }
                return;
            }
        };
        if let Some(begun) = self.before_switch.as_ref().filter(|run| run.epoch == epoch) {
            if let Some(result) = begun.ended.clone() {
                self.report_before_switch(epoch, result, fx);
            }
            return;
        }
        let within = cut_over.policy.before_switch.unwrap_or_default();
        let releases: BTreeMap<_, _> = cut_over
            .brought()
            .map(|(service, release)| (self.ledger.idle_slot(service), release.clone()))
            .collect();
        self.before_switch = Some(BeforeSwitch { epoch, ended: None });
        fx.push(AgentEffect::BeforeSwitch {
            epoch,
            releases,
            within,
        });
    }

    pub(super) fn before_switch_ended(
        &mut self,
        epoch: Epoch,
        result: Result<String, String>,
        fx: &mut Vec<AgentEffect>,
    ) {
        let Some(run) = self.before_switch.as_mut().filter(|run| run.epoch == epoch) else {
            return;
        };
        run.ended = Some(result.clone());
        self.report_before_switch(epoch, result, fx);
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
}
