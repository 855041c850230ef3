//! Plain HTTP/1.1, passed on without hyper.
//!
//! Every connection of a client begins here. A request that is plain beyond doubt is written to
//! an application's connection by the task that has read it, and the response comes back the same
//! way: no second task, no map of headers, and never more than four system calls. The first
//! request that is anything else takes its connection to hyper for the rest of its life.
//!
//! The gate, the waiting, the retries and the counts are [`Forwarding`]'s, as they are hyper's.

mod client;
mod exchange;
mod field;
mod framing;
mod request;
mod response;

use super::client_info::ClientInfo;
use super::grace_period::GracePeriod;
use crate::buffer::Buffer;
use crate::forward::Forwarding;
use crate::gate::Kind;
use crate::idle::Idle;
use crate::local_reply::{
    LocalReply, NO_SERVICE, PLAIN, UNREQUESTED_UPGRADE, UPSTREAM_GONE, UPSTREAM_TIMED_OUT,
};
use crate::socket::Socket;
use crate::thread::ThreadContext;
use bytes::Bytes;
use client::Client;
use exchange::{Exchange, Sending};
use framing::Piece;
use request::{FastPathRequest, NotTaken};
use response::Head;
use std::future::poll_fn;
use std::io::Write as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A connection and what was read of it, for hyper.
pub(crate) struct Parts {
    pub(crate) socket: Socket,
    pub(crate) read_buf: Bytes,
}

/// A client's connection.
pub(crate) struct FastPath<'a> {
    thread: &'a Rc<ThreadContext>,
    client_info: &'a ClientInfo,
    grace_period: &'a GracePeriod,
    client: Client,
    /// The wait for a request's head, from the end of the response before.
    head: Idle,
    /// Every other wait.
    idle: Idle,
}

/// What a client wants next.
enum Next {
    Request(FastPathRequest),
    /// Something that is not plain.
    ForHyper,
    /// Nothing more.
    End,
}

/// Whether the connection continues after a response.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    KeepAlive,
    Close,
}

/// Why a response does not come.
enum ReadError {
    ClientGone,
    /// The application's connection failed, or what came is no response.
    Failed,
    TimedOut,
}

impl<'a> FastPath<'a> {
    pub(crate) fn new(
        thread: &'a Rc<ThreadContext>,
        client_info: &'a ClientInfo,
        grace_period: &'a GracePeriod,
        socket: Socket,
    ) -> Self {
        Self {
            thread,
            client_info,
            grace_period,
            client: Client {
                socket,
                unread: Buffer::new(&thread.small_buffers),
            },
            head: Idle::new(thread.limits.header_timeout),
            idle: Idle::new(thread.limits.idle_timeout),
        }
    }

    /// Answers requests until the connection ends, or is for hyper. One that waits for a request
    /// ends when the proxy is `draining`.
    pub(crate) async fn run(mut self, mut draining: Pin<&mut impl Future>) -> Option<Parts> {
        loop {
            match poll_fn(|cx| self.poll_next(draining.as_mut(), cx)).await {
                Next::Request(request) => {
                    self.grace_period.request_arrived();
                    self.client.unread.consume(request.length);
                    if self.serve_request(request).await == After::Close {
                        return None;
                    }
                }
                Next::ForHyper => {
                    let Client { socket, unread, .. } = self.client;
                    let read_buf = Bytes::copy_from_slice(unread.bytes());
                    return Some(Parts { socket, read_buf });
                }
                Next::End => return None,
            }
        }
    }

