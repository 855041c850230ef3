//! The model check: every state that a small fleet can reach, faults and all.
//!
//! What runs is the real code of both machines; `model/` joins them to a fleet. Every message may
//! be lost, repeated or overtaken, in every test. A crash fits between any two effects, before
//! the first and after the last. In every state G1, G2, G4, G5 and G6 must hold, and from every
//! state the fleet must come to rest once faults stop.
//!
//! What keeps the number of states small, and why none is missed that matters:
//!
//! - A message that was sent stays on its way for ever, and may arrive at any time, often, or
//!   never. So loss, repetition and reordering need no steps of their own.
//! - Messages without any further effect are forgotten (`dead.rs`), as are timers that would do
//!   nothing (`machine.rs`, `server.rs`). That they do nothing is asserted on the real code
//!   whenever one is forgotten; that it stays so rests on what never changes back.
//! - States that differ only in the names of instances are one (`symmetry.rs`): no decision
//!   depends on a name.
//! - Times are not modelled: a timer may fire as soon as it is set, and a peer is asked as if the
//!   agent had been in doubt for long. Texts for people are left out, and so is what is kept for people only.
//! - Statuses and queries reach the coordinator, and links come up anew, only where a test says
//!   so. Else they are among the messages that are lost. A link that breaks is no step either:
//!   the server asserts that it does what a missed deadline does.
//! - A gate's own deadline does not pass while the coordinator may still commit in time, nor after
//!   the commit, unless the gate itself has opened: there G1 is given up by choice
//!   (`on_uncertain: serve_old`).
//! - The gate runs the real control. What it must do for the protocol is asked of it in every
//!   state (`demands.rs`), with services of which the model has none.
//! - A fence that no command can meet any more is forgotten, and so are numbers of deadlines and
//!   what is only counted (`gate.rs`). What remains are states that a gate really has: a flip that
//!   is noted or not yet written, a restart that the agent has not noticed, a hold whose agent has
//!   died. Where a gate's process may end, there are three times as many as without them.
//!
//! - Of a proxy that is replaced, the predecessor may be slow: what the leader does arrives there at
//!   any time, but in order. A follower's own deadline passes only if its leader does not end the
//!   hold, because it is later than the leader's. No follower is so slow that the leader goes on
//!   without it, and none dies with connections: these are the simulation's.
//!
//! The larger bounds are in `benches/deep_model.rs`.

#[path = "model/mod.rs"]
mod model;

use greenlight_gate::GateMutant;
use greenlight_protocol::Mutant;
use model::faults::{Coordinator, Faults, Past};
use model::report::{breaks, breaks_g1, holds};

#[test]
fn three_instances_with_a_hostile_network() {
    let faults = Faults {
        reminders: true,
        reconnections: true,
        ..Faults::of(3)
    };
    holds("three instances, links that break", faults);
}

#[test]
fn three_instances_whose_coordinator_and_agents_crash() {
    let faults = Faults {
        coordinator_crashes: 1,
        agent_crashes: 1,
        ..Faults::of(3)
    };
    holds("three instances, a crash of each kind", faults);
}

#[test]
fn three_instances_whose_doubts_reach_a_coordinator_that_crashes() {
    let faults = Faults {
        coordinator_crashes: 1,
        reminders: true,
        ..Faults::of(3)
    };
    holds("three instances, coordinator 1, doubts that arrive", faults);
}

#[test]
fn three_instances_whose_coordinator_crashes_twice() {
    let faults = Faults {
        coordinator_crashes: 2,
        ..Faults::of(3)
    };
    holds("three instances, two crashes of the coordinator", faults);
}

#[test]
fn two_instances_whose_agents_crash_twice_and_the_coordinator_once() {
    let faults = Faults {
        coordinator_crashes: 1,
        agent_crashes: 2,
        ..Faults::of(2)
    };
    holds("two instances, crashes: coordinator 1, agents 2", faults);
}

#[test]
fn two_instances_that_crash_and_whose_links_come_and_go() {
    let faults = Faults {
        coordinator_crashes: 1,
        reminders: true,
        reconnections: true,
        ..Faults::of(2)
    };
    holds("two instances, coordinator 1, links that break", faults);
    let faults = Faults {
        coordinator_crashes: 0,
        agent_crashes: 1,
        ..faults
    };
    holds("two instances, agents 1, links that break", faults);
}

#[test]
fn agents_in_doubt_help_each_other_while_the_coordinator_stays_away() {
    let faults = Faults {
        coordinator_crashes: 1,
        coordinator: Coordinator::StaysAway,
        agent_crashes: 1,
        ..Faults::of(2)
    };
    holds("two instances, coordinator gone, agents 1", faults);
    let faults = Faults {
        agent_crashes: 0,
        ..Faults {
            instances: 3,
            ..faults
        }
    };
    holds("three instances, coordinator gone", faults);
}

#[test]
fn an_application_that_dies_or_sickens_at_any_time_and_the_rollback() {
    let faults = Faults {
        deaths: 1,
        ..Faults::of(2)
    };
    holds("two instances, a death", faults);
    let faults = Faults {
        coordinator_crashes: 1,
        ..faults
    };
    holds("two instances, a death, coordinator 1", faults);
}

