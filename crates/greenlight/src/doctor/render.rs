//! The document that `doctor` prints, and the same for people: what is worst first, by instance.

use greenlight_link::doctor::{Finding, Level};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// How many findings are problems.
    pub problems: usize,
    /// How many are notes.
    pub notes: usize,
    /// How many are as they should be.
    pub ok: usize,
    /// The findings: the fleet's first, then by instance, in each the worst first.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// Puts findings in order and counts them.
    pub fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by(|a, b| (&a.instance, a.level).cmp(&(&b.instance, b.level)));
        let count = |level| findings.iter().filter(|f| f.level == level).count();
        Self {
            problems: count(Level::Problem),
            notes: count(Level::Note),
            ok: count(Level::Ok),
            findings,
        }
    }

    /// The same for people. Groups with problems come first.
    pub fn render(&self) -> String {
        let groups: Vec<_> = self
            .findings
            .chunk_by(|a, b| a.instance == b.instance)
            .collect();
        let has_problem = |group: &[Finding]| group.iter().any(|f| f.level == Level::Problem);
        let (sick, well): (Vec<_>, Vec<_>) = groups.into_iter().partition(|g| has_problem(g));
        let mut text = String::new();
        let mut line = |add: &str| writeln!(text, "{add}").expect("a string takes all");
        for group in sick.into_iter().chain(well) {
            match &group[0].instance {
                Some(name) => line(&name.0),
                None => line("fleet"),
            }
            for finding in group {
                let level = match finding.level {
                    Level::Problem => "PROBLEM",
                    Level::Note => "note",
                    Level::Ok => "ok",
                };
                line(&format!(
                    "  {level:<8} {}: {}",
                    finding.check, finding.found
                ));
                if let Some(todo) = &finding.todo {
                    line(&format!("           -> {todo}"));
                }
            }
            line("");
        }
        let counted = |count: usize, one: &str| match count {
            1 => format!("1 {one}"),
            many => format!("{many} {one}s"),
        };
        line(&format!(
            "{}, {}, {} ok",
            counted(self.problems, "problem"),
            counted(self.notes, "note"),
            self.ok
        ));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenlight_protocol::InstanceId;

    #[test]
    fn problems_come_first_with_what_to_do_and_the_last_line_counts() {
        let on = |name: &str, mut finding: Finding| {
            finding.instance = Some(InstanceId(name.to_owned()));
            finding
        };
        let diagnosis = Diagnosis::new(vec![
            on("a", Finding::ok("clock", "fine")),
            on("b", Finding::ok("clock", "fine")),
            on("b", Finding::problem("port", "taken", "free it")),
            Finding::note("versions", "differ", "bring them together"),
        ]);

        assert_eq!(
            diagnosis.render(),
            "b\n  PROBLEM  port: taken\n           -> free it\n  ok       clock: fine\n\n\
             fleet\n  note     versions: differ\n           -> bring them together\n\n\
             a\n  ok       clock: fine\n\n1 problem, 1 note, 2 ok\n"
        );
    }
}
