//! What runs have seen, added up.

use super::oracle::Answer;
use std::collections::BTreeMap;
use std::fmt;

/// Totals over runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stats {
    pub(crate) runs: u64,
    pub(crate) steps: u64,
    pub(crate) admissions: u64,
    /// Admissions to old after a hold's deadline, as the policy allows and the gate reports.
    pub(crate) excused: u64,
    pub(crate) answers: BTreeMap<Answer, u64>,
    /// Deployments by how they ended.
    pub(crate) outcomes: BTreeMap<&'static str, u64>,
    /// Faults and rare events by name.
    counted: BTreeMap<&'static str, u64>,
}

impl Stats {
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counted.entry(what).or_default() += 1;
    }

    /// How often something was counted.
    pub(crate) fn counted(&self, what: &str) -> u64 {
        self.counted.get(what).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.steps += other.steps;
        self.admissions += other.admissions;
        self.excused += other.excused;
        add_all(&mut self.answers, &other.answers);
        add_all(&mut self.outcomes, &other.outcomes);
        add_all(&mut self.counted, &other.counted);
    }
}

fn add_all<K: Ord + Clone>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        *to.entry(key.clone()).or_default() += count;
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} seeds, {} steps", self.runs, self.steps)?;
        let (admissions, excused) = (self.admissions, self.excused);
        writeln!(f, "  admissions: {admissions}, of them excused: {excused}")?;
        writeln!(f, "  requests: {:?}", self.answers)?;
        writeln!(f, "  deployments: {:?}", self.outcomes)?;
        write!(f, "  faults: {:?}", self.counted)
    }
}
