//! What is sent to the client: the application's response as it comes, or a local reply.

use crate::gate::Claim;
use crate::idle::Idle;
use crate::local_reply::{LocalReply, PLAIN};
use crate::thread::ThreadContext;
use crate::upstream::{HyperConnection, Upload};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// What is sent to the client.
pub(crate) enum ResponseBody {
    /// A local reply.
    Local(Option<Bytes>),
    /// The application's response; its place in flight is given back when it is complete.
    Forwarded(Box<Forwarded>),
}

/// An application's response on its way to the client.
pub(crate) struct Forwarded {
    pub(crate) inner: Incoming,
    pub(crate) idle: Idle,
    pub(crate) exchange: Option<Exchange>,
}

/// What a response occupies until it is complete.
pub(crate) struct Exchange {
    pub(crate) claim: Claim,
    pub(crate) connection: HyperConnection,
    pub(crate) upload: Option<Upload>,
    /// Of a request whose response has no body; see [`Exchange::complete`].
    pub(crate) is_head: bool,
    pub(crate) thread: Rc<ThreadContext>,
}

impl Exchange {
    /// The response is complete: the place is free. The connection can be used again unless the
    /// application has answered without taking the whole request, and not after `HEAD`: one that
    /// sends a body all the same would answer another client's request with it.
    pub(crate) fn complete(self) {
        drop(self.claim);
        if self.is_head || self.upload.is_some_and(|upload| upload.give_up()) {
            self.connection.abort();
        } else {
            self.thread.pool.put_back(self.connection);
        }
    }

    /// The response broke off.
    fn fail(self) {
        self.claim.gate().note_failed();
    }
}

impl Forwarded {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
            ready!(self.idle.poll_expired(cx));
            if let Some(exchange) = self.exchange.take() {
                exchange.fail();
            }
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        };
        self.idle.progressed();
        let is_complete = match &frame {
            None => true,
            Some(Ok(_)) => self.inner.is_end_stream(),
            Some(Err(_)) => {
                if let Some(exchange) = self.exchange.take() {
                    exchange.fail();
                }
                false
            }
        };
        if is_complete && let Some(exchange) = self.exchange.take() {
            exchange.complete();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Local(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Forwarded(forwarded) => forwarded.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(bytes) => bytes.is_none(),
            Self::Forwarded(forwarded) => forwarded.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Self::Forwarded(forwarded) => forwarded.inner.size_hint(),
        }
    }
}

impl From<LocalReply> for Response<ResponseBody> {
    fn from(reply: LocalReply) -> Self {
        let body = Bytes::from_static(reply.text.as_bytes());
        let mut response = Self::new(ResponseBody::Local(Some(body)));
        *response.status_mut() = reply.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PLAIN));
        if reply.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
