//! A front in memory: a gate, two slots, and requests that are calls.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use greenlight::clock::monotonic_ns;
use greenlight::front::{Acted, Front, FrontError, SlotAddresses};
use greenlight::spec::ServiceSpec;
use greenlight_protocol::policy::Exclusive;
use greenlight_protocol::{
    Color, DrainEvidence, Epoch, GateAction, GateEvidence, HoldEvidence, ServiceEvidence,
    ServiceName, Slot, SwitchEvidence,
};
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
    open: Option<Color>,
    pub(crate) in_flight: BTreeMap<Color, u64>,
    last_admission: Option<u64>,
    seen: BTreeMap<Epoch, ServiceEvidence>,
    incarnation: u64,
}

impl FakeFront {
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::new(watch::Sender::new(State::default())),
        }
    }

    /// A request, whose application answers when `answered` has come.
    pub(crate) async fn ask(self, answered: impl Future<Output = ()>) -> Color {
        let mut states = self.state.subscribe();
        let color = loop {
            let mut admitted = None;
            self.state.send_if_modified(|state| {
                admitted = state.admit();
                admitted.is_some()
            });
            match admitted {
                Some(color) => break color,
                None => states.changed().await.expect("the front is there"),
            }
        };
        answered.await;
        self.state
            .send_modify(|state| *state.in_flight.entry(color).or_default() -= 1);
        color
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
    fn admit(&mut self) -> Option<Color> {
        let color = self.open?;
        *self.in_flight.entry(color).or_default() += 1;
        let now = monotonic_ns();
        self.last_admission = Some(now);
        for seen in self.seen.values_mut().filter(|s| s.opened_at_ns.is_some()) {
            seen.first_admission_new_ns.get_or_insert(now);
        }
        Some(color)
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
                        state.open = None;
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
                        state.open = colors.into_values().next();
                        let seen = state.seen.entry(epoch).or_default();
                        seen.opened_at_ns.get_or_insert(now);
                    });
                    Acted::Opened(SwitchEvidence {
                        opened_at_ns: now,
                        ..SwitchEvidence::default()
                    })
                }
                GateAction::Park { .. } => {
                    front.state.send_modify(|state| state.open = None);
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