    fn poll_next(&mut self, draining: Pin<&mut impl Future>, cx: &mut Context<'_>) -> Poll<Next> {
        loop {
            let unread = &self.client.unread;
            if !unread.is_empty() {
                match request::take(unread.bytes(), self.thread, self.client_info) {
                    Ok(request) => {
                        self.head.progressed();
                        return Poll::Ready(Next::Request(request));
                    }
                    Err(NotTaken::Partial) if !unread.is_full() => {}
                    Err(NotTaken::Partial | NotTaken::ForHyper) => {
                        return Poll::Ready(Next::ForHyper);
                    }
                }
            }
            match self.client.poll_read(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::End),
                Poll::Pending => break,
            }
        }
        let is_unused = self.client.unread.is_empty();
        if is_unused && draining.poll(cx).is_ready() {
            return Poll::Ready(Next::End);
        }
        self.head.poll_expired(cx).map(|()| Next::End)
    }

    async fn serve_request(&mut self, mut request: FastPathRequest) -> After {
        let Some(service) = request.service.take() else {
            return self.send_local_reply(NO_SERVICE, &request).await;
        };
        let mut sending = Sending {
            thread: self.thread,
            outgoing: &request.outgoing,
            idle: &mut self.idle,
            is_idempotent: request.is_idempotent,
        };
        let forwarding = Forwarding::new(self.thread, service).run(&mut sending);
        match self.client.unless_gone(forwarding).await {
            None => After::Close,
            Some(Err(reply)) => self.send_local_reply(reply, &request).await,
            Some(Ok(exchange)) => self.send_response(exchange, &request).await,
        }
    }

    /// Brings the response to the client.
    async fn send_response(&mut self, mut exchange: Exchange, request: &FastPathRequest) -> After {
        let closes = self.closes_after(request);
        let (mut head, mut piece) = match self.final_head(&mut exchange, request, closes).await {
            Ok(head) => head,
            Err(reply) => {
                let Some(reply) = reply else {
                    return After::Close;
                };
                exchange.claim.gate().note_failed();
                drop(exchange);
                return self.send_local_reply(reply, request).await;
            }
        };
        if head.is_stream {
            exchange.claim.reclassify(Kind::Stream);
        }
        while !piece.is_last {
            let written = self.write(&mut exchange.incoming, piece.length).await;
            if written.is_err() {
                return After::Close;
            }
            let next = match self.read(&mut exchange, request, head.is_stream).await {
                Ok(0) => head.framing.end(&mut exchange.incoming),
                Ok(_) => head.framing.advance(&mut exchange.incoming),
                Err(ReadError::ClientGone) => return After::Close,
                Err(ReadError::Failed | ReadError::TimedOut) => Err(framing::Malformed),
            };
            let Ok(next) = next else {
                // What the client has cannot be made to look whole.
                exchange.claim.gate().note_failed();
                return After::Close;
            };
            piece = next;
        }
        // The application is done, however long the client takes to read.
        let keeps_alive = head.keeps_alive && exchange.incoming.len() == piece.length;
        let mut incoming = exchange.complete(self.thread, request, keeps_alive);
        match self.write(&mut incoming, piece.length).await {
            Ok(()) if !closes => After::KeepAlive,
            Ok(()) | Err(_) => After::Close,
        }
    }

    /// Waits for the final head, and passes interim ones on. It is written in front of the first
    /// piece of the body. An error has the reply to send instead; none if the client left.
    async fn final_head(
        &mut self,
        exchange: &mut Exchange,
        request: &FastPathRequest,
        closes: bool,
    ) -> Result<(Head, Piece), Option<LocalReply>> {
        loop {
            let incoming = &mut exchange.incoming;
            match self.next_head(incoming, request.is_head, closes) {
                response::Parsed::Final(mut head) => {
                    let piece = head
                        .framing
                        .advance(incoming)
                        .map_err(|_| Some(UPSTREAM_GONE))?;
                    let length = piece.length + self.prepend_head(incoming);
                    return Ok((head, Piece { length, ..piece }));
                }
                response::Parsed::Interim => {
                    let length = self.prepend_head(incoming);
                    self.write(incoming, length).await.map_err(|_| None)?;
                }
                response::Parsed::Continue => {}
                response::Parsed::Switched => return Err(Some(UNREQUESTED_UPGRADE)),
                response::Parsed::Malformed => return Err(Some(UPSTREAM_GONE)),
                response::Parsed::Partial => match self.read(exchange, request, false).await {
                    Ok(1..) => {}
                    Ok(0) | Err(ReadError::Failed) => return Err(Some(UPSTREAM_GONE)),
                    Err(ReadError::TimedOut) => return Err(Some(UPSTREAM_TIMED_OUT)),
                    Err(ReadError::ClientGone) => return Err(None),
                },
            }
        }
    }

    fn next_head(&self, incoming: &mut Buffer, is_head: bool, closes: bool) -> response::Parsed {
        let context = response::Context {
            is_head,
            closes,
            date: &self.thread.date,
        };
        response::parse(incoming, context, &mut self.thread.scratch.borrow_mut())
    }

    /// Puts the head that was just written in front of what follows it. Returns its length.
    fn prepend_head(&self, incoming: &mut Buffer) -> usize {
        let head = self.thread.scratch.borrow();
        incoming.prepend(&head);
        head.len()
    }

    /// Reads more of a response. Zero bytes are the end of the application's connection.
    async fn read(
        &mut self,
        exchange: &mut Exchange,
        request: &FastPathRequest,
        may_be_silent: bool,
    ) -> Result<usize, ReadError> {
        let idle = &mut self.idle;
        idle.progressed();
        let reading = poll_fn(|cx| {
            if let Poll::Ready(read) = exchange.poll_read(cx, request.outgoing.bytes()) {
                return Poll::Ready(read.map_err(|_| ReadError::Failed));
            }
            if may_be_silent {
                return Poll::Pending;
            }
            idle.poll_expired(cx).map(|()| Err(ReadError::TimedOut))
        });
        let read = self.client.unless_gone(reading).await;
        read.unwrap_or(Err(ReadError::ClientGone))
    }

    async fn write(&mut self, buffer: &mut Buffer, count: usize) -> std::io::Result<()> {
        self.client.write(buffer, count, &mut self.idle).await
    }

    /// Sends a response that the proxy generates itself.
    async fn send_local_reply(&mut self, reply: LocalReply, request: &FastPathRequest) -> After {
        let closes = self.closes_after(request);
        let mut reply = self.local_reply(reply, request.is_head, closes);
        let length = reply.len();
        match self.write(&mut reply, length).await {
            Ok(()) if !closes => After::KeepAlive,
            Ok(()) | Err(_) => After::Close,
        }
    }

    fn local_reply(&self, local: LocalReply, is_head: bool, closes: bool) -> Buffer {
        let LocalReply { status, text, .. } = local;
        let length = text.len();
        let mut out = self.thread.scratch.borrow_mut();
        out.clear();
        // Writing to memory cannot fail.
        let _ = write!(
            out,
            "HTTP/1.1 {status}\r\ncontent-type: {PLAIN}\r\ncontent-length: {length}\r\n{}{}date: ",
            if local.retry_after {
                "retry-after: 1\r\n"
            } else {
                ""
            },
            if closes { "connection: close\r\n" } else { "" },
        );
        self.thread.date.write(&mut out);
        let body = if is_head { "" } else { text };
        let _ = write!(out, "\r\n\r\n{body}");
        let mut reply = Buffer::new(&self.thread.small_buffers);
        reply.append(&out).expect("local replies are short");
        reply
    }

    fn closes_after(&self, request: &FastPathRequest) -> bool {
        request.closes || self.thread.closing.get()
    }
}
