//! The state of the fleet as the API reads it: published by the coordinator's thread, and read
//! without asking it.
//!
//! So `status` and `history` delay no report of a barrier, however many of them are asked for.

use greenlight_link::api::{DeploymentSummary, FleetStatus};
use greenlight_link::receipt::Receipt;
use greenlight_protocol::coordinator::PhaseName;
use greenlight_protocol::{Policy, ServiceName};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How old what is read may be.
const AT_REST: Duration = Duration::from_millis(20);
/// The same while requests wait at gates: each publication costs the thread that has to hear the
/// fleet's answers.
const AT_THE_BARRIER: Duration = Duration::from_millis(250);

/// The state of the fleet.
#[derive(Clone, Debug)]
pub struct FleetView {
    pub status: FleetStatus,
    /// The deployments before those in `recent`, oldest first.
    pub older: Arc<Vec<DeploymentSummary>>,
    /// The receipts of the latest deployments, oldest first.
    pub recent: Vec<Arc<Receipt>>,
    /// By service: the version of what was live before.
    pub before: BTreeMap<ServiceName, String>,
    /// The timers and choices of the latest deployment.
    pub policy: Policy,
}

/// Reads the state of the fleet. Clones read the same.
#[derive(Clone, Debug)]
pub struct ViewReader(watch::Receiver<Arc<FleetView>>);

/// Publishes the state of the fleet.
#[derive(Debug)]
pub(super) struct ViewPublisher {
    sender: watch::Sender<Arc<FleetView>>,
    at: Instant,
    /// Whether something has changed since.
    stale: bool,
}

impl FleetView {
    /// All deployments that are known, oldest first.
    pub fn history(&self) -> Vec<DeploymentSummary> {
        let recent = self.recent.iter();
        let recent = recent.map(|receipt| DeploymentSummary::from(&**receipt));
        self.older.iter().cloned().chain(recent).collect()
    }
}

impl ViewReader {
    /// The state as it was published last; none when the coordinator has ended.
    pub fn read(&self) -> Option<Arc<FleetView>> {
        let alive = self.0.has_changed().is_ok();
        alive.then(|| self.0.borrow().clone())
    }
}

impl ViewPublisher {
    pub(super) fn new(view: FleetView) -> (Self, ViewReader) {
        let (sender, receiver) = watch::channel(Arc::new(view));
        let publisher = Self {
            sender,
            at: Instant::now(),
            stale: false,
        };
        (publisher, ViewReader(receiver))
    }

    pub(super) fn publish(&mut self, view: FleetView) {
        self.sender.send_replace(Arc::new(view));
        self.at = Instant::now();
        self.stale = false;
    }

    /// Something has changed that is not published yet.
    pub(super) fn outdated(&mut self) {
        self.stale = true;
    }

    /// In how long it is to be published, in this phase; never if nothing has changed.
    pub(super) fn due_in(&self, phase: PhaseName) -> Option<Duration> {
        let every = match is_barrier(phase) {
            true => AT_THE_BARRIER,
            false => AT_REST,
        };
        self.stale.then(|| every.saturating_sub(self.at.elapsed()))
    }
}

/// Whether requests wait at gates in this phase.
pub(super) fn is_barrier(phase: PhaseName) -> bool {
    match phase {
        PhaseName::Holding | PhaseName::Switching => true,
        PhaseName::Idle
        | PhaseName::Preparing
        | PhaseName::CheckingPeers
        | PhaseName::Ready
        | PhaseName::BeforeSwitch
        | PhaseName::Arming
        | PhaseName::Watching
        | PhaseName::Confirming
        | PhaseName::Aborting
        | PhaseName::RetryingRollback
        | PhaseName::Retiring => false,
    }
}
