//! An instance without a proxy and without applications: its gate obeys at once, and everything
//! started runs until the end. So a hundred instances fit on one machine, and what is measured is
//! the barrier and nothing else.
//!
//! Machines of their own would not wait for each other's processors. Here the first to open would
//! keep the last from opening, by writing its record: so an instance that has opened its gate waits
//! until all have.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use greenlight_agent::front::{Acted, Front, FrontError, SlotAddresses};
use greenlight_agent::runtime::{Images, Launch, Running, Runtime, RuntimeError};
use greenlight_protocol::{
    Alignment, DrainEvidence, Epoch, GateAction, GateEvidence, HoldEvidence, ServiceName, Slot,
    SwitchEvidence,
};
use greenlight_release::secret::RegistryLogin;
use greenlight_release::spec::ServiceSpec;
use greenlight_release::spec::image::Pin;
use greenlight_shell::clock::monotonic_ns;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a gate that is open waits for the others; without a limit it would hide a fault.
const REST: Duration = Duration::from_secs(1);

/// How many gates of a fleet have opened in its latest cut-over.
pub(super) struct Opened {
    fleet: usize,
    latest: Mutex<(Epoch, usize)>,
    /// The latest cut-over in which all have. Notified once, by the last: waking costs time too.
    by_all: watch::Sender<Epoch>,
}

impl Opened {
    pub(super) fn new(fleet: usize) -> Arc<Self> {
        let latest = Mutex::new((Epoch(0), 0));
        let (by_all, _) = watch::channel(Epoch(0));
        Arc::new(Self {
            fleet,
            latest,
            by_all,
        })
    }

    /// One more has opened; returns when all have.
    async fn one_more(&self, epoch: Epoch) {
        let mut by_all = self.by_all.subscribe();
        if self.count(epoch) == self.fleet {
            self.by_all.send_replace(epoch);
        }
        // Past its time it continues alone, and the round counts as slow.
        let _ = timeout(REST, by_all.wait_for(|all| *all >= epoch)).await;
    }

    fn count(&self, epoch: Epoch) -> usize {
        let mut latest = self.latest.lock();
        if latest.0 != epoch {
            *latest = (epoch, 0);
        }
        latest.1 += 1;
        latest.1
    }
}

/// A gate that obeys at once.
pub(super) struct InstantGate(pub(super) Arc<Opened>);

impl Front for InstantGate {
    fn define<'a>(
        &'a self,
        _service: &'a ServiceName,
        _spec: &'a ServiceSpec,
        _slots: SlotAddresses,
    ) -> BoxFuture<'a, Result<(), FrontError>> {
        std::future::ready(Ok(())).boxed()
    }

    fn act(&self, action: GateAction) -> BoxFuture<'static, Result<Acted, FrontError>> {
        let acted = match action {
            GateAction::Open { epoch, .. } => {
                let evidence = SwitchEvidence {
                    opened_at_ns: monotonic_ns(),
                    released: 0,
                    aligned: None,
                };
                let opened = self.0.clone();
                return async move {
                    opened.one_more(epoch).await;
                    Ok(Acted::Opened(evidence))
                }
                .boxed();
            }
            GateAction::Hold { .. } => Acted::Held(HoldEvidence {
                held_at_ns: monotonic_ns(),
                last_admission_ns: BTreeMap::new(),
                in_flight: 0,
                recalled: 0,
                alignment: Alignment::Gated,
            }),
            GateAction::Park { .. } => Acted::Parked,
        };
        std::future::ready(Ok(acted)).boxed()
    }

    fn drain(
        &self,
        _slot: Slot,
        _deadline: Duration,
    ) -> BoxFuture<'static, Result<DrainEvidence, FrontError>> {
        std::future::ready(Ok(DrainEvidence::default())).boxed()
    }

    fn evidence(&self, _epoch: Epoch) -> BoxFuture<'static, Result<GateEvidence, FrontError>> {
        let services = BTreeMap::new();
        std::future::ready(Ok(GateEvidence { services })).boxed()
    }

    fn incarnation(&self) -> BoxFuture<'static, Result<u64, FrontError>> {
        std::future::ready(Ok(1)).boxed()
    }
}

/// A runtime whose applications cost nothing and never end.
pub(super) struct NothingRuns;

impl Runtime for NothingRuns {
    fn start(&self, launch: Launch) -> BoxFuture<'_, Result<Running, RuntimeError>> {
        let running = Running {
            address: ([127, 0, 0, 1], launch.port).into(),
            launch,
            pid: 0,
            container: None,
        };
        std::future::ready(Ok(running)).boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Running>, RuntimeError>> {
        std::future::ready(Ok(Vec::new())).boxed()
    }

    fn exited(&self, _running: Running) -> BoxFuture<'static, String> {
        std::future::pending().boxed()
    }

    fn stop(&self, _slot: Slot, _timeout: Duration) -> BoxFuture<'_, Result<(), RuntimeError>> {
        std::future::ready(Ok(())).boxed()
    }

    fn logs<'a>(&'a self, _slot: &'a Slot, _lines: usize) -> BoxFuture<'a, Vec<String>> {
        std::future::ready(Vec::new()).boxed()
    }
}

impl Images for NothingRuns {
    fn pin<'a>(
        &'a self,
        _image: &'a str,
        _login: Option<&'a RegistryLogin>,
    ) -> BoxFuture<'a, Result<Pin, RuntimeError>> {
        // The benchmark deploys commands.
        std::future::pending().boxed()
    }

    fn run_job<'a>(
        &'a self,
        _launch: Launch,
        _name: &'a str,
        _within: Duration,
    ) -> BoxFuture<'a, Result<Vec<String>, RuntimeError>> {
        std::future::pending().boxed()
    }
}
