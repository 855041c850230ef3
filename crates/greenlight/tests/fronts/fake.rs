//! A front in memory: a gate, two slots, and requests that are calls.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use greenlight_agent::front::{Acted, Front, FrontError, SlotAddresses};
use greenlight_protocol::policy::Exclusive;
use greenlight_protocol::{
    Color, DrainEvidence, Epoch, GateAction, GateEvidence, HoldEvidence, ServiceEvidence,
    ServiceName, Slot, SwitchEvidence,
};
use greenlight_release::spec::ServiceSpec;
use greenlight_shell::clock::monotonic_ns;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A gate of one service in memory.
#[derive(Clone, Debug)]
pub(crate) struct FakeFront {
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    gate: Gate,
    pub(crate) in_flight: BTreeMap<Color, u64>,
    last_admission: Option<u64>,
    seen: BTreeMap<Epoch, ServiceEvidence>,
    incarnation: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Gate {
    /// Requests wait.
    #[default]
    Shut,
    Open(Color),
    /// Requests are refused.
    Removed,
}

impl FakeFront {
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::new(watch::Sender::new(State::default())),
        }
    }

    /// A request, whose application answers when `answered` has come; or the status of a refusal.
    pub(crate) async fn ask(self, answered: impl Future<Output = ()>) -> Result<Color, u16> {
        let mut states = self.state.subscribe();
        let color = loop {
            let mut gate = Gate::Shut;
            self.state.send_if_modified(|state| {
                gate = state.gate;
                state.admit()
            });
            match gate {
                Gate::Open(color) => break color,
                Gate::Removed => return Err(503),
                Gate::Shut => states.changed().await.expect("the front is there"),
            }
        };
        answered.await;
        self.state
            .send_modify(|state| *state.in_flight.entry(color).or_default() -= 1);
        Ok(color)
    }

    pub(crate) async fn until(&self, shows: impl FnMut(&State) -> bool) {
        let mut states = self.state.subscribe();
        states.wait_for(shows).await.expect("the front is there");
    }

    pub(crate) fn restart(&self) {
        self.state.send_modify(|state| state.incarnation += 1);
    }
}

impl State {
    /// Counts a request, if one would be admitted.
    fn admit(&mut self) -> bool {
        let Gate::Open(color) = self.gate else {
            return false;
        };
        *self.in_flight.entry(color).or_default() += 1;
        let now = monotonic_ns();
        self.last_admission = Some(now);
        for seen in self.seen.values_mut().filter(|s| s.opened_at_ns.is_some()) {
            seen.first_admission_new_ns.get_or_insert(now);
        }
        true
    }

    fn all_in_flight(&self) -> u64 {
        self.in_flight.values().sum()
    }
}

impl Front for FakeFront {
    fn define<'a>(
        &'a self,
        _: &'a ServiceName,
        _: &'a ServiceSpec,
        _: SlotAddresses,
    ) -> BoxFuture<'a, Result<(), FrontError>> {
        async { Ok(()) }.boxed()
    }

    fn act(&self, action: GateAction) -> BoxFuture<'static, Result<Acted, FrontError>> {
        let front = self.clone();
        async move {
            let now = monotonic_ns();
            Ok(match action {
                GateAction::Hold {
                    epoch, exclusive, ..
                } => {
                    front.state.send_modify(|state| {
                        state.gate = Gate::Shut;
                        let seen = state.seen.entry(epoch).or_default();
                        seen.held_at_ns = Some(now);
                        seen.last_admission_old_ns = state.last_admission;
                    });
                    if exclusive == Exclusive::Yes {
                        front.until(|state| state.all_in_flight() == 0).await;
                    }
                    Acted::Held(HoldEvidence {
                        held_at_ns: now,
                        in_flight: front.state.borrow().all_in_flight(),
                        ..HoldEvidence::default()
                    })
                }
                GateAction::Open { epoch, colors } => {
                    front.state.send_modify(|state| {
                        let color = colors.into_values().next().flatten();
                        state.gate = color.map_or(Gate::Removed, Gate::Open);
                        let seen = state.seen.entry(epoch).or_default();
                        seen.opened_at_ns.get_or_insert(now);
                    });
                    Acted::Opened(SwitchEvidence {
                        opened_at_ns: now,
                        ..SwitchEvidence::default()
                    })
                }
                GateAction::Park { .. } => {
                    front.state.send_modify(|state| state.gate = Gate::Shut);
                    Acted::Parked
                }
            })
        }
        .boxed()
    }

    fn drain(
        &self,
        slot: Slot,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<DrainEvidence, FrontError>> {
        let front = self.clone();
        async move {
            let left = |state: &State| state.in_flight.get(&slot.color).copied().unwrap_or(0);
            let drained = front.until(|state| left(state) == 0);
            // What is left is looked up afterwards.
            let _ = tokio::time::timeout(deadline, drained).await;
            Ok(DrainEvidence {
                requests: left(&front.state.borrow()),
                ..DrainEvidence::default()
            })
        }
        .boxed()
    }

    fn evidence(&self, epoch: Epoch) -> BoxFuture<'static, Result<GateEvidence, FrontError>> {
        let seen = self.state.borrow().seen.get(&epoch).cloned();
        let services = seen
            .into_iter()
            .map(|seen| (ServiceName::from("shop"), seen));
        let evidence = GateEvidence {
            services: services.collect(),
        };
        async { Ok(evidence) }.boxed()
    }

    fn incarnation(&self) -> BoxFuture<'static, Result<u64, FrontError>> {
        let incarnation = self.state.borrow().incarnation;
        async move { Ok(incarnation) }.boxed()
    }
}
