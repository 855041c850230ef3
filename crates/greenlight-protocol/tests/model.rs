//! The model check: every state that a small fleet can reach, faults and all.
#[path = "model/dead.rs"]
mod dead;
#[path = "model/fair.rs"]
mod fair;
#[path = "model/fleet.rs"]
mod fleet;
#[path = "model/machine.rs"]
mod machine;
#[path = "model/post.rs"]
mod post;
#[path = "model/server.rs"]
mod server;
#[path = "model/step.rs"]
mod step;
#[path = "model/table.rs"]
mod table;

use fleet::{Check, Faults, Fleet};
use greenlight_protocol::Mutant;
use stateright::{Checker, HasDiscoveries, Model};
use std::time::Instant;

fn run(name: &str, faults: Faults, check: Check) -> Vec<(&'static str, usize)> {
    let began = Instant::now();
    let checker = Fleet::new(faults, check)
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::Any)
        .target_state_count(
            std::env::var("STATES")
                .ok()
                .and_then(|s| s.parse().ok())
                .unwrap_or(100_000_000),
        )
        .spawn_bfs()
        .join();
    let fleet = checker.model();
    eprintln!(
        "{name}: {} states, {} unique, depth {}, {:.1?}; servers {}, machines {}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed(),
        fleet.servers.len(),
        fleet.machines.len(),
    );
    let mut found = Vec::new();
    for (property, path) in checker.discoveries() {
        let last = *path.last_state();
        let steps = path.into_vec();
        eprintln!("`{property}` fails after {} steps:", steps.len() - 1);
        for (state, action) in &steps {
            eprint!("{}", fleet.show(state));
            if let Some(action) = action {
                eprintln!("  {}", fleet.tell(action));
            }
        }
        eprintln!("{:?} {last:?}", fleet.why_stuck(&last));
        found.push((property, steps.len() - 1));
    }
    found
}

#[test]
fn no_faults() {
    let faults = Faults {
        instances: std::env::var("N")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or(2),
        coordinator_crashes: std::env::var("CC")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or(0),
        coordinator_returns: true,
        agent_crashes: std::env::var("AC")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or(0),
        deaths: std::env::var("D")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or(0),
        reminders: std::env::var("RM").is_ok(),
        reconnections: std::env::var("R").is_ok(),
        retires: std::env::var("NR").is_err(),
        from: if std::env::var("P").is_ok() {
            fleet::From::Prepared
        } else {
            fleet::From::Order
        },
        mutant: Mutant::None,
    };
    assert_eq!(run("no faults", faults, Check::Everything), []);
}
