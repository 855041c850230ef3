//! The receipt as people read it: what happened, on every instance, and whether it bears out what
//! was promised.
//!
//! Each instance's times are shown from its own hold, on its own clock: nothing here compares
//! the clocks of two machines.

use super::{CutOverReceipt, InstanceReceipt, Receipt, Statement};
use greenlight_protocol::{Direction, InstanceId, Outcome, ServiceName};
use greenlight_shell::clock::utc;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

/// What the table of a cut-over shows, each instance on its own clock.
pub(super) const COLUMNS: [&str; 10] = [
    "instance",
    "service",
    "last to old",
    "opened",
    "first to new",
    "held",
    "sent again",
    "failed",
    "shed",
    "cut off by the drain",
];

impl Receipt {
    /// The receipt as text. Its claims are those that [`verify`](super::verify()) judges.
    pub fn render(&self) -> String {
        self.printable().text()
    }

    /// Of a receipt that is printable.
    fn text(&self) -> String {
        let mut text = String::new();
        let mut line =
            |add: &str| writeln!(text, "{}", add.trim_end()).expect("a string takes all");
        line(&format!("deployment {}", self.deployment));
        line(&format!("  {}", self.headline()));
        line(&format!(
            "  asked by {} at {}",
            self.requested_by,
            utc(self.started_ms)
        ));
        let statement = Statement::of(self);
        for (cut_over, stated) in self.cut_overs.iter().zip(&statement.cut_overs) {
            line("");
            line(&self.headline_of(cut_over));
            if let Some(text) = cut_over.aligned_text() {
                line(&format!("  {text}"));
            }
            for text in cut_over.window_lines() {
                line(&format!("  {text}"));
            }
            for row in cut_over.table() {
                line(&format!("  {row}"));
            }
            for (name, instance) in &cut_over.instances {
                if let Some(problem) = &instance.problem {
                    line(&format!("  `{name}`: {}", indented(problem)));
                }
            }
            for check in stated.claims.iter().filter(|check| !check.holds) {
                line(&format!("  {}", check.complaint()));
            }
        }
        line("");
        let borne_out = statement.claims().filter(|check| check.holds).count();
        line(&format!(
            "{borne_out} of {} claims borne out",
            statement.claims().count()
        ));
        for check in statement.claims.iter().filter(|check| !check.holds) {
            line(&format!("  {}", check.complaint()));
        }
        text
    }

    pub(super) fn headline(&self) -> String {
        let changes = self.releases.iter().map(|(service, to)| {
            let from = self.previous.get(service);
            let from = from.map_or_else(String::new, |from| format!("{from} -> "));
            format!("{service} {from}{to}")
        });
        let removed = self.removed.iter().map(|service| {
            let from = self.previous.get(service);
            let from = from.map_or_else(String::new, |from| format!(" (was {from})"));
            format!("{service} removed{from}")
        });
        let changes: Vec<_> = changes.chain(removed).collect();
        let took = self.finished_ms.map(|finished| {
            let took = Duration::from_millis(finished.saturating_sub(self.started_ms));
            format!(" after {:.1} s", took.as_secs_f64())
        });
        let outcome = match &self.outcome {
            None => "under way".to_owned(),
            Some(Outcome::Promoted) => "promoted".to_owned(),
            Some(outcome) => indented(&outcome.to_string()),
        };
        format!(
            "{}: {outcome}{}",
            changes.join(", "),
            took.unwrap_or_default()
        )
    }

    pub(super) fn headline_of(&self, cut_over: &CutOverReceipt) -> String {
        let direction = match cut_over.direction {
            Direction::Forward => self.aim(),
            Direction::Back => "back to the old release".to_owned(),
        };
        format!("cut-over {} {direction}{}", cut_over.epoch, cut_over.told())
    }

    /// What its cut-over forward was to bring.
    fn aim(&self) -> String {
        let versions: BTreeSet<_> = self.releases.values().collect();
        let versions: Vec<_> = versions.iter().map(|label| format!("`{label}`")).collect();
        let removed: Vec<_> = self
            .removed
            .iter()
            .map(|name| format!("`{name}`"))
            .collect();
        match (versions.is_empty(), removed.is_empty()) {
            (true, _) => format!("that removes {}", removed.join(", ")),
            (false, true) => format!("to {}", versions.join(", ")),
            (false, false) => format!("to {}, without {}", versions.join(", "), removed.join(", ")),
        }
    }
}

impl CutOverReceipt {
    fn told(&self) -> String {
        let mut text = String::new();
        if let Some(reason) = &self.aborted {
            write!(text, ", aborted: {}", first_line(reason)).expect("a string takes all");
        }
        if let Some(reason) = &self.reason {
            write!(text, ", because {}", first_line(reason)).expect("a string takes all");
        }
        if self.recovered {
            text.push_str("; the server died during it, so the order of its messages is not known");
        }
        if let (None, Some(hold)) = (&self.aligned, self.hold_ms()) {
            let sync = self
                .commit_sync_us
                .map_or(0.0, |us| Duration::from_micros(us).as_secs_f64() * 1e3);
            write!(
                text,
                ": hold at most {hold:.1} ms (the commit's fsync {sync:.1} ms of it), {} held, longest \
                 wait {:.1} ms",
                self.held(),
                Duration::from_micros(self.max_held_us()).as_secs_f64() * 1e3
            )
            .expect("a string takes all");
        }
        text
    }

