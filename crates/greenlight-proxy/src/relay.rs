//! Plain HTTP/1.1, passed on without hyper.
//!
//! Every connection of a client begins here. A request that is plain beyond doubt is written to
//! an application's connection by the task that has read it, and the answer comes back the same
//! way: no second task, no map of headers, and never more than four system calls. The first
//! request that is anything else takes its connection to hyper for the rest of its life.
//!
//! The gate, the waiting, the retries and the counts are [`Forwarding`]'s, as they are hyper's.

mod answer;
mod buffer;
mod client;
mod date;
mod exchange;
mod field;
mod framing;
mod request;

use crate::answer::UNASKED_SWITCH;
use crate::first_request::FirstRequest;
use crate::forward::{Forwarding, GONE, NO_SERVICE, SILENT};
use crate::gate::Kind;
use crate::headers::Asker;
use crate::idle::Idle;
use crate::socket::Socket;
use crate::words::{PLAIN, Words};
use crate::worker::Worker;
use answer::Head;
use bytes::Bytes;
use client::Client;
use exchange::{Exchange, Sending};
use framing::Piece;
use request::{Parsed, Plain};
use std::future::poll_fn;
use std::io::Write as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

pub(crate) use buffer::{Buffer, Buffers};
pub(crate) use date::Date;

/// The buffers that a thread's connections share.
pub(crate) fn buffers() -> (Rc<Buffers>, Rc<Buffers>) {
    // A request, its small body included; larger ones are hyper's.
    let small = Buffers::new(16 * 1024, 0, 0, 256);
    // An answer: few system calls bring a large one, and its head is rewritten in place.
    let large = Buffers::new(128 * 1024, 1024, 8, 32);
    (Rc::new(small), Rc::new(large))
}

/// A connection and what was read of it, for hyper.
pub(crate) struct Rest {
    pub(crate) socket: Socket,
    pub(crate) front: Bytes,
}

/// A client's connection.
pub(crate) struct Relay<'a> {
    worker: &'a Rc<Worker>,
    asker: &'a Asker,
    first: &'a FirstRequest,
    client: Client,
    /// The wait for a request's head, from the end of the answer before.
    head: Idle,
    /// Every other wait.
    idle: Idle,
}

/// What a client wants next.
enum Next {
    Request(Plain),
    /// Something that is not plain.
    Other,
    /// Nothing more.
    End,
}

/// Whether the connection goes on after an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    GoOn,
    End,
}

/// Why an answer does not come.
enum Broken {
    ClientLeft,
    /// The application's connection failed, or what came is no answer.
    Failed,
    Silent,
}

impl<'a> Relay<'a> {
    pub(crate) fn new(
        worker: &'a Rc<Worker>,
        asker: &'a Asker,
        first: &'a FirstRequest,
        socket: Socket,
    ) -> Self {
        Self {
            worker,
            asker,
            first,
            client: Client {
                socket,
                unread: Buffer::new(&worker.small_buffers),
            },
            head: Idle::new(worker.limits.header_timeout),
            idle: Idle::new(worker.limits.idle_timeout),
        }
    }

    /// Answers requests until the connection ends, or is for hyper. One that waits for a request
    /// ends when the proxy is `leaving`.
    pub(crate) async fn run(mut self, mut leaving: Pin<&mut impl Future>) -> Option<Rest> {
        loop {
            match poll_fn(|cx| self.poll_next(leaving.as_mut(), cx)).await {
                Next::Request(request) => {
                    self.first.note();
                    self.client.unread.consume(request.length);
                    if self.answer(request).await == After::End {
                        return None;
                    }
                }
                Next::Other => {
                    let Client { socket, unread, .. } = self.client;
                    let front = Bytes::copy_from_slice(unread.bytes());
                    return Some(Rest { socket, front });
                }
                Next::End => return None,
            }
        }
    }

