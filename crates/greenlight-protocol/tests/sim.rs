//! The simulation: a whole fleet of the real machines, with gates, applications, clients, disks,
//! clocks and a hostile network, from one seed.
//!
//! A run has two acts. In the first there is no end to the faults, and only safety is asked for;
//! in the second they stop, and everything has to come to rest, and one more deployment to work.
//!
//! `SEEDS=1000000` runs more seeds, `FROM=…` begins elsewhere; `SEED=…` and `replay` tell one run
//! step by step. Which machine or clock runs it makes no difference.

#![expect(
    clippy::disallowed_methods,
    reason = "how many seeds are run, and for how long, is not the machines' business"
)]

#[path = "sim/apps.rs"]
mod apps;
#[path = "sim/coordinator.rs"]
mod coordinator;
#[path = "sim/disk.rs"]
mod disk;
#[path = "sim/event.rs"]
mod event;
#[path = "sim/fault_injection.rs"]
mod fault_injection;
#[path = "sim/faults.rs"]
mod faults;
#[path = "sim/gate.rs"]
mod gate;
#[path = "sim/machine.rs"]
mod machine;
#[path = "sim/network.rs"]
mod network;
#[path = "sim/oracle.rs"]
mod oracle;
#[path = "sim/people.rs"]
mod people;
#[path = "sim/process.rs"]
mod process;
#[path = "sim/profile.rs"]
mod profile;
#[path = "sim/replacement.rs"]
mod replacement;
#[path = "sim/rest.rs"]
mod rest;
#[path = "sim/rng.rs"]
mod rng;
#[path = "sim/simulation.rs"]
mod simulation;
#[path = "sim/stats.rs"]
mod stats;
#[path = "sim/trace.rs"]
mod trace;
#[path = "sim/traffic.rs"]
mod traffic;
#[expect(dead_code, reason = "in the simulation everything takes time")]
#[path = "world/mod.rs"]
mod world;

use greenlight_gate::GateMutant;
use greenlight_protocol::Mutant;
use profile::Broken;
use simulation::run;
use stats::Stats;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use trace::Telling;

/// Seeds that are run unless `SEEDS` says otherwise.
const SEEDS: u64 = 20_000;
/// Seeds within which each broken rule must be found; the rarest shows itself in one of thousands.
const SEEDS_FOR_A_MUTANT: u64 = 20_000;

#[test]
fn every_seed_keeps_every_guarantee_and_comes_to_rest() {
    let (seeds, from) = (
        number("SEEDS").unwrap_or(SEEDS),
        number("FROM").unwrap_or(0),
    );
    let began = Instant::now();

    let (stats, failed) = run_all(from, seeds, Broken::Nothing, |_| true);

    eprintln!("{stats}\n  in {:.1?}", began.elapsed());
    if let Some((seed, reason)) = failed {
        tell_failure(seed, &reason);
        panic!("seed {seed}: {reason}");
    }
    if seeds >= SEEDS {
        for what in [
            "gate ended between flip and record",
            "proxy replaced while held",
            "successor refused while held",
            "follower told while held",
        ] {
            assert_ne!(stats.counted(what), 0, "{what}: it never happened");
        }
    }
}

#[test]
fn the_same_seed_makes_the_same_run() {
    for seed in 0..50 {
        let (first, second) = (
            run(seed, Broken::Nothing, Telling::Silent),
            run(seed, Broken::Nothing, Telling::Last),
        );
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_ne!(
            first.hash,
            run(seed + 1, Broken::Nothing, Telling::Silent).hash
        );
    }
}

#[test]
fn replay() {
    if let Some(seed) = number("SEED") {
        let run = run(seed, Broken::Nothing, Telling::All);
        eprintln!("{}\nhash {:016x}", run.stats, run.hash);
        assert_eq!(run.result, Ok(()), "seed {seed}");
    }
}

#[test]
fn a_promise_that_is_not_durable_is_found() {
    finds(Broken::Protocol(Mutant::ArmedVolatile));
}

#[test]
fn a_switch_before_the_commit_is_found() {
    finds(Broken::Protocol(Mutant::SwitchBeforeCommit));
}

#[test]
fn a_coordinator_that_resumes_an_undecided_cut_over_is_found() {
    finds(Broken::Protocol(Mutant::ResumeUndecided));
}

#[test]
fn an_agent_that_reopens_to_old_after_a_restart_is_found() {
    finds(Broken::Protocol(Mutant::ReopenAfterRestart));
}

