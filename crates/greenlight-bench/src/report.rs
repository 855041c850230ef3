//! What a benchmark found: a table for people, a document for programs, and which bounds are met.

use serde::Serialize;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// A figure that must not be exceeded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Bound {
    /// What it is about.
    pub(crate) name: String,
    /// The most it may be.
    pub(crate) limit: f64,
    /// What it was.
    pub(crate) measured: f64,
    /// Whether it binds now, or is where the project wants to get.
    pub(crate) kind: BoundKind,
}

/// How much a bound matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BoundKind {
    /// To be met now.
    Required,
    /// To be met some day.
    Aim,
}

impl Bound {
    /// Whether it is met. What could not be measured is not.
    pub(crate) fn is_met(&self) -> bool {
        self.measured <= self.limit
    }
}

/// What one benchmark found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report<R> {
    pub(crate) benchmark: &'static str,
    /// When it ended, on the wall clock.
    pub(crate) finished: String,
    /// What it ran on.
    pub(crate) machine: Machine,
    pub(crate) bounds: Vec<Bound>,
    /// Everything that was measured.
    pub(crate) results: R,
}

/// What a benchmark ran on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) kernel: String,
}

impl<R: Serialize> Report<R> {
    /// A report of what was just measured here.
    pub(crate) fn new(benchmark: &'static str, bounds: Vec<Bound>, results: R) -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            benchmark,
            finished: greenlight_shell::clock::utc(greenlight_shell::clock::wall_ms()),
            machine: Machine {
                cores: std::thread::available_parallelism().map_or(1, usize::from),
                kernel: kernel.trim().to_owned(),
            },
            bounds,
            results,
        }
    }

    /// Writes the document, prints table and bounds, and says whether every bound that is
    /// required now is met.
    pub(crate) fn publish(&self, table: &Table, folder: &Path) -> io::Result<bool> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(format!("{}.json", self.benchmark));
        std::fs::write(&path, serde_json::to_vec_pretty(self)?)?;
        let mut text = format!("\n{}\n", table.render());
        for bound in &self.bounds {
            let verdict = match (bound.is_met(), bound.kind) {
                (true, _) => "met",
                (false, BoundKind::Required) => "MISSED",
                (false, BoundKind::Aim) => "not reached (aim)",
            };
            let (name, measured, limit) = (&bound.name, bound.measured, bound.limit);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{verdict}: {name}: {measured:.2}, at most {limit:.2}");
        }
        let _ = writeln!(text, "written to {}", path.display());
        greenlight::cli::print(&text).map_err(|failure| io::Error::other(failure.to_string()))?;
        Ok(self
            .bounds
            .iter()
            .all(|bound| bound.is_met() || bound.kind == BoundKind::Aim))
    }
}

/// A table with a head; printed in Markdown, so that it can go into a document as it is.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self {
            head: head.map(ToOwned::to_owned).to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, which has as many cells as there are columns.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.head.len(), "a row has as many cells as the head");
        self.rows.push(cells.into());
    }

    /// The table in Markdown.
    pub(crate) fn render(&self) -> String {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let widths: Vec<_> = (0..self.head.len())
            .map(|column| all().map(|row| row[column].chars().count()).max())
            .map(|width| width.unwrap_or(0))
            .collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths);
            let cells: Vec<_> = cells
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
        let mut text = line(&self.head) + &line(&rule);
        text.extend(self.rows.iter().map(line));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up_and_is_markdown() {
        let mut table = Table::new(["what", "n"]);
        table.row(["a longer one".to_owned(), "7".to_owned()]);
        assert_eq!(
            table.render(),
            "| what         | n |\n| ------------ | - |\n| a longer one | 7 |\n"
        );
    }

    #[test]
    fn a_bound_that_could_not_be_measured_is_not_met() {
        assert!(bound(1.0).is_met());
        assert!(!bound(1.01).is_met());
        assert!(!bound(f64::NAN).is_met());
    }

    #[test]
    fn only_a_required_bound_makes_a_report_fail() {
        let dir = tempfile::tempdir().expect("a folder");
        let published = |kind| {
            let missed = Bound { kind, ..bound(2.0) };
            let report = Report::new("test", vec![missed], ());
            report.publish(&Table::new(["none"]), dir.path())
        };
        assert!(!published(BoundKind::Required).expect("a good disk"));
        assert!(published(BoundKind::Aim).expect("a good disk"));
        let written = std::fs::read_to_string(dir.path().join("test.json"));
        assert!(
            written
                .expect("it was written")
                .contains("\"measured\": 2.0")
        );
    }

    fn bound(measured: f64) -> Bound {
        Bound {
            name: "a bound".to_owned(),
            limit: 1.0,
            measured,
            kind: BoundKind::Required,
        }
    }
}
