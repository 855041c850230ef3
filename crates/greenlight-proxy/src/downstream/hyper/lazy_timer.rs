//! The timer of one connection, for timeouts that are set with every request and hardly ever come.
//!
//! hyper sets the timeout of a request's head when it begins to wait for it, and throws it away
//! when the head is complete. A timer of the runtime costs a lock and two changes of its wheel each
//! time. So one timer is kept for the connection, and only moved when it goes off too early.

use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Timeouts of one connection. It has one at a time; a later one takes the place of an earlier.
#[derive(Default)]
pub(crate) struct LazyTimer {
    /// Never waited for, because it does not leave its thread; hyper asks for `Send`.
    alarm: Arc<Mutex<Option<Alarm>>>,
}

type Alarm = Pin<Box<tokio::time::Sleep>>;

impl Timer for LazyTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(LazySleep {
            deadline,
            alarm: self.alarm.clone(),
        })
    }
}

struct LazySleep {
    deadline: Instant,
    alarm: Arc<Mutex<Option<Alarm>>>,
}

impl Sleep for LazySleep {}

impl Future for LazySleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut alarm = self.alarm.lock();
        let deadline = self.deadline.into();
        let alarm = alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        loop {
            // One that goes off later than asked was left by a longer timeout.
            if alarm.deadline() > deadline {
                alarm.as_mut().reset(deadline);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if alarm.deadline() >= deadline {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test(start_paused = true)]
    async fn a_timeout_comes_at_its_time_also_when_others_were_set_before() {
        let timer = LazyTimer::default();
        let began = tokio::time::Instant::now();
        let until = |seconds| (began + Duration::from_secs(seconds)).into_std();
        begin(&mut timer.sleep_until(until(30))).await;
        begin(&mut timer.sleep_until(until(3))).await;
        timer.sleep_until(until(7)).await;
        assert_eq!(began.elapsed().as_secs(), 7);
        timer.sleep_until(until(9)).await;
        assert_eq!(began.elapsed().as_secs(), 9);
    }

    /// Polls it once, and no more.
    async fn begin(sleep: &mut Pin<Box<dyn Sleep>>) {
        poll_fn(|cx| {
            assert!(sleep.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
    }
}
