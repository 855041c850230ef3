//! One exhaustive search, and what it tells.
//!
//! There is no cap on states, depth or time: a search that found nothing has seen every state.
//! States are told apart by 64 bits of hash, so among ten million the chance that any is missed
//! is about one in 400 000.

use super::faults::Faults;
use super::fleet::Fleet;
use super::rules::Check;
use stateright::{Checker, HasDiscoveries, Model};
use std::fmt::Write;
use std::thread::available_parallelism;

/// What a search came to.
pub(crate) struct Search {
    /// Different states.
    pub(crate) states: usize,
    /// The rule that does not hold, the shortest way there, and its length in steps.
    pub(crate) counterexample: Option<Counterexample>,
}

pub(crate) struct Counterexample {
    pub(crate) rule: &'static str,
    pub(crate) steps: usize,
    pub(crate) story: String,
}

/// Looks at every state, or until a rule does not hold.
pub(crate) fn search(faults: Faults, check: Check) -> Search {
    let checker = Fleet::new(faults, check)
        .checker()
        .threads(available_parallelism().map_or(1, usize::from))
        .finish_when(HasDiscoveries::Any)
        .spawn_bfs()
        .join();
    let fleet = checker.model();
    let found = checker.discoveries().into_iter().next();
    let counterexample = found.map(|(rule, path)| {
        let path = path.into_vec();
        let mut story = String::new();
        for (state, action) in &path {
            story += &fleet.show(state);
            if let Some(action) = action {
                let _ = writeln!(story, "  {}", fleet.tell(action));
            }
        }
        if let Some((last, _)) = path.last()
            && let Err(why) = fleet.end_of(last)
        {
            let _ = writeln!(story, "    once faults stop: {why}");
        }
        Counterexample {
            rule,
            steps: path.len() - 1,
            story,
        }
    });
    Search {
        states: checker.unique_state_count(),
        counterexample,
    }
}
