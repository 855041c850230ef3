//! An instance without a proxy and without applications: its gate obeys at once, and whatever is
//! started runs for ever. So a hundred instances fit on one machine, and what is measured is the
//! barrier and nothing else.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use greenlight::clock::monotonic_ns;
use greenlight::front::{Acted, Front, FrontError};
use greenlight::runtime::{Launch, Running, Runtime, RuntimeError};
use greenlight::spec::{PortPair, ServiceSpec};
use greenlight_protocol::{
    DrainEvidence, Epoch, GateAction, GateEvidence, HoldEvidence, ServiceName, Slot, SwitchEvidence,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// A gate that obeys at once.
pub(super) struct InstantGate;

impl Front for InstantGate {
    fn define<'a>(
        &'a self,
        _service: &'a ServiceName,
        _spec: &'a ServiceSpec,
        _ports: PortPair,
    ) -> BoxFuture<'a, Result<(), FrontError>> {
        std::future::ready(Ok(())).boxed()
    }

    fn act(&self, action: GateAction) -> BoxFuture<'static, Result<Acted, FrontError>> {
        let acted = match action {
            GateAction::Hold { .. } => Acted::Held(HoldEvidence {
                held_at_ns: monotonic_ns(),
                last_admission_ns: BTreeMap::new(),
                in_flight: 0,
                recalled: 0,
            }),
            GateAction::Open { .. } => Acted::Opened(SwitchEvidence {
                opened_at_ns: monotonic_ns(),
                released: 0,
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
        std::future::ready(Ok(Running { launch, pid: 0 })).boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Running>, RuntimeError>> {
        std::future::ready(Ok(Vec::new())).boxed()
    }

    fn exited(&self, _running: Running) -> BoxFuture<'static, String> {
        std::future::pending().boxed()
    }

    fn stop(&self, _slot: Slot, _patience: Duration) -> BoxFuture<'_, Result<(), RuntimeError>> {
        std::future::ready(Ok(())).boxed()
    }

    fn logs(&self, _slot: &Slot, _lines: usize) -> Vec<String> {
        Vec::new()
    }
}
