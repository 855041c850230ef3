//! Rest: what a fleet must come to once faults stop, whatever happened before.

use super::event::Event;
use super::gate::Route;
use super::oracle::{Checked, breach};
use super::simulation::{Act, Simulation};
use greenlight_protocol::{Command, Coordinator, Outcome, ParticipationView, Phase, Slot};
use std::collections::BTreeMap;

/// How often it is looked whether the fleet is at rest, in microseconds.
const LOOK: u64 = 1_000_000;

impl Simulation {
    pub(crate) fn look(&mut self) -> Checked {
        let phase = self.coordinator.machine.as_ref().map(Coordinator::phase);
        if matches!(phase, Some(Phase::Ready)) {
            let requested_by = "a person".to_owned();
            let command = self
                .rng
                .pick(&[Command::Promote, Command::Abort { requested_by }]);
            self.command(command);
        }
        if self.rest().is_err() {
            self.after(LOOK, Event::Look);
            return Ok(());
        }
        match self.act {
            Act::Chaos | Act::Ending => {}
            Act::Healed => {
                self.act = Act::LastDeployment;
                self.last_request();
                self.after(LOOK, Event::Look);
            }
            Act::LastDeployment => {
                self.is_promoted()?;
                self.act = Act::Ending;
            }
        }
        Ok(())
    }

    fn is_promoted(&self) -> Checked {
        let coordinator = self.coordinator.machine.as_ref();
        let deployment = coordinator.and_then(|c| c.ledger().deployment.as_ref());
        let Some(deployment) = deployment else {
            return breach("the last deployment was not taken");
        };
        let version = format!("v{}", self.versions);
        let mut releases = deployment.request.releases.values();
        if releases.any(|release| release.as_ref().is_none_or(|r| r.version != version)) {
            return breach("the last deployment was not taken");
        }
        match &deployment.outcome {
            Some(Outcome::Promoted) => Ok(()),
            outcome => breach(format!("the last deployment ended as {outcome:?}")),
        }
    }

    /// G2, and nothing left held, half done or running; or what is in the way.
    pub(crate) fn rest(&self) -> Checked {
        let Some(coordinator) = &self.coordinator.machine else {
            return breach("the coordinator is down");
        };
        let ledger = coordinator.ledger();
        if self.coordinator.has_work()
            || ledger.active().is_some()
            || coordinator.is_retiring()
            || ledger.warm.is_some()
        {
            return breach(format!(
                "the coordinator is {}, active {}, retiring {}, warm {}",
                coordinator.phase().name(),
                ledger.active().is_some(),
                coordinator.is_retiring(),
                ledger.warm.is_some()
            ));
        }
        // A rolling deployment that could neither go on nor back leaves the fleet split.
        let may_be_split = self.may_be_split;
        for machine in &self.machines {
            let name = &machine.name;
            let Some(agent) = &machine.agent.machine else {
                return breach(format!("the agent of `{name}` is down"));
            };
            let participation = agent.status().participation;
            if participation != ParticipationView::Idle || machine.agent.has_work() {
                return breach(format!("`{name}` is at {participation:?}"));
            }
            let Some(leader) = machine.gate.leader().filter(|_| machine.link_up) else {
                return breach(format!("the gate or the link of `{name}` is down"));
            };
            let routes: BTreeMap<_, _> = machine.gate.routes(leader).collect();
            let mut expected = Vec::new();
            for (service, route) in &routes {
                let live = match (ledger.live.get(service), *route) {
                    (None, Route::Closed | Route::Shed(None)) => continue,
                    (Some(_), Route::Closed | Route::Shed(None)) if may_be_split => continue,
                    (_, Route::Open(admits)) => admits.color,
                    (live, route) => {
                        let is_live = live.is_some();
                        let text = format!("`{service}` on `{name}`: {route:?}, live {is_live}");
                        return breach(text);
                    }
                };
                let slot = Slot {
                    service: service.clone(),
                    color: live,
                };
                let Some(app) = machine.slots.get(&slot).filter(|app| app.passed) else {
                    return breach(format!("the gate of `{slot}` on `{name}` leads nowhere"));
                };
                let expects = ledger.live.get(service).map(|release| &release.digest);
                if expects != Some(&app.digest) && !may_be_split {
                    let digest = &app.digest;
                    return breach(format!("`{name}` serves {digest} instead of {expects:?}"));
                }
                expected.push(slot);
            }
            let unserved = ledger.live.keys();
            if unserved
                .filter(|service| !routes.contains_key(service))
                .any(|_| !may_be_split)
            {
                return breach(format!("`{name}` does not know what is live"));
            }
            let mut runs = machine.slots.iter().map(|(slot, _)| slot);
            if let Some(left) = runs.find(|slot| !expected.contains(slot)) {
                return breach(format!("`{left}` on `{name}` was left running"));
            }
        }
        Ok(())
    }
}
