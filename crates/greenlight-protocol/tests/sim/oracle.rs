//! What must hold at every step: G1 to G7 over what really happened, and not over what any
//! machine believes.
//!
//! It sees every admission of the fleet in one global order, every record that has become
//! durable, and every request with its one answer.

use super::gate::{Admits, RequestId};
use greenlight_protocol::agent::Decision;
use greenlight_protocol::{
    AgentRecord, CoordinatorRecord, Epoch, Incarnation, InstanceId, OnUncertain, ServiceName,
};
use std::collections::{BTreeMap, BTreeSet};

/// A broken guarantee.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Breach(pub(crate) String);

pub(crate) type Checked = Result<(), Breach>;

pub(crate) fn breach<T>(text: impl Into<String>) -> Result<T, Breach> {
    Err(Breach(text.into()))
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Answer {
    /// The application answered.
    Served,
    /// Nothing was ever deployed there.
    NothingDeployed,
    /// The gate shed, as its policy says.
    Shed,
    /// The proxy's own process was not there.
    ProxyGone,
    /// The application died under a request that must not be sent twice.
    DiedUnderIt,
    /// The drain deadline passed under it.
    CutOffByDrain,
    /// Nothing took it in time.
    TimedOut,
}

/// What is known of one cut-over.
#[derive(Debug)]
struct Known {
    participants: BTreeSet<InstanceId>,
    /// What it deploys; nothing for a service that it removes.
    digests: BTreeMap<ServiceName, Option<String>>,
    on_uncertain: OnUncertain,
    committed: bool,
    aborted: bool,
    decided: BTreeMap<InstanceId, Decision>,
}

/// One request that has begun to reach an application.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission<'a> {
    pub(crate) instance: &'a InstanceId,
    pub(crate) service: &'a ServiceName,
    pub(crate) admits: Admits,
    pub(crate) incarnation: Incarnation,
    pub(crate) digest: &'a str,
    /// Whether this incarnation has ever passed its check.
    pub(crate) passed: bool,
}

/// The judge of a run.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    cut_overs: BTreeMap<Epoch, Known>,
    /// By service and instance: the newest cut-over it takes part in to which anyone, anywhere,
    /// has admitted.
    newest: BTreeMap<(ServiceName, InstanceId), Epoch>,
    seen: BTreeSet<(ServiceName, Epoch)>,
    served: BTreeSet<(ServiceName, InstanceId)>,
    /// What each gate itself has been opened to, since its machine last lost power.
    opened: BTreeSet<(InstanceId, ServiceName, Epoch)>,
    unanswered: BTreeSet<RequestId>,
    pub(crate) answers: BTreeMap<Answer, u64>,
    /// Admissions to old that the gate's expired deadline excuses, and reports.
    pub(crate) excused: u64,
    pub(crate) admissions: u64,
}

impl Oracle {
    /// A record of the coordinator has become durable.
    pub(crate) fn coordinator_wrote(&mut self, record: &CoordinatorRecord) -> Checked {
        match record {
            CoordinatorRecord::CutOverStarted(started) => {
                let cut_over = &started.cut_over;
                let digests = cut_over.releases.iter();
                let known = Known {
                    participants: cut_over.participants.clone(),
                    digests: digests
                        .map(|(name, release)| {
                            (name.clone(), release.as_ref().map(|r| r.digest.clone()))
                        })
                        .collect(),
                    on_uncertain: cut_over.policy.on_uncertain,
                    committed: false,
                    aborted: false,
                    decided: BTreeMap::new(),
                };
                if self.cut_overs.insert(cut_over.epoch, known).is_some() {
                    return breach(format!("epoch {} was used twice", cut_over.epoch));
                }
            }
            CoordinatorRecord::Committed(epoch) => {
                self.known(*epoch)?.committed = true;
                self.check_decisions(*epoch)?;
            }
            CoordinatorRecord::Aborted { epoch, .. } => {
                self.known(*epoch)?.aborted = true;
                self.check_decisions(*epoch)?;
            }
            CoordinatorRecord::TermStarted(_)
            | CoordinatorRecord::Accepted(_)
            | CoordinatorRecord::Completed(_)
            | CoordinatorRecord::Finished { .. }
            | CoordinatorRecord::Retired(_)
            | CoordinatorRecord::Snapshot(_) => {}
        }
        Ok(())
    }

    /// A record of an agent has become durable.
    pub(crate) fn agent_wrote(&mut self, who: &InstanceId, record: &AgentRecord) -> Checked {
        let (epoch, decision) = match record {
            AgentRecord::Switched(epoch) => (*epoch, Decision::Committed),
            AgentRecord::Aborted(epoch) => (*epoch, Decision::Aborted),
            AgentRecord::TermSeen(_)
            | AgentRecord::Prepared(_)
            | AgentRecord::Armed(_)
            | AgentRecord::Retired(_) => return Ok(()),
        };
        let known = self.known(epoch)?;
        if known.participants.contains(who) {
            known.decided.insert(who.clone(), decision);
        }
        self.check_decisions(epoch)
    }

    fn known(&mut self, epoch: Epoch) -> Result<&mut Known, Breach> {
        let known = self.cut_overs.get_mut(&epoch);
        known.ok_or_else(|| Breach(format!("epoch {epoch} was never begun durably")))
    }

