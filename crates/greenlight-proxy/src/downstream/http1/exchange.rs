//! One request on its way through the fast path: written to the application's connection, until
//! there is something of a response.

use super::request::FastPathRequest;
use crate::address::Address;
use crate::buffer::Buffer;
use crate::clock::monotonic_ns;
use crate::forward::{Sent, Transport};
use crate::gate::{Admission, Claim};
use crate::idle::Idle;
use crate::socket::Socket;
use crate::thread::ThreadContext;
use crate::upstream::{Pool, RawConnection};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite as _;

/// A request that is to be sent.
pub(super) struct Sending<'a> {
    pub(super) thread: &'a Rc<ThreadContext>,
    pub(super) outgoing: &'a Buffer,
    pub(super) idle: &'a mut Idle,
    pub(super) is_idempotent: bool,
}

/// A response that has begun, and what it occupies until it is complete.
pub(super) struct Exchange {
    pub(super) claim: Claim,
    connection: RawConnection,
    upload: Upload,
    /// What came, perhaps a part of the head only.
    pub(super) incoming: Buffer,
}

/// How much of a request was written.
#[derive(Default)]
struct Upload {
    sent: usize,
    /// An application may answer and close before it has read everything. Writing on then fails,
    /// but the response can still be read.
    is_broken: bool,
}

impl Upload {
    /// Writes what can be written now.
    fn push(&mut self, cx: &mut Context<'_>, socket: &mut Socket, request: &[u8]) {
        while self.sent < request.len() && !self.is_broken {
            match Pin::new(&mut *socket).poll_write(cx, &request[self.sent..]) {
                Poll::Ready(Ok(count)) if count > 0 => self.sent += count,
                Poll::Ready(_) => self.is_broken = true,
                Poll::Pending => return,
            }
        }
    }
}

impl Exchange {
    /// Reads more of the response. The rest of the request is still being sent: an
    /// application may answer while it reads.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        request: &[u8],
    ) -> Poll<io::Result<usize>> {
        let socket = &mut self.connection.socket;
        self.upload.push(cx, socket, request);
        self.incoming.poll_fill(cx, socket)
    }

    /// The response is complete: the place is free. The connection can be used again unless the
    /// application has answered without taking the whole request, or takes no other. Nor is it
    /// after `HEAD`: an application that sends a body all the same would answer the next request
    /// with it, which is another client's. Returns what is left to be written to the client.
    pub(super) fn complete(
        self,
        thread: &ThreadContext,
        request: &FastPathRequest,
        keeps_alive: bool,
    ) -> Buffer {
        drop(self.claim);
        if keeps_alive && !request.is_head && self.upload.sent == request.outgoing.len() {
            thread.raw_pool.put_back(self.connection);
        }
        self.incoming
    }
}

impl Transport for Sending<'_> {
    type Connection = RawConnection;
    type Response = Exchange;

    fn pool(&self) -> &Pool<RawConnection> {
        &self.thread.raw_pool
    }

    async fn open(&self, upstream: &Address) -> io::Result<RawConnection> {
        RawConnection::open(upstream).await
    }

    async fn send(
        &mut self,
        mut connection: RawConnection,
        claim: Claim,
        admission: Admission,
    ) -> Sent<Exchange> {
        let request = self.outgoing.bytes();
        let mut admission = Some(admission);
        let mut upload = Upload::default();
        let mut incoming = Buffer::new(&self.thread.large_buffers);
        self.idle.progressed();
        let read = poll_fn(|cx| {
            let before = upload.sent;
            upload.push(cx, &mut connection.socket, request);
            if upload.sent > before {
                self.idle.progressed();
                if let Some(admission) = admission.take() {
                    admission.written(monotonic_ns());
                }
            }
            if upload.sent == 0 && upload.is_broken {
                return Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into())));
            }
            if let Poll::Ready(read) = incoming.poll_fill(cx, &mut connection.socket) {
                return Poll::Ready(Some(read));
            }
            self.idle.poll_expired(cx).map(|()| None)
        })
        .await;
        let written = upload.sent > 0;
        match read {
            // What comes before there was a request answers none.
            Some(Ok(1..)) if written => Sent::Responded(Exchange {
                claim,
                connection,
                upload,
                incoming,
            }),
            Some(_) => Sent::Failed {
                written,
                response_began: false,
            },
            None => Sent::TimedOut,
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
