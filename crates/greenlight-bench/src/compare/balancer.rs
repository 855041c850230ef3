//! The load balancer before the two machines: takes turns among those that are healthy.
//!
//! The client is the balancer, so that nothing is hidden: no request is tried again, and each is
//! known by the machine that got it. Machines are checked through their front; if none is
//! healthy, all get requests, as with AWS's.

use greenlight_agent::health::Probe;
use greenlight_release::health::HealthCheck;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Quicker than HAProxy's 2 s, which favours ways that stop machines.
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// Checks in a row that change its mind, either way.
const ENOUGH: u32 = 2;

/// The balancer.
pub(super) struct Balancer {
    machines: Arc<[State]>,
    checks: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    down: AtomicBool,
    /// Taken out of rotation.
    out: AtomicBool,
}

impl Balancer {
    /// Begins to check.
    pub(super) fn start(fronts: Vec<SocketAddr>) -> Self {
        let machines: Arc<[State]> = fronts.iter().map(|_| State::default()).collect();
        let checks = fronts.into_iter().enumerate().map(|(number, front)| {
            let machines = machines.clone();
            tokio::spawn(async move { check(front, &machines[number]).await })
        });
        Self {
            checks: checks.collect(),
            machines,
        }
    }

    /// Which machine gets the next request, again and again.
    pub(super) fn choice(&self) -> impl FnMut() -> usize + Send + 'static {
        let machines = self.machines.clone();
        let mut last = 0;
        move || {
            last = next(&machines, last);
            last
        }
    }

    /// Gives a machine nothing more.
    pub(super) fn leave_alone(&self, number: usize) {
        self.machines[number].out.store(true, SeqCst);
    }

    /// Gives a machine its share again, once its checks pass.
    pub(super) fn come_back(&self, number: usize) {
        self.machines[number].out.store(false, SeqCst);
    }
}

impl State {
    fn is_fit(&self) -> bool {
        !self.down.load(SeqCst) && !self.out.load(SeqCst)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        for check in &self.checks {
            check.abort();
        }
    }
}

fn next(machines: &[State], last: usize) -> usize {
    let turns = (1..=machines.len()).map(|step| (last + step) % machines.len());
    let mut fitting = turns.filter(|number| machines[*number].is_fit());
    fitting.next().unwrap_or((last + 1) % machines.len())
}

async fn check(front: SocketAddr, machine: &State) {
    let probe = Probe::new(
        front,
        HealthCheck {
            timeout: CHECK_EVERY,
            ..HealthCheck::default()
        },
    );
    let mut against = 0;
    let mut tick = tokio::time::interval(CHECK_EVERY);
    loop {
        tick.tick().await;
        let is_down = probe.ask().await.is_err();
        if is_down == machine.down.load(SeqCst) {
            against = 0;
            continue;
        }
        against += 1;
        if against >= ENOUGH {
            machine.down.store(is_down, SeqCst);
            against = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn healthy_machines_take_turns_and_others_get_nothing_unless_there_is_nobody_else() {
        let machines = [State::default(), State::default()];
        let turns = || {
            let mut last = 0;
            std::array::from_fn(|_| {
                last = next(&machines, last);
                last
            })
        };
        assert_eq!(turns(), [1, 0, 1]);
        machines[1].down.store(true, SeqCst);
        assert_eq!(turns(), [0, 0, 0]);
        machines[0].out.store(true, SeqCst);
        assert_eq!(turns(), [1, 0, 1]);
    }
}
