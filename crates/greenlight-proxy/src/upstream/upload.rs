//! A request's body on its way from the client to the application, and back to the start of it if
//! the request has to be sent again.
//!
//! Nothing is read ahead: a body is taken from the client only as the application's connection
//! asks for it, so a held request costs its head. What was taken is kept as long as the request
//! may be sent again: until its first byte is written, and, if its method is idempotent, for as
//! long as it is small.
//!
//! A client that waits for `100 Continue` gets it when the application sends it, or
//! when the application has been silent for a while, because it may not know the expectation.

use super::first_byte::FirstByteTracker;
use crate::idle::Idle;
use crate::limits::Limits;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::HeaderMap;
use hyper::body::Incoming;
use parking_lot::{Mutex, MutexGuard};
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::time::{Sleep, sleep, timeout};

/// How long the rest of an unneeded body is read, in total and without progress:
/// closing at once would reset the connection, and the client could lose the response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(30);
const LINGER_IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a body did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The client broke it off, or its framing is wrong.
    Broken,
    /// The client sent nothing more.
    Stalled,
    /// It is larger than is allowed.
    TooLarge,
}

/// The body of one request; clones are the same body.
#[derive(Clone)]
pub(crate) struct Upload(Arc<Mutex<State>>);

/// What a client waits for before it sends its body.
enum Expectation {
    None,
    Waiting {
        limit: Duration,
        patience: Option<Pin<Box<Sleep>>>,
        waker: Option<Waker>,
    },
}

struct State {
    /// `None` once it ended or is given up.
    inner: Option<Incoming>,
    size: SizeHint,
    seen: u64,
    max: u64,
    idle: Idle,
    expectation: Expectation,
    failure: Option<Failure>,
    /// What was taken, while `keeping`.
    kept: Vec<Bytes>,
    kept_size: usize,
    trailers: Option<HeaderMap>,
    keeping: bool,
    /// How much may be kept once something was written: nothing, unless the request may be
    /// repeated.
    max_kept: usize,
    /// The next kept piece to give again.
    position: usize,
    given_trailers: bool,
}

impl Upload {
    /// The body of a request, `None` if it has none.
    pub(crate) fn new(
        body: Incoming,
        limits: &Limits,
        is_repeatable: bool,
        is_expecting: bool,
    ) -> Option<Self> {
        if body.is_end_stream() {
            return None;
        }
        let expectation = if is_expecting {
            Expectation::Waiting {
                limit: limits.expect_timeout,
                patience: None,
                waker: None,
            }
        } else {
            Expectation::None
        };
        Some(Self(Arc::new(Mutex::new(State {
            size: body.size_hint(),
            inner: Some(body),
            seen: 0,
            max: limits.max_body.unwrap_or(u64::MAX),
            idle: Idle::new(limits.idle_timeout),
            expectation,
            failure: None,
            kept: Vec::new(),
            kept_size: 0,
            trailers: None,
            keeping: true,
            max_kept: if is_repeatable { limits.max_replay } else { 0 },
            position: 0,
            given_trailers: false,
        }))))
    }

    /// Its length, if the client has declared it.
    pub(crate) fn length(&self) -> Option<u64> {
        self.state().size.exact()
    }

    /// Whether the client still waits to be asked for it.
    pub(crate) fn is_unasked(&self) -> bool {
        matches!(self.state().expectation, Expectation::Waiting { .. })
    }

    /// Whether it is the client's turn. Its silence has its own end.
    pub(crate) fn waits_for_client(&self) -> bool {
        self.state().idle.is_waiting()
    }

