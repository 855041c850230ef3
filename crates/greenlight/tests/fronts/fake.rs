//! A front in memory: the control of a gate, two slots, and requests that are calls.

use crate::prompt::PromptGate;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use greenlight_agent::front::{Acted, Front, FrontError, SlotAddresses};
use greenlight_gate::{Answer, ColorCounts, Command, Counts, EvidenceAnswer, Route, Ticket};
use greenlight_protocol::{
    Color, DrainEvidence, Epoch, GateAction, GateEvidence, ServiceName, Slot,
};
use greenlight_release::spec::ServiceSpec;
use greenlight_shell::clock::monotonic_ns;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The service of this front.
const SHOP: &str = "shop";

/// A gate of one service in memory.
#[derive(Clone, Debug)]
pub(crate) struct FakeFront {
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Debug)]
pub(crate) struct State {
    gate: PromptGate,
    incarnation: u64,
}

impl FakeFront {
    pub(crate) fn new() -> Self {
        let mut gate = PromptGate::new();
        gate.define(SHOP);
        let incarnation = 0;
        let state = State { gate, incarnation };
        Self {
            state: Arc::new(watch::Sender::new(state)),
        }
    }

    /// A request, whose application answers when `answered` has come; or the status of a refusal.
    pub(crate) async fn ask(self, answered: impl Future<Output = ()>) -> Result<Color, u16> {
        let mut states = self.state.subscribe();
        let color = loop {
            let mut admitted = Admission::Waits;
            self.state.send_if_modified(|state| {
                admitted = state.admit();
                matches!(admitted, Admission::To(_))
            });
            match admitted {
                Admission::To(color) => break color,
                Admission::Refused => return Err(503),
                Admission::Waits => states.changed().await.expect("the front is there"),
            }
        };
        answered.await;
        self.state.send_modify(|state| {
            state.counts(color).in_flight.requests -= 1;
            state.gate.settle(monotonic_ns());
        });
        Ok(color)
    }

    pub(crate) async fn until(&self, shows: impl FnMut(&State) -> bool) {
        let mut states = self.state.subscribe();
        states.wait_for(shows).await.expect("the front is there");
    }

    /// The front's process ends, and another one reads its file.
    pub(crate) fn restart(&self) {
        self.state.send_modify(|state| {
            let kept = state.gate.written.clone();
            state.gate.restart_with(kept, monotonic_ns());
            state.incarnation += 1;
        });
        self.wait_for_deadlines();
    }

    fn give(&self, command: Command<()>) -> Ticket {
        let mut ticket = None;
        self.state.send_modify(|state| {
            ticket = Some(state.gate.give(command, monotonic_ns()));
        });
        self.wait_for_deadlines();
        ticket.expect("the command was given")
    }

    fn wait_for_deadlines(&self) {
        let mut armed = BTreeMap::new();
        self.state.send_if_modified(|state| {
            armed = std::mem::take(&mut state.gate.armed);
            false
        });
        for (generation, after_ms) in armed {
            let front = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                front
                    .state
                    .send_modify(|state| state.gate.deadline_passes(generation, monotonic_ns()));
            });
        }
    }

    /// Waits for what the control answers to a command.
    async fn answer(&self, ticket: Ticket) -> Result<Answer, FrontError> {
        let mut states = self.state.subscribe();
        loop {
            let mut answer = None;
            self.state.send_if_modified(|state| {
                answer = state.gate.answer(ticket);
                false
            });
            match answer {
                Some(answer) => {
                    return answer.map_err(|refusal| FrontError::Refused(format!("{refusal:?}")));
                }
                None => states.changed().await.expect("the front is there"),
            }
        }
    }
}

/// What becomes of a request.
enum Admission {
    To(Color),
    Waits,
    Refused,
}

impl State {
    /// Whether any request is in flight.
    pub(crate) fn is_busy(&self) -> bool {
        let in_flight = |color| self.in_flight(color) > 0;
        in_flight(Color::Blue) || in_flight(Color::Green)
    }

    fn in_flight(&self, color: Color) -> u64 {
        let counts = self.gate.counts.get(SHOP);
        counts.map_or(0, |counts| counts.color(color).in_flight.requests)
    }

    /// Counts a request, if one is admitted.
    fn admit(&mut self) -> Admission {
        match self.gate.process.routes.get(SHOP) {
            Some(Route::Open(color)) => {
                let color = *color;
                let now = monotonic_ns();
                let counts = self.counts(color);
                counts.in_flight.requests += 1;
                counts.admitted += 1;
                counts.first_admission_ns.get_or_insert(now);
                counts.last_admission_ns = Some(now);
                Admission::To(color)
            }
            Some(Route::Held(_)) => Admission::Waits,
            Some(Route::Closed | Route::Shed(_)) | None => Admission::Refused,
        }
    }

    fn counts(&mut self, color: Color) -> &mut ColorCounts {
        let counts: &mut Counts = self.gate.counts.entry(SHOP.to_owned()).or_default();
        match color {
            Color::Blue => &mut counts.blue,
            Color::Green => &mut counts.green,
        }
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
            let ticket = front.give(action.request().into());
            Ok(match front.answer(ticket).await? {
                Answer::Held(answer) => Acted::Held(answer.into()),
                Answer::Opened(answer) => Acted::Opened(answer.into()),
                Answer::Done => Acted::Parked,
                other @ Answer::Counts(_) => panic!("not an answer to an agent: {other:?}"),
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
            let drained = front.until(|state| state.in_flight(slot.color) == 0);
            // What is left is looked up afterwards.
            let _ = tokio::time::timeout(deadline, drained).await;
            Ok(DrainEvidence {
                requests: front.state.borrow().in_flight(slot.color),
                ..DrainEvidence::default()
            })
        }
        .boxed()
    }

    fn evidence(&self, epoch: Epoch) -> BoxFuture<'static, Result<GateEvidence, FrontError>> {
        let gate = &self.state.borrow().gate;
        let services = gate.process.control.evidence(epoch.0, &gate.counts, None);
        async move { Ok(EvidenceAnswer { services }.into()) }.boxed()
    }

    fn incarnation(&self) -> BoxFuture<'static, Result<u64, FrontError>> {
        let incarnation = self.state.borrow().incarnation;
        async move { Ok(incarnation) }.boxed()
    }
}