    fn poll_next(&mut self, leaving: Pin<&mut impl Future>, cx: &mut Context<'_>) -> Poll<Next> {
        loop {
            let unread = &self.client.unread;
            if !unread.is_empty() {
                match request::parse(unread.bytes(), self.worker, self.asker) {
                    Parsed::Plain(request) => {
                        self.head.progressed();
                        return Poll::Ready(Next::Request(request));
                    }
                    Parsed::Partial if !unread.is_full() => {}
                    Parsed::Partial | Parsed::Other => return Poll::Ready(Next::Other),
                }
            }
            match self.client.poll_read(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::End),
                Poll::Pending => break,
            }
        }
        let is_unused = self.client.unread.is_empty();
        if is_unused && leaving.poll(cx).is_ready() {
            return Poll::Ready(Next::End);
        }
        self.head.poll_expired(cx).map(|()| Next::End)
    }

    async fn answer(&mut self, mut request: Plain) -> After {
        let Some(service) = request.service.take() else {
            return self.say(NO_SERVICE, &request).await;
        };
        let mut sending = Sending {
            worker: self.worker,
            outgoing: &request.outgoing,
            idle: &mut self.idle,
            is_idempotent: request.is_idempotent,
        };
        let forwarding = Forwarding::new(self.worker, service).run(&mut sending);
        match self.client.unless_gone(forwarding).await {
            None => After::End,
            Some(Err(words)) => self.say(words, &request).await,
            Some(Ok(exchange)) => self.bring(exchange, &request).await,
        }
    }

    /// Brings the answer to the client.
    async fn bring(&mut self, mut exchange: Exchange, request: &Plain) -> After {
        let closes = self.closes_after(request);
        let (mut head, mut piece) = match self.final_head(&mut exchange, request, closes).await {
            Ok(head) => head,
            Err(words) => {
                let Some(words) = words else {
                    return After::End;
                };
                exchange.claim.gate().note_failed();
                drop(exchange);
                return self.say(words, request).await;
            }
        };
        if head.is_stream {
            exchange.claim.turn_into(Kind::Stream);
        }
        while !piece.is_last {
            let written = self.write(&mut exchange.incoming, piece.length).await;
            if written.is_err() {
                return After::End;
            }
            let next = match self.read(&mut exchange, request, head.is_stream).await {
                Ok(0) => head.framing.end(&mut exchange.incoming),
                Ok(_) => head.framing.advance(&mut exchange.incoming),
                Err(Broken::ClientLeft) => return After::End,
                Err(Broken::Failed | Broken::Silent) => Err(framing::Malformed),
            };
            let Ok(next) = next else {
                // What the client has cannot be made to look whole.
                exchange.claim.gate().note_failed();
                return After::End;
            };
            piece = next;
        }
        // The application is done, however long the client takes to read.
        let keeps_alive = head.keeps_alive && exchange.incoming.len() == piece.length;
        let mut incoming = exchange.complete(self.worker, request, keeps_alive);
        match self.write(&mut incoming, piece.length).await {
            Ok(()) if !closes => After::GoOn,
            Ok(()) | Err(_) => After::End,
        }
    }

    /// Waits for the final head, and passes interim ones on. It is written in front of the first
    /// piece of the body. Errs with what is to be said instead; with nothing if the client left.
    async fn final_head(
        &mut self,
        exchange: &mut Exchange,
        request: &Plain,
        closes: bool,
    ) -> Result<(Head, Piece), Option<Words>> {
        loop {
            let incoming = &mut exchange.incoming;
            match self.next_head(incoming, request.is_head, closes) {
                answer::Parsed::Final(mut head) => {
                    let piece = head.framing.advance(incoming).map_err(|_| Some(GONE))?;
                    let length = piece.length + self.put_head(incoming);
                    return Ok((head, Piece { length, ..piece }));
                }
                answer::Parsed::Interim => {
                    let length = self.put_head(incoming);
                    self.write(incoming, length).await.map_err(|_| None)?;
                }
                answer::Parsed::Continue => {}
                answer::Parsed::Switched => return Err(Some(UNASKED_SWITCH)),
                answer::Parsed::Malformed => return Err(Some(GONE)),
                answer::Parsed::Partial => match self.read(exchange, request, false).await {
                    Ok(1..) => {}
                    Ok(0) | Err(Broken::Failed) => return Err(Some(GONE)),
                    Err(Broken::Silent) => return Err(Some(SILENT)),
                    Err(Broken::ClientLeft) => return Err(None),
                },
            }
        }
    }

    fn next_head(&self, incoming: &mut Buffer, is_head: bool, closes: bool) -> answer::Parsed {
        let context = answer::Context {
            is_head,
            closes,
            date: &self.worker.date,
        };
        answer::parse(incoming, context, &mut self.worker.scratch.borrow_mut())
    }

    /// Puts the head that was just written in front of what follows it. Returns its length.
    fn put_head(&self, incoming: &mut Buffer) -> usize {
        let head = self.worker.scratch.borrow();
        incoming.prepend(&head);
        head.len()
    }

    /// Reads more of an answer. Zero bytes are the end of the application's connection.
    async fn read(
        &mut self,
        exchange: &mut Exchange,
        request: &Plain,
        may_be_silent: bool,
    ) -> Result<usize, Broken> {
        let idle = &mut self.idle;
        idle.progressed();
        let reading = poll_fn(|cx| {
            if let Poll::Ready(read) = exchange.poll_read(cx, request.outgoing.bytes()) {
                return Poll::Ready(read.map_err(|_| Broken::Failed));
            }
            if may_be_silent {
                return Poll::Pending;
            }
            idle.poll_expired(cx).map(|()| Err(Broken::Silent))
        });
        let read = self.client.unless_gone(reading).await;
        read.unwrap_or(Err(Broken::ClientLeft))
    }

    async fn write(&mut self, buffer: &mut Buffer, count: usize) -> std::io::Result<()> {
        self.client.write(buffer, count, &mut self.idle).await
    }

    /// Answers in the proxy's own words.
    async fn say(&mut self, words: Words, request: &Plain) -> After {
        let closes = self.closes_after(request);
        let mut answer = self.own_answer(words, request.is_head, closes);
        let length = answer.len();
        match self.write(&mut answer, length).await {
            Ok(()) if !closes => After::GoOn,
            Ok(()) | Err(_) => After::End,
        }
    }

    fn own_answer(&self, words: Words, is_head: bool, closes: bool) -> Buffer {
        let Words { status, text, .. } = words;
        let length = text.len();
        let mut out = self.worker.scratch.borrow_mut();
        out.clear();
        // Writing to memory cannot fail.
        let _ = write!(
            out,
            "HTTP/1.1 {status}\r\ncontent-type: {PLAIN}\r\ncontent-length: {length}\r\n{}{}date: ",
            if words.will_pass {
                "retry-after: 1\r\n"
            } else {
                ""
            },
            if closes { "connection: close\r\n" } else { "" },
        );
        self.worker.date.write(&mut out);
        let body = if is_head { "" } else { text };
        let _ = write!(out, "\r\n\r\n{body}");
        let mut answer = Buffer::new(&self.worker.small_buffers);
        answer.append(&out).expect("own words are short");
        answer
    }

    fn closes_after(&self, request: &Plain) -> bool {
        request.closes || self.worker.closing.get()
    }
}
