//! The receipt as Markdown with a picture of the barrier, for the summary of a CI job.
//!
//! The table is on each instance's own clock, from its own hold; the picture is on the server's.

use super::{Check, CutOverReceipt, Receipt, Statement};
use std::fmt::Write as _;

/// GitHub takes 1 MiB of summary from a step. A fleet that has more rows is better read elsewhere.
const MOST_ROWS: usize = 500;
/// More claims than these are counted, and only those that fail are spelt out.
const MOST_CLAIMS: usize = 40;

impl Receipt {
    /// The receipt as GitHub shows it.
    pub fn summary(&self) -> String {
        self.printable().markdown()
    }

    /// Of a receipt that is printable.
    fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n", escaped(&self.headline()));
        let statement = Statement::of(self);
        for (cut_over, stated) in self.cut_overs.iter().zip(&statement.cut_overs) {
            add(
                &mut text,
                &format!("**{}**\n", escaped(&self.headline_of(cut_over))),
            );
            cut_over.summarise(&stated.claims, &mut text);
        }
        add_claims(&mut text, &statement.claims);
        add(&mut text, "");
        let by = escaped(&self.requested_by);
        add(
            &mut text,
            &format!("<sub>deployment {}, asked by {by}</sub>", self.deployment),
        );
        text
    }
}

impl CutOverReceipt {
    fn summarise(&self, claims: &[Check], text: &mut String) {
        if let Some(aligned) = self.aligned_text() {
            add(text, &format!("{}\n", escaped(&aligned)));
        }
        for line in self.window_lines() {
            add(text, &format!("{}\n", escaped(&line)));
        }
        let rows = self.rows();
        if !rows.is_empty() {
            add(
                text,
                &table_line(&super::render::COLUMNS.map(ToOwned::to_owned)),
            );
            add(text, &"|---".repeat(super::render::COLUMNS.len()));
            for row in rows.iter().take(MOST_ROWS) {
                add(text, &table_line(&row.clone().map(|cell| escaped(&cell))));
            }
            add(text, "");
            if rows.len() > MOST_ROWS {
                let more = rows.len() - MOST_ROWS;
                add(
                    text,
                    &format!("and {more} more; `greenlight receipt` shows them all\n"),
                );
            }
        }
        for (name, instance) in &self.instances {
            if let Some(problem) = &instance.problem {
                add(
                    text,
                    &format!(
                        "`{name}`:\n\n```text\n{}\n```\n",
                        problem.replace("```", "'''")
                    ),
                );
            }
        }
        add_claims(text, claims);
        add(text, "");
        if let Some(picture) = super::timeline::timeline(self) {
            add(text, &picture);
        }
    }
}

fn add_claims(text: &mut String, checks: &[Check]) {
    let borne_out = checks.iter().filter(|check| check.holds).count();
    let all_shown = checks.len() <= MOST_CLAIMS;
    for check in checks.iter().filter(|check| all_shown || !check.holds) {
        let mark = match (check.holds, &check.missing) {
            (true, _) => "borne out".to_owned(),
            (false, None) => "**NOT BORNE OUT**".to_owned(),
            (false, Some(missing)) => format!("**NOT SHOWN**, missing: {}", escaped(missing)),
        };
        add(text, &format!("- {}: {mark}", escaped(&check.claim)));
    }
    if !all_shown {
        add(
            text,
            &format!("- {borne_out} of {} claims borne out", checks.len()),
        );
    }
}

fn add(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a string takes all");
}

fn table_line<const N: usize>(cells: &[String; N]) -> String {
    format!("| {} |", cells.join(" | "))
}

/// Text that Markdown leaves alone, on one line.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '\n' | '\r' => out.push(' '),
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            '|' | '*' | '_' | '[' | ']' | '\\' => {
                out.push('\\');
                out.push(letter);
            }
            _ => out.push(letter),
        }
    }
    out
}