    fn table(&self) -> Vec<String> {
        let rows = self.rows();
        if rows.is_empty() {
            return Vec::new();
        }
        let head = COLUMNS.map(ToOwned::to_owned);
        std::iter::once(&head).chain(&rows).map(aligned).collect()
    }

    /// The cells of the table, one row for each service of each instance.
    pub(super) fn rows(&self) -> Vec<[String; 10]> {
        let instances = self.instances.iter();
        instances.flat_map(|(name, i)| i.rows(name)).collect()
    }
}

fn aligned(cells: &[String; 10]) -> String {
    let [
        instance,
        service,
        old,
        opened,
        new,
        held,
        again,
        failed,
        shed,
        drain,
    ] = cells;
    format!(
        "{instance:<16} {service:<12} {old:>12} {opened:>10} {new:>13} {held:>6} {again:>10} \
         {failed:>7} {shed:>5}  {drain}"
    )
}

impl InstanceReceipt {
    fn rows(&self, name: &InstanceId) -> Vec<[String; 10]> {
        let none = BTreeMap::new();
        let services = self.gate.as_ref().map_or(&none, |gate| &gate.services);
        let row = |(service, seen): (&ServiceName, &greenlight_protocol::ServiceEvidence)| {
            let held_at = seen.held_at_ns;
            let from_hold = |at: Option<u64>| match (at, held_at) {
                (Some(at), Some(held)) => signed(held, at),
                (Some(_), None) | (None, _) => "-".to_owned(),
            };
            let drained = self.retired.map_or_else(
                || "not yet drained".to_owned(),
                |left| match (left.requests, left.streams, left.upgrades) {
                    (0, 0, 0) => "nothing".to_owned(),
                    (requests, streams, upgrades) => {
                        format!("{requests} requests, {streams} streams, {upgrades} upgraded")
                    }
                },
            );
            let expired = match seen.expired {
                true => "; the gate's deadline passed",
                false => "",
            };
            [
                name.0.clone(),
                service.0.clone(),
                from_hold(seen.last_admission_old_ns),
                from_hold(seen.opened_at_ns),
                from_hold(seen.first_admission_new_ns),
                seen.held.to_string(),
                seen.retried.to_string(),
                seen.failed.to_string(),
                seen.shed.to_string(),
                format!("{drained}{expired}"),
            ]
        };
        services.iter().map(row).collect()
    }
}

/// The time from one moment to another, in milliseconds, with its sign.
fn signed(from: u64, to: u64) -> String {
    let apart = Duration::from_nanos(to.abs_diff(from)).as_secs_f64() * 1e3;
    let sign = if to < from { '-' } else { '+' };
    format!("{sign}{apart:.2} ms")
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// What has several lines keeps them, under what they belong to.
fn indented(text: &str) -> String {
    text.replace('\n', "\n      ")
}

#[cfg(test)]
mod tests {
    use super::super::example::receipt;
    use greenlight_protocol::{Direction, DrainEvidence};

    #[test]
    fn each_claim_that_verify_judges_is_counted_and_one_that_fails_is_shown() {
        let mut receipt = receipt();
        assert!(receipt.render().contains("14 of 14 claims borne out"));
        let cut_over = &mut receipt.cut_overs[0];
        cut_over.direction = Direction::Back;
        let a = cut_over.instances.get_mut(&"a".into());
        a.expect("it is there").retired = Some(DrainEvidence {
            requests: 3,
            ..DrainEvidence::default()
        });

        for text in [receipt.render(), receipt.summary()] {
            for claim in [
                "`a` cut nothing off when it stopped the old release",
                "the deployment ended as its cut-overs did",
            ] {
                let line = text.lines().find(|line| line.contains(claim));
                let line = line.expect("it is shown");
                assert!(line.contains("NOT BORNE OUT"), "{line}");
            }
        }
        assert!(receipt.render().contains("12 of 14 claims borne out"));
    }

    #[test]
    fn text_of_others_neither_begins_a_line_nor_moves_the_cursor() {
        let fake = "\n14 of 14 claims borne out\u{1b}[2K";
        let mut receipt = receipt();
        receipt.requested_by.push_str(fake);
        receipt.releases = [("shop".into(), format!("v2{fake}"))].into();
        let cut_over = &mut receipt.cut_overs[0];
        let mut a = cut_over.instances.remove(&"a".into());
        let instance = a.as_mut().expect("it is there");
        instance.held_order = None;
        instance.problem = Some(format!("it did not start{fake}"));
        let name = format!("a{fake}").as_str().into();
        cut_over.instances.insert(name, a.expect("it is there"));

        let rendered = receipt.render();
        for text in [&rendered, &receipt.summary()] {
            assert!(!text.contains('\u{1b}'), "{text}");
        }
        let faked = rendered.lines().filter(|line| line.starts_with("14 of"));
        assert_eq!(faked.count(), 0, "{rendered}");
        assert!(rendered.contains(r"NOT SHOWN: `a\n14 of"), "{rendered}");
    }
}
