//! The comparison in the documentation: the plot as a file, and the table in the page that
//! explains it, between two marks.

use crate::Outcome;
use crate::report::{Machine, Table};
use std::path::Path;

const PAGE: &str = "comparison.md";
const PLOT: &str = "comparison.svg";
const BEGIN: &str = "<!-- written by the benchmark: from here -->\n";
const END: &str = "<!-- to here -->\n";

pub(super) fn write(
    docs: &Path,
    table: &Table,
    plot: &str,
    finished: &str,
    machine: &Machine,
) -> Outcome<()> {
    std::fs::write(docs.join(PLOT), plot)?;
    let path = docs.join(PAGE);
    let page = std::fs::read_to_string(&path)
        .map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
    // A vendor's suffix of the version does not help a reader.
    let kernel = machine.kernel.split('-').next().unwrap_or_default();
    let written = format!(
        "{}\nTaken on {finished}, {} cores, Linux {kernel}.\n",
        table.render(),
        machine.cores
    );
    let page = between(&page, &written)
        .ok_or_else(|| format!("`{}` has lost the marks of the table", path.display()))?;
    Ok(std::fs::write(path, page)?)
}

fn between(page: &str, written: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{written}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_written() {
        let page = format!("before\n{BEGIN}old\n{END}after\n");
        let next = between(&page, "new\n").expect("it has marks");
        assert_eq!(next, format!("before\n{BEGIN}new\n{END}after\n"));
        assert_eq!(between("no marks", "new"), None);
    }
}
