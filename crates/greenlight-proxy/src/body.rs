//! The two bodies: what goes to the application, and what comes back.

use crate::gate::Claim;
use crate::upstream::{Connection, Pool};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// What is sent to the application.
pub(crate) enum RequestBody {
    /// Nothing.
    Empty,
    /// A small body, kept so that it can be sent again.
    Kept(Option<Bytes>),
    /// The client's body as it comes.
    Streamed(Box<Streamed>),
}

/// A body that must make progress.
pub(crate) struct Streamed {
    inner: Incoming,
    idle: Idle,
}

impl RequestBody {
    pub(crate) fn kept(bytes: Bytes) -> Self {
        Self::Kept(Some(bytes))
    }

    pub(crate) fn streamed(inner: Incoming, idle: Duration) -> Self {
        Self::Streamed(Box::new(Streamed {
            inner,
            idle: Idle::new(idle),
        }))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Kept(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Streamed(streamed) => {
                let Streamed { inner, idle } = &mut **streamed;
                idle.poll_frame(inner, cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Kept(None) => true,
            Self::Kept(Some(_)) => false,
            Self::Streamed(streamed) => streamed.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Kept(None) => SizeHint::with_exact(0),
            Self::Kept(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Self::Streamed(streamed) => streamed.inner.size_hint(),
        }
    }
}

/// What is sent to the client.
pub(crate) enum ResponseBody {
    /// The proxy's own words.
    Own(Option<Bytes>),
    /// The application's answer; its place in flight is given back when it is complete.
    Forwarded(Box<Forwarded>),
}

/// An application's answer on its way to the client.
pub(crate) struct Forwarded {
    pub(crate) inner: Incoming,
    pub(crate) idle: Idle,
    pub(crate) claim: Option<Claim>,
    pub(crate) connection: Option<Connection>,
    pub(crate) pool: Rc<Pool>,
}

impl Forwarded {
    /// The answer is complete: the place is free, and the connection can be used again.
    fn complete(&mut self) {
        self.claim = None;
        if let Some(connection) = self.connection.take() {
            self.pool.put_back(connection);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Forwarded(forwarded) => {
                let Forwarded { inner, idle, .. } = &mut **forwarded;
                let polled = idle.poll_frame(inner, cx);
                match &polled {
                    Poll::Ready(None) => forwarded.complete(),
                    Poll::Ready(Some(Ok(_))) if forwarded.inner.is_end_stream() => {
                        forwarded.complete();
                    }
                    Poll::Ready(Some(_)) | Poll::Pending => {}
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Forwarded(forwarded) => forwarded.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Forwarded(forwarded) => forwarded.inner.size_hint(),
        }
    }
}

/// Ends a body that makes no progress. The timer exists only while the body is waited for.
pub(crate) struct Idle {
    limit: Option<Duration>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit: Some(limit),
            sleep: None,
        }
    }

    /// For streams, whose silence means nothing.
    pub(crate) fn never() -> Self {
        Self {
            limit: None,
            sleep: None,
        }
    }

    fn poll_frame(
        &mut self,
        inner: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) {
            if let (Some(sleep), Some(limit)) = (&mut self.sleep, self.limit) {
                sleep.as_mut().reset(Instant::now() + limit);
            }
            return Poll::Ready(frame.map(|f| f.map_err(io::Error::other)));
        }
        let Some(limit) = self.limit else {
            return Poll::Pending;
        };
        let timer = self.sleep.get_or_insert_with(|| Box::pin(sleep(limit)));
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into()))),
            Poll::Pending => Poll::Pending,
        }
    }
}