#[test]
fn a_person_who_aborts_at_any_time_and_the_rollback() {
    let faults = Faults {
        aborts: 1,
        ..Faults::of(3)
    };
    holds("three instances, an abort", faults);
    let faults = Faults {
        coordinator_crashes: 1,
        agent_crashes: 1,
        ..Faults {
            instances: 2,
            ..faults
        }
    };
    holds("two instances, an abort, a crash of each kind", faults);
}

#[test]
fn a_gate_that_refuses_or_restarts_at_any_time() {
    let faults = Faults {
        gate_failures: 1,
        ..Faults::of(3)
    };
    holds("three instances, a gate's trouble", faults);
    let faults = Faults {
        coordinator_crashes: 1,
        agent_crashes: 1,
        ..Faults {
            instances: 2,
            ..faults
        }
    };
    holds(
        "two instances, a gate's trouble, a crash of each kind",
        faults,
    );
}

#[test]
fn a_proxy_that_is_replaced_at_any_time() {
    let faults = Faults {
        replacements: 1,
        ..Faults::of(1)
    };
    holds("one instance, a replacement", faults);
    let faults = Faults {
        gate_failures: 1,
        ..faults
    };
    holds("one instance, a replacement, a gate's trouble", faults);
}

#[test]
fn a_second_deployment_right_after_one_that_was_aborted_or_promoted() {
    let faults = Faults {
        deployments: 1,
        ..Faults::of(2)
    };
    holds("two instances, a second deployment", faults);
    let faults = Faults {
        aborts: 1,
        ..faults
    };
    holds("two instances, an abort, a second deployment", faults);
}

#[test]
fn the_first_deployment_of_all() {
    let faults = Faults {
        past: Past::Nothing,
        coordinator_crashes: 1,
        ..Faults::of(3)
    };
    holds("three instances, first deployment, coordinator 1", faults);
    let faults = Faults {
        agent_crashes: 1,
        ..Faults {
            instances: 2,
            ..faults
        }
    };
    holds(
        "two instances, first deployment, a crash of each kind",
        faults,
    );
    let faults = Faults {
        agent_crashes: 0,
        deaths: 1,
        ..faults
    };
    holds(
        "two instances, first deployment, a death, coordinator 1",
        faults,
    );
}

#[test]
fn the_check_finds_each_broken_rule_of_a_gate() {
    for mutant in [
        GateMutant::DeadlineEndsParking,
        GateMutant::OpeningStopsOtherDeadlines,
        GateMutant::Unfenced,
        GateMutant::HoldsWhatWasNeverOpened,
        GateMutant::LastAdmissionAsAtTheHold,
        GateMutant::RepeatedHoldForgetsExpiry,
        GateMutant::HandsOverHeld,
    ] {
        let faults = Faults {
            gate_mutant: mutant,
            ..Faults::of(2)
        };
        breaks(&format!("`{mutant:?}`"), faults);
    }
}

// G1
#[test]
fn the_check_finds_a_gate_that_flips_without_a_note() {
    let faults = Faults {
        gate_failures: 1,
        gate_mutant: GateMutant::FlipsUnnoted,
        ..Faults::of(2)
    };
    breaks_g1("`FlipsUnnoted`", Mutant::None, faults);
}

#[test]
fn the_check_finds_a_successor_that_opens_what_is_parked() {
    let faults = Faults {
        replacements: 1,
        deaths: 1,
        gate_mutant: GateMutant::SuccessorOpensParked,
        ..Faults::of(1)
    };
    breaks("`SuccessorOpensParked`", faults);
}

// G1
#[test]
fn the_check_finds_a_gate_that_flips_before_its_followers_have_noted_it() {
    let faults = Faults {
        replacements: 1,
        gate_mutant: GateMutant::NotesAlone,
        ..Faults::of(2)
    };
    breaks_g1("`NotesAlone`", Mutant::None, faults);
}

/// The faults that show what each of the five rules is for.
const CRASHES: Faults = Faults {
    coordinator_crashes: 1,
    agent_crashes: 1,
    ..Faults::of(2)
};

#[test]
fn the_check_finds_a_promise_that_is_not_durable() {
    breaks_g1("`ArmedVolatile`", Mutant::ArmedVolatile, CRASHES);
}

#[test]
fn the_check_finds_a_switch_before_the_commit_is_durable() {
    breaks_g1("`SwitchBeforeCommit`", Mutant::SwitchBeforeCommit, CRASHES);
}

#[test]
fn the_check_finds_a_recovery_that_resumes_an_undecided_cut_over() {
    breaks_g1("`ResumeUndecided`", Mutant::ResumeUndecided, CRASHES);
}

#[test]
fn the_check_finds_an_agent_that_reopens_to_the_old_release_after_a_restart() {
    breaks_g1("`ReopenAfterRestart`", Mutant::ReopenAfterRestart, CRASHES);
}

#[test]
fn the_check_finds_a_peer_that_refuses_without_a_promise() {
    breaks_g1(
        "`RefuseWithoutPromise`",
        Mutant::RefuseWithoutPromise,
        CRASHES,
    );
}
