//! The commands that are being carried out, and who waits for their answers.

use greenlight_gate::{Answer, Refusal, Ticket};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use tokio::sync::oneshot;

type Answered = Result<Answer, Refusal>;

/// The commands that are not answered yet.
#[derive(Default)]
pub(super) struct Tickets {
    /// The number of the last command.
    last: Cell<u64>,
    waiting: RefCell<BTreeMap<Ticket, oneshot::Sender<Answered>>>,
}

impl Tickets {
    /// A ticket for a new command, and where its answer will come.
    pub(super) fn issue(&self) -> (Ticket, oneshot::Receiver<Answered>) {
        let ticket = Ticket(self.last.get() + 1);
        self.last.set(ticket.0);
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().insert(ticket, sender);
        (ticket, receiver)
    }

    pub(super) fn answer(&self, ticket: Ticket, answer: Answered) {
        if let Some(waiting) = self.waiting.borrow_mut().remove(&ticket) {
            // The caller may have gone.
            let _ = waiting.send(answer);
        }
    }
}
