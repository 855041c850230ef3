//! What has really gone wrong at each gate and with each application: the only excuses that a
//! request has for failing (G3).
//!
//! A fault excuses requests of that service on that instance that lived through it, and no
//! others. It is noted where it happens, and not where a request fails.

use super::gate::Admits;
use super::oracle::{Answer, Oracle};
use greenlight_protocol::{InstanceId, ServiceName};
use std::collections::{BTreeMap, BTreeSet};

/// How often the proxy sends a request again that applications have died under.
pub(crate) const MOST_RESENT: u32 = 5;

/// How long a request may still have to wait at the gate after its application has come back, in
/// microseconds: longer than any hold.
const HOLD: u64 = 4_000_000;

/// Until when something lasted; nothing if it still does.
type Until = Option<u64>;

/// The faults of a run.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// By instance: its proxy was gone.
    proxies: BTreeMap<usize, Until>,
    /// By instance, service and digest: that application was gone, and nobody has reached one
    /// since.
    applications: BTreeMap<(usize, ServiceName, String), Until>,
    /// Where a hold has expired that sheds, and the gate was not opened since.
    shedding: BTreeSet<(usize, ServiceName)>,
    /// Where a process ended before its opening of what it had not served was written, and the gate
    /// was not opened since.
    lost_openings: BTreeSet<(usize, ServiceName)>,
}

/// A request that fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure<'a> {
    pub(crate) at: usize,
    pub(crate) instance: &'a InstanceId,
    pub(crate) service: &'a ServiceName,
    /// What its gate admits to, or did before it was held.
    pub(crate) admits: Option<Admits>,
    /// When it came.
    pub(crate) since: u64,
    pub(crate) now: u64,
    /// Whether what its process's leader does has yet to arrive there.
    pub(crate) is_behind: bool,
    /// Whether it could have been sent once more.
    pub(crate) resendable: bool,
}

impl Faults {
    pub(crate) fn proxy_ended(&mut self, at: usize) {
        self.proxies.insert(at, None);
    }

    pub(crate) fn proxy_is_back(&mut self, at: usize, now: u64) {
        end(self.proxies.get_mut(&at), now);
    }

    pub(crate) fn application_ended(&mut self, at: usize, service: &ServiceName, digest: &str) {
        let key = (at, service.clone(), digest.to_owned());
        self.applications.insert(key, None);
    }

    /// A request has reached it.
    pub(crate) fn application_is_there(
        &mut self,
        at: usize,
        service: &ServiceName,
        digest: &str,
        now: u64,
    ) {
        let key = (at, service.clone(), digest.to_owned());
        end(self.applications.get_mut(&key), now);
    }

    /// The deadline of a hold has passed, and the policy of its cut-over is to shed.
    pub(crate) fn begins_to_shed(&mut self, at: usize, service: ServiceName) {
        self.shedding.insert((at, service));
    }

    pub(crate) fn opening_is_lost(&mut self, at: usize, service: ServiceName) {
        self.lost_openings.insert((at, service));
    }

    pub(crate) fn gate_opened(&mut self, at: usize, service: &ServiceName) {
        let key = (at, service.clone());
        self.shedding.remove(&key);
        self.lost_openings.remove(&key);
    }

    /// Whether a request may fail like this.
    pub(crate) fn excuse(&self, answer: Answer, failure: &Failure<'_>, oracle: &Oracle) -> bool {
        let Failure { at, service, .. } = *failure;
        match answer {
            Answer::Served => true,
            Answer::NothingDeployed => {
                let is_lost = self.lost_openings.contains(&(at, service.clone()));
                failure.is_behind || is_lost || !oracle.was_served(failure.instance, service)
            }
            Answer::Shed => failure.is_behind || self.shedding.contains(&(at, service.clone())),
            Answer::ProxyGone => lasted(self.proxies.get(&at), failure.since),
            // That the deadline had passed and the application had died, was seen to there.
            Answer::CutOffByDrain | Answer::DiedUnderIt => !failure.resendable,
            Answer::TimedOut => {
                let back = failure.now.saturating_sub(HOLD).max(failure.since);
                let mut wanted = oracle.wanted(failure.instance, service, failure.admits);
                wanted.any(|digest| {
                    let key = (at, service.clone(), digest.to_owned());
                    lasted(self.applications.get(&key), back)
                })
            }
        }
    }
}

fn end(fault: Option<&mut Until>, now: u64) {
    if let Some(until @ None) = fault {
        *until = Some(now);
    }
}

/// Whether it lasted until this moment or longer.
fn lasted(fault: Option<&Until>, moment: u64) -> bool {
    fault.is_some_and(|until| until.is_none_or(|until| until >= moment))
}
