//! The model check with bounds for a night: `make model`.
//!
//! See `tests/model.rs` for what is checked and how. It needs about 10 GB of memory; fleets are
//! looked at one after the other, and the first rule that does not hold ends it.

#[path = "../tests/model/mod.rs"]
mod model;

use greenlight_gate::GateMutant;
use greenlight_protocol::Mutant;
use model::faults::{Coordinator, Faults, Past};
use model::report::{breaks, breaks_g1, holds};

fn main() {
    mutants_in_a_fleet_of_three();
    crashes();
    links();
    other_faults();
}

fn mutants_in_a_fleet_of_three() {
    let faults = Faults {
        coordinator_crashes: 1,
        agent_crashes: 1,
        ..Faults::of(3)
    };
    for mutant in [
        Mutant::ArmedVolatile,
        Mutant::SwitchBeforeCommit,
        Mutant::ResumeUndecided,
        Mutant::ReopenAfterRestart,
        Mutant::RefuseWithoutPromise,
    ] {
        breaks_g1(&format!("three instances, `{mutant:?}`"), mutant, faults);
    }
    let gate_mutant = GateMutant::FlipsUnnoted;
    let faults = Faults {
        gate_failures: 1,
        gate_mutant,
        ..Faults::of(3)
    };
    breaks(&format!("three instances, `{gate_mutant:?}`"), faults);
}

fn crashes() {
    let two = Faults {
        coordinator_crashes: 2,
        agent_crashes: 2,
        ..Faults::of(2)
    };
    holds("two instances, two crashes of each kind", two);
    let three = Faults {
        coordinator_crashes: 2,
        agent_crashes: 1,
        ..Faults::of(3)
    };
    holds("three instances, crashes: coordinator 2, agents 1", three);
    let gone = Faults {
        coordinator_crashes: 1,
        coordinator: Coordinator::StaysAway,
        agent_crashes: 1,
        ..Faults::of(3)
    };
    holds("three instances, coordinator gone, agents 1", gone);
    let first = Faults {
        past: Past::Nothing,
        coordinator_crashes: 1,
        agent_crashes: 1,
        ..Faults::of(3)
    };
    holds(
        "three instances, first deployment, a crash of each kind",
        first,
    );
}

fn links() {
    let three = Faults {
        coordinator_crashes: 1,
        reminders: true,
        reconnections: true,
        ..Faults::of(3)
    };
    holds("three instances, coordinator 1, links that break", three);
    let doubts = Faults {
        agent_crashes: 1,
        reconnections: false,
        ..three
    };
    holds(
        "three instances, a crash of each kind, doubts that arrive",
        doubts,
    );
    let two = Faults {
        agent_crashes: 1,
        ..Faults {
            instances: 2,
            ..three
        }
    };
    holds("two instances, a crash of each kind, links that break", two);
}

fn other_faults() {
    let three = Faults::of(3);
    let two = Faults::of(2);
    let death = |fleet| Faults { deaths: 1, ..fleet };
    holds("three instances, a death", death(three));
    holds(
        "two instances, a death, agents 1",
        Faults {
            agent_crashes: 1,
            ..death(two)
        },
    );
    holds(
        "two instances, a death, an abort, a gate's trouble",
        Faults {
            aborts: 1,
            gate_failures: 1,
            ..death(two)
        },
    );
    holds("two instances, two deaths", Faults { deaths: 2, ..two });
}
