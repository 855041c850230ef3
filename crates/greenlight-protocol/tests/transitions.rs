//! The tables of transitions in `docs/design/protocol.md`, compared with what the machines do.
//!
//! Each cell is made by driving a machine to a state and giving it one event. If a table differs,
//! the test prints the one that is true.

#[path = "transitions/agent.rs"]
mod agent;
#[path = "transitions/coordinator.rs"]
mod coordinator;

use std::fmt::Write;

/// A cell of a state that the event leaves as it is.
const SAME: &str = "·";

#[test]
fn the_agent_goes_from_state_to_state_as_documented() {
    is_documented(&table("Event", &agent::STATES, &agent::rows()));
}

#[test]
fn the_coordinator_goes_from_phase_to_phase_as_documented() {
    is_documented(&table("Phase", &coordinator::EVENTS, &coordinator::rows()));
}

fn is_documented(table: &str) {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/design/protocol.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    assert!(page.contains(table), "`{page}` must have:\n\n{table}");
}

/// Rows of a title and its cells, as a table in Markdown.
fn table(corner: &str, columns: &[&str], rows: &[(String, Vec<String>)]) -> String {
    let mut text = format!("| {corner} |");
    for column in columns {
        write!(text, " {column} |").expect("writing to a string does not fail");
    }
    text.push_str("\n|");
    text.push_str(&"---|".repeat(columns.len() + 1));
    text.push('\n');
    for (title, cells) in rows {
        writeln!(text, "| {title} | {} |", cells.join(" | "))
            .expect("writing to a string does not fail");
    }
    text
}

fn cell(before: &str, after: &str) -> String {
    match before == after {
        true => SAME.to_owned(),
        false => after.to_owned(),
    }
}