    /// One decision for everyone (G2), and it is the coordinator's (G5).
    fn check_decisions(&mut self, epoch: Epoch) -> Checked {
        let known = self.known(epoch)?;
        if known.committed && known.aborted {
            return breach(format!("G2: epoch {epoch} was committed and aborted"));
        }
        for (who, decision) in &known.decided {
            match decision {
                Decision::Committed if !known.committed => {
                    return breach(format!("G5: `{who}` switched to uncommitted epoch {epoch}"));
                }
                Decision::Aborted if known.committed => {
                    return breach(format!("G2: `{who}` refused committed epoch {epoch}"));
                }
                Decision::Committed | Decision::Aborted => {}
            }
        }
        Ok(())
    }

    /// A gate opens to what a cut-over made live.
    pub(crate) fn gate_opened(
        &mut self,
        who: &InstanceId,
        service: &ServiceName,
        ordinal: Epoch,
    ) -> Checked {
        let opened = (who.clone(), service.clone(), ordinal);
        self.opened.insert(opened);
        if self.known(ordinal)?.committed {
            return Ok(());
        }
        breach(format!("G5: `{who}` opened to uncommitted epoch {ordinal}"))
    }

    /// What the machine had not yet synced is forgotten there.
    pub(crate) fn gate_lost_power(&mut self, who: &InstanceId) {
        self.opened.retain(|(known, ..)| known != who);
    }

    /// A gate was opened for the first time, and its process ended before that was written.
    pub(crate) fn opening_is_lost(&mut self, who: &InstanceId, service: &ServiceName) {
        self.served.remove(&(service.clone(), who.clone()));
    }

    /// A gate refuses what a cut-over has removed.
    pub(crate) fn gate_closed(&mut self, who: &InstanceId, service: &ServiceName) -> Checked {
        if self.decided_on(who, service) != Some(&None) {
            return breach(format!(
                "`{who}` closed its gate to `{service}`, which is live"
            ));
        }
        self.served.remove(&(service.clone(), who.clone()));
        Ok(())
    }

    /// A request reaches an application.
    pub(crate) fn admitted(&mut self, admission: &Admission<'_>) -> Checked {
        self.admissions += 1;
        let Admission {
            instance, service, ..
        } = *admission;
        let ordinal = admission.admits.ordinal;
        if !admission.passed {
            let incarnation = admission.incarnation;
            return breach(format!(
                "G4: `{service}` on `{instance}` was given a request at {incarnation}, unchecked"
            ));
        }
        let known = self.known(ordinal)?;
        let new_releases = known.digests.get(service).and_then(Option::as_deref);
        if new_releases != Some(admission.digest) {
            let digest = admission.digest;
            return breach(format!(
                "`{digest}` of `{service}` on `{instance}` is not what epoch {ordinal} brought"
            ));
        }
        let key = (service.clone(), ordinal);
        if !self.seen.contains(&key) {
            self.seen.insert(key);
            let known = &self.cut_overs[&ordinal];
            for participant in &known.participants {
                let key = (service.clone(), participant.clone());
                let newest = self.newest.entry(key).or_default();
                *newest = (*newest).max(ordinal);
            }
        }
        let here = (service.clone(), instance.clone());
        let newest = self.newest.get(&here);
        let newest = newest.copied().unwrap_or_default();
        self.served.insert(here);
        if ordinal >= newest {
            return Ok(());
        }
        let may_serve_old = self.cut_overs[&newest].on_uncertain == OnUncertain::ServeOld;
        // A gate that has opened needs no news of it.
        let has_opened = (instance.clone(), service.clone(), newest);
        let has_opened = self.opened.contains(&has_opened);
        if may_serve_old && !has_opened && admission.admits.expired == Some(newest) {
            self.excused += 1;
            return Ok(());
        }
        breach(format!(
            "G1: `{service}` on `{instance}` admitted to epoch {ordinal} after one to {newest}"
        ))
    }

    /// Whether this service was ever served there.
    pub(crate) fn was_served(&self, instance: &InstanceId, service: &ServiceName) -> bool {
        let key = (service.clone(), instance.clone());
        self.served.contains(&key)
    }

    /// What the last decision on a service has brought to an instance; nothing if it removed it.
    fn decided_on(&self, who: &InstanceId, service: &ServiceName) -> Option<&Option<String>> {
        let committed = self.cut_overs.values().rev();
        let mut committed =
            committed.filter(|known| known.committed && known.participants.contains(who));
        committed.find_map(|known| known.digests.get(service))
    }

    /// The releases that a request may be for: the one that its gate admits to, and the one that
    /// was decided on.
    pub(crate) fn wanted(
        &self,
        who: &InstanceId,
        service: &ServiceName,
        admits: Option<Admits>,
    ) -> impl Iterator<Item = &str> {
        let admitted = admits.and_then(|admits| self.cut_overs.get(&admits.ordinal));
        let admitted = admitted.and_then(|known| known.digests.get(service)?.as_deref());
        let decided = self.decided_on(who, service);
        let decided = decided.and_then(Option::as_deref);
        admitted.into_iter().chain(decided)
    }

    pub(crate) fn asked(&mut self, request: RequestId) {
        self.unanswered.insert(request);
    }

    pub(crate) fn answered(&mut self, request: RequestId, answer: Answer) -> Checked {
        if !self.unanswered.remove(&request) {
            return breach(format!("request {request} was answered twice"));
        }
        *self.answers.entry(answer).or_default() += 1;
        Ok(())
    }

    pub(crate) fn all_answered(&self) -> Checked {
        match self.unanswered.first() {
            None => Ok(()),
            Some(request) => breach(format!("request {request} was never answered")),
        }
    }
}