#[test]
fn a_peer_that_refuses_without_a_promise_is_found() {
    finds(Broken::Protocol(Mutant::RefuseWithoutPromise));
}

#[test]
fn a_deadline_that_lets_a_parked_service_go_is_found() {
    finds_in_gate(GateMutant::DeadlineEndsParking);
}

#[test]
fn an_opening_that_stops_the_deadlines_of_other_services_is_found() {
    finds_in_gate(GateMutant::OpeningStopsOtherDeadlines);
}

#[test]
fn a_gate_that_obeys_an_older_cut_over_is_found() {
    finds_in_gate(GateMutant::Unfenced);
}

#[test]
fn a_gate_that_holds_what_was_never_opened_is_found() {
    finds_in_gate(GateMutant::HoldsWhatWasNeverOpened);
}

#[test]
fn evidence_that_leaves_out_what_came_after_the_hold_is_found() {
    finds_in_gate(GateMutant::LastAdmissionAsAtTheHold);
}

#[test]
fn evidence_that_forgets_an_expiry_is_found() {
    finds_in_gate(GateMutant::RepeatedHoldForgetsExpiry);
}

// G1
#[test]
fn a_gate_that_flips_without_a_note_is_found() {
    finds_in_gate(GateMutant::FlipsUnnoted);
}

#[test]
fn a_successor_that_opens_what_is_parked_is_found() {
    finds_in_gate(GateMutant::SuccessorOpensParked);
}

#[test]
fn a_successor_that_begins_the_deadline_of_a_hold_anew_is_found() {
    finds_in_gate(GateMutant::HandsOverHeld);
}

fn finds_in_gate(mutant: GateMutant) {
    let (stats, failed) = run_all(0, SEEDS_FOR_A_MUTANT, Broken::Gate(mutant), |_| true);
    let (seed, reason) = failed.unwrap_or_else(|| panic!("{mutant:?} is not found: {stats}"));
    eprintln!("{mutant:?}: seed {seed} of {}: {reason}", stats.runs);
}

fn finds(mutant: Broken) {
    // That a fleet is stuck would be found as well; what it must not do is more telling.
    let is_unsafe = |reason: &str| {
        ["G1", "G2", "G5", "G6"]
            .iter()
            .any(|g| reason.starts_with(g))
    };
    let (stats, failed) = run_all(0, SEEDS_FOR_A_MUTANT, mutant, is_unsafe);
    let (seed, reason) = failed.expect("the oracle sees that a rule is broken");
    eprintln!("{mutant:?}: seed {seed} of {}: {reason}", stats.runs);
}

/// Runs seeds on every core until one fails; which one that is, is not left to the threads.
fn run_all(
    from: u64,
    seeds: u64,
    mutant: Broken,
    counts: impl Fn(&str) -> bool + Sync,
) -> (Stats, Option<(u64, String)>) {
    let next = AtomicU64::new(from);
    let stop = AtomicBool::new(false);
    let total = Mutex::new((Stats::default(), None::<(u64, String)>));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let mut stats = Stats::default();
                let mut failed = None;
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        break;
                    }
                    if let Err(reason) = run_one(seed, mutant, &mut stats)
                        && counts(&reason)
                    {
                        failed = Some((seed, reason));
                        stop.store(true, Ordering::Relaxed);
                    }
                }
                let mut total = total.lock().expect("no thread panics");
                total.0.add(&stats);
                let known = total.1.take();
                total.1 = [known, failed].into_iter().flatten().min();
            });
        }
    });
    total.into_inner().expect("no thread panics")
}

fn run_one(seed: u64, mutant: Broken, stats: &mut Stats) -> Result<(), String> {
    let run = catch_unwind(AssertUnwindSafe(|| run(seed, mutant, Telling::Silent)));
    let run = run.map_err(|_| "it panicked".to_owned())?;
    stats.add(&run.stats);
    run.result.map_err(|oracle::Breach(text)| text)
}

fn tell_failure(seed: u64, reason: &str) {
    if let Ok(run) = catch_unwind(|| run(seed, Broken::Nothing, Telling::Last)) {
        for line in &run.lines {
            eprintln!("{line}");
        }
    }
    eprintln!("seed {seed}: {reason}");
    eprintln!(
        "to see it again: SEED={seed} cargo test -p greenlight-protocol --test sim -- --exact replay --nocapture"
    );
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