    /// Why it did not come, if it did not.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.state().failure
    }

    /// The application wants the body.
    pub(crate) fn go_ahead(&self) {
        let before = std::mem::replace(&mut self.state().expectation, Expectation::None);
        if let Expectation::Waiting {
            waker: Some(waker), ..
        } = before
        {
            waker.wake();
        }
    }

    /// Back to its start, to be sent again. False if a part of it is gone.
    pub(crate) fn rewind(&self) -> bool {
        let mut state = self.state();
        state.position = 0;
        state.given_trailers = false;
        state.keeping
    }

    /// The rest of the body is not needed: the connection that sends it is to be closed. False
    /// if everything was sent.
    pub(crate) fn give_up(&self) -> bool {
        let mut state = self.state();
        if state.inner.is_none() {
            return false;
        }
        state.let_linger();
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    fn poll_frame(
        &mut self,
        tracker: &FirstByteTracker,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(bytes) = self.kept.get(self.position) {
            self.position += 1;
            return Poll::Ready(Some(Ok(Frame::data(bytes.clone()))));
        }
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(self.end());
        };
        if !self.expectation.poll_met(cx) {
            return Poll::Pending;
        }
        match Pin::new(inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.idle.progressed();
                Poll::Ready(self.take(frame, tracker))
            }
            Poll::Pending => {
                ready!(self.idle.poll_expired(cx));
                Poll::Ready(Some(Err(self.fail(Failure::Stalled))))
            }
        }
    }

    fn take(
        &mut self,
        frame: Option<Result<Frame<Bytes>, hyper::Error>>,
        tracker: &FirstByteTracker,
    ) -> Option<io::Result<Frame<Bytes>>> {
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return Some(Err(self.fail(Failure::Broken))),
            None => {
                self.inner = None;
                return self.end();
            }
        };
        match frame.into_data() {
            Ok(bytes) => {
                self.seen += bytes.len() as u64;
                if self.seen > self.max {
                    return Some(Err(self.fail(Failure::TooLarge)));
                }
                self.keep(&bytes, tracker);
                self.drop_if_complete();
                Some(Ok(Frame::data(bytes)))
            }
            Err(frame) => {
                self.trailers = frame.into_trailers().ok();
                self.inner = None;
                self.end()
            }
        }
    }

    fn keep(&mut self, bytes: &Bytes, tracker: &FirstByteTracker) {
        if !self.keeping {
            return;
        }
        self.kept_size += bytes.len();
        if tracker.was_written() && self.kept_size > self.max_kept {
            self.keeping = false;
            self.kept = Vec::new();
            self.position = 0;
        } else {
            self.kept.push(bytes.clone());
            self.position += 1;
        }
    }

    fn drop_if_complete(&mut self) {
        if self.inner.as_ref().is_some_and(Body::is_end_stream) {
            self.inner = None;
        }
    }

    /// What comes after the last data.
    fn end(&mut self) -> Option<io::Result<Frame<Bytes>>> {
        if let Some(failure) = self.failure {
            return Some(Err(failure.into()));
        }
        if self.given_trailers {
            return None;
        }
        self.given_trailers = true;
        self.trailers.clone().map(|t| Ok(Frame::trailers(t)))
    }

    fn is_at_end(&self) -> bool {
        self.inner.is_none()
            && self.failure.is_none()
            && self.position == self.kept.len()
            && (self.given_trailers || self.trailers.is_none())
    }

    fn fail(&mut self, failure: Failure) -> io::Error {
        self.failure = Some(failure);
        if failure == Failure::TooLarge {
            self.let_linger();
        } else {
            self.inner = None;
        }
        failure.into()
    }

    /// Gives the body up, and reads on for a while so that the client can read the response. A
    /// client that waits for `100 Continue` has sent nothing, and must not be asked to.
    fn let_linger(&mut self) {
        self.failure.get_or_insert(Failure::Broken);
        let waits = matches!(self.expectation, Expectation::Waiting { .. });
        if let Some(rest) = self.inner.take()
            && !waits
        {
            tokio::task::spawn_local(linger(rest));
        }
    }
}

async fn linger(mut rest: Incoming) {
    let reading =
        async { while let Ok(Some(Ok(_))) = timeout(LINGER_IDLE_TIMEOUT, rest.frame()).await {} };
    // In either case the connection is closed or continues as HTTP allows.
    let _ = timeout(LINGER_TIMEOUT, reading).await;
}

impl Drop for State {
    fn drop(&mut self) {
        self.let_linger();
    }
}

impl Expectation {
    fn poll_met(&mut self, cx: &mut Context<'_>) -> bool {
        let Self::Waiting {
            limit,
            patience,
            waker,
        } = self
        else {
            return true;
        };
        // RFC 9110 section 10.1.1: a client does not wait forever.
        let patience = patience.get_or_insert_with(|| Box::pin(sleep(*limit)));
        if patience.as_mut().poll(cx).is_ready() {
            *self = Self::None;
            return true;
        }
        *waker = Some(cx.waker().clone());
        false
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Broken => io::ErrorKind::ConnectionAborted.into(),
            Failure::Stalled => io::ErrorKind::TimedOut.into(),
            Failure::TooLarge => io::ErrorKind::FileTooLarge.into(),
        }
    }
}

/// One sending of a body over one connection.
pub(crate) struct RequestBody(Option<(Upload, Arc<FirstByteTracker>)>);

impl RequestBody {
    pub(crate) fn empty() -> Self {
        Self(None)
    }

    pub(crate) fn of(upload: &Upload, tracker: &Arc<FirstByteTracker>) -> Self {
        Self(Some((upload.clone(), tracker.clone())))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &self.0 {
            None => Poll::Ready(None),
            Some((upload, tracker)) => upload.state().poll_frame(tracker, cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|(upload, _)| upload.state().is_at_end())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            None => SizeHint::with_exact(0),
            Some((upload, _)) => upload.state().size,
        }
    }
}
