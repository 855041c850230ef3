//! What is printed of each search, and what makes it fail.
//!
//! It is printed past the test harness, which would keep it for tests that fail.

use super::faults::Faults;
use super::rules::Check;
use super::search::search;
use greenlight_protocol::Mutant;
use std::io::Write;
use std::time::Instant;

/// Looks at every state of such a fleet, prints how many there are, and panics with the way to
/// the first one in which a rule does not hold.
pub(crate) fn holds(name: &str, faults: Faults) {
    let began = now();
    let search = search(faults, Check::Everything);
    if let Some(found) = search.counterexample {
        let (rule, steps, story) = (found.rule, found.steps, found.story);
        panic!("{name}: `{rule}` fails after {steps} steps:\n{story}");
    }
    let took = began.elapsed();
    say(&format!("{name}: {} states, {took:.1?}", search.states));
}

/// Breaks a rule of the protocol, and panics if that does not break G1.
pub(crate) fn breaks_g1(name: &str, mutant: Mutant, faults: Faults) {
    let began = now();
    let search = search(Faults { mutant, ..faults }, Check::OnlyG1);
    let found = search.counterexample;
    let found = found.unwrap_or_else(|| panic!("{name}: not found in {} states", search.states));
    let (states, steps, took) = (search.states, found.steps, began.elapsed());
    say(&format!(
        "{name}: found in {steps} steps, after {states} states, {took:.1?}"
    ));
}

/// Breaks a rule of the gate, and panics if no check finds it.
pub(crate) fn breaks(name: &str, faults: Faults) {
    let began = now();
    let search = search(faults, Check::Everything);
    let found = search.counterexample;
    let found = found.unwrap_or_else(|| panic!("{name}: not found in {} states", search.states));
    let (states, steps, took) = (search.states, found.steps, began.elapsed());
    let rule = found.rule;
    say(&format!(
        "{name}: `{rule}` fails in {steps} steps, after {states} states, {took:.1?}"
    ));
}

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "model check: {line}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "people want to know how long a search takes; nothing depends on it"
)]
fn now() -> Instant {
    Instant::now()
}
