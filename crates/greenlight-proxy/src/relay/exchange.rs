//! One request on its way through the relay: written to the application's connection, until
//! there is something of an answer.

use super::buffer::Buffer;
use crate::forward::{Sent, Transport};
use crate::gate::{Admission, Claim};
use crate::idle::Idle;
use crate::upstream::{Pool, RawConnection, monotonic_ns};
use crate::worker::Worker;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use tokio::io::AsyncWrite as _;

/// A request that is to be sent.
pub(super) struct Sending<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) outgoing: &'a Buffer,
    pub(super) idle: &'a mut Idle,
    pub(super) is_idempotent: bool,
}

/// What the first bytes of an answer occupy until it is complete.
pub(super) struct Exchange {
    pub(super) claim: Claim,
    pub(super) connection: RawConnection,
    /// What came, perhaps a part of the head only.
    pub(super) incoming: Buffer,
    /// The application has answered without taking the whole request.
    pub(super) is_cut_short: bool,
}

impl Transport for Sending<'_> {
    type Connection = RawConnection;
    type Answer = Exchange;

    fn pool(&self) -> &Pool<RawConnection> {
        &self.worker.raw_pool
    }

    async fn send(
        &mut self,
        mut connection: RawConnection,
        claim: Claim,
        admission: Admission,
    ) -> Sent<Exchange> {
        let request = self.outgoing.bytes();
        let mut admission = Some(admission);
        let mut sent = 0;
        // An application may answer and close before it has read everything. Writing on then
        // fails, but the answer is there to be read.
        let mut is_broken = false;
        self.idle.progressed();
        let incoming = poll_fn(|cx| {
            while sent < request.len() && !is_broken {
                match Pin::new(&mut connection.socket).poll_write(cx, &request[sent..]) {
                    Poll::Ready(Ok(count)) if count > 0 => {
                        if let Some(admission) = admission.take() {
                            admission.written(monotonic_ns());
                        }
                        sent += count;
                        self.idle.progressed();
                    }
                    Poll::Ready(_) if sent == 0 => return Poll::Ready(Some(None)),
                    Poll::Ready(_) => is_broken = true,
                    Poll::Pending => break,
                }
            }
            if connection.socket.poll_read_ready(cx).is_ready() {
                let mut incoming = self.worker.large_buffers.take();
                match incoming.poll_fill(cx, &mut connection.socket) {
                    // What comes before there was a request answers none.
                    Poll::Ready(Ok(count)) if count > 0 && sent > 0 => {
                        return Poll::Ready(Some(Some(incoming)));
                    }
                    Poll::Ready(_) => return Poll::Ready(Some(None)),
                    Poll::Pending => {}
                }
            }
            self.idle.poll_expired(cx).map(|()| None)
        })
        .await;
        match incoming {
            Some(Some(incoming)) => Sent::Answered(Exchange {
                claim,
                connection,
                incoming,
                is_cut_short: sent < request.len(),
            }),
            Some(None) => Sent::Failed {
                written: sent > 0,
                answered: false,
            },
            None => Sent::Silent,
        }
    }

    fn is_idempotent(&self) -> bool {
        self.is_idempotent
    }

    /// It is here as a whole until it is answered.
    fn rewind(&self) -> bool {
        true
    }
}
