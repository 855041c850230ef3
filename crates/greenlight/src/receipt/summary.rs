//! The receipt as Markdown with a picture of the barrier, for the summary of a CI job.
//!
//! The picture is on the server's clock alone: when it asked, when each answer came in, when the
//! decision was durable. The table is on each instance's own clock, from its own hold.

use super::{CutOverReceipt, Receipt};
use std::fmt::Write as _;
use std::time::Duration;

impl Receipt {
    /// The receipt as GitHub shows it.
    pub fn summary(&self) -> String {
        let mut text = format!("### {}\n\n", escaped(&self.headline()));
        for cut_over in &self.cut_overs {
            add(
                &mut text,
                &format!("**{}**\n", escaped(&cut_over.headline())),
            );
            cut_over.summarise(&mut text);
        }
        let by = escaped(&self.by);
        add(
            &mut text,
            &format!("<sub>deployment {}, asked by {by}</sub>", self.deployment),
        );
        text
    }
}

impl CutOverReceipt {
    fn summarise(&self, text: &mut String) {
        let rows = self.rows();
        if !rows.is_empty() {
            add(
                text,
                &table_line(&super::render::COLUMNS.map(ToOwned::to_owned)),
            );
            add(text, &"|---".repeat(super::render::COLUMNS.len()));
            for row in &rows {
                add(text, &table_line(&row.clone().map(|cell| escaped(&cell))));
            }
            add(text, "");
        }
        for (name, instance) in &self.instances {
            if let Some(trouble) = &instance.trouble {
                add(
                    text,
                    &format!(
                        "`{name}`:\n\n```text\n{}\n```\n",
                        trouble.replace("```", "'''")
                    ),
                );
            }
        }
        for check in self.checks() {
            let mark = if check.holds {
                "borne out"
            } else {
                "**NOT BORNE OUT**"
            };
            add(text, &format!("- {}: {mark}", escaped(&check.claim)));
        }
        add(text, "");
        if let Some(picture) = self.timeline() {
            add(text, &picture);
        }
    }

    /// The barrier as a Mermaid diagram; nothing if the hold was never asked for.
    fn timeline(&self) -> Option<String> {
        let asked = self.hold_sent_ns?;
        let since = |at: u64| Duration::from_nanos(at.saturating_sub(asked)).as_millis();
        let mut text = String::from("```mermaid\ngantt\n");
        add(
            &mut text,
            "    title the barrier, in milliseconds on the server's clock",
        );
        add(&mut text, "    dateFormat x\n    axisFormat %S.%L");
        for (name, instance) in &self.instances {
            let held = since(instance.held_ns?);
            // Mermaid takes colons and semicolons for its own.
            add(
                &mut text,
                &format!("    section {}", name.0.replace([':', ';', '#'], " ")),
            );
            add(
                &mut text,
                &format!("    asked to hold :done, 0, {}", held.max(1)),
            );
            if let Some(switched) = instance.switched_ns {
                let switched = since(switched).max(held + 1);
                add(&mut text, &format!("    held :active, {held}, {switched}"));
                add(
                    &mut text,
                    &format!("    switched :milestone, {switched}, 0ms"),
                );
            }
        }
        if let Some(committed) = self.committed_ns {
            add(&mut text, "    section server");
            add(
                &mut text,
                &format!("    committed :milestone, crit, {}, 0ms", since(committed)),
            );
        }
        text.push_str("```\n");
        Some(text)
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
