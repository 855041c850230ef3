//! The barrier as a picture: a Gantt chart in Mermaid, which GitHub draws.
//!
//! It is on the server's clock alone: when it asked, when each answer came in, when the decision
//! was durable. The line of the commit crosses every instance while it holds; that is the point.

use super::{CutOverReceipt, InstanceReceipt};
use greenlight_protocol::InstanceId;
use std::fmt::Write as _;

/// A picture of more instances is not read, and Mermaid refuses long texts.
const MOST_INSTANCES: usize = 20;
/// A cut-over that took less is drawn in microseconds.
const IN_MICROSECONDS_NS: u64 = 20_000_000;
/// What Mermaid leaves for the names unless told otherwise, and about the width of a letter.
const PADDING_PX: usize = 75;
const LETTER_PX: usize = 8;

/// The picture as Markdown; nothing if the hold was never asked for.
pub(super) fn timeline(cut_over: &CutOverReceipt) -> Option<String> {
    let asked = cut_over.hold_sent_ns?;
    let mut shown: Vec<_> = cut_over.instances.iter().collect();
    // A reader looks for the instances that delayed the others.
    shown.sort_by_key(|(_, instance)| std::cmp::Reverse(last_ns(instance).unwrap_or(u64::MAX)));
    shown.truncate(MOST_INSTANCES);
    shown.sort_by_key(|(name, _)| *name);

    let known = cut_over.instances.values().filter_map(last_ns);
    let end = known.chain(cut_over.committed_ns).max().unwrap_or(asked);
    let axis = Axis::new(asked, end);
    let longest = shown.iter().map(|(name, _)| name.0.chars().count()).max();
    let padding = PADDING_PX.max(LETTER_PX * (longest.unwrap_or(0) + 2));
    let mut text = format!(
        "```mermaid\n%%{{init: {{\"gantt\": {{\"leftPadding\": {padding}}}}}}}%%\ngantt\n    title {}\n    \
         dateFormat x\n    axisFormat %Q\n",
        axis.title(shown.len(), cut_over.instances.len())
    );
    for (name, instance) in shown {
        axis.section(&mut text, name, instance, end);
    }
    if let Some(committed) = cut_over.committed_ns {
        let sync = cut_over.commit_sync_us.unwrap_or(0).saturating_mul(1000);
        let began = axis.at(committed.saturating_sub(sync).max(asked));
        let committed = axis.at(committed);
        line(&mut text, "section server");
        if began < committed {
            line(&mut text, &format!("commit :{began}, {committed}"));
        }
        line(&mut text, &format!("committed :vert, {committed}, 0ms"));
    }
    text.push_str("```\n");
    Some(text)
}

/// The last that was heard of an instance.
fn last_ns(instance: &InstanceReceipt) -> Option<u64> {
    instance.switched_ns.or(instance.held_ns)
}

/// The horizontal axis. Mermaid takes its numbers for milliseconds since 1970 and shows them as
/// they are; the title says what they are.
struct Axis {
    asked: u64,
    unit_ns: u64,
}

impl Axis {
    fn new(asked: u64, end: u64) -> Self {
        let unit_ns = match end.saturating_sub(asked) < IN_MICROSECONDS_NS {
            true => 1_000,
            false => 1_000_000,
        };
        Self { asked, unit_ns }
    }

    fn at(&self, ns: u64) -> u64 {
        ns.saturating_sub(self.asked) / self.unit_ns
    }

    fn title(&self, shown: usize, all: usize) -> String {
        let unit = match self.unit_ns {
            1_000 => "microseconds",
            _ => "milliseconds",
        };
        let which = match shown < all {
            true => format!(", the slowest {shown} of {all} instances"),
            false => String::new(),
        };
        format!("The barrier, in {unit} since the hold was asked for{which}")
    }

    fn section(&self, text: &mut String, name: &InstanceId, instance: &InstanceReceipt, end: u64) {
        line(text, &format!("section {name}"));
        let Some(held) = instance.held_ns else {
            let end = self.at(end).max(1);
            line(text, &format!("asked, no answer :crit, 0, {end}"));
            return;
        };
        // A bar of no width is not seen.
        let held = self.at(held).max(1);
        line(text, &format!("asked :done, 0, {held}"));
        match instance.switched_ns {
            Some(switched) => {
                let switched = self.at(switched).max(held + 1);
                line(text, &format!("held :active, {held}, {switched}"));
            }
            None => line(text, &format!("held :milestone, {held}, 0ms")),
        }
    }
}

fn line(text: &mut String, add: &str) {
    writeln!(text, "    {add}").expect("a string takes all");
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenlight_protocol::{Direction, Epoch};

    #[test]
    fn the_commit_is_drawn_across_all_that_held() {
        let picture = timeline(&cut_over(2, |index| InstanceReceipt {
            held_ns: Some(2_000_000 + index * 30_000_000),
            switched_ns: Some(40_000_000 + index * 5_000_000),
            ..InstanceReceipt::default()
        }));

        assert_eq!(
            picture.expect("the hold was asked for"),
            "```mermaid\n\
             %%{init: {\"gantt\": {\"leftPadding\": 75}}}%%\n\
             gantt\n\
             \x20   title The barrier, in milliseconds since the hold was asked for\n\
             \x20   dateFormat x\n\
             \x20   axisFormat %Q\n\
             \x20   section i-00\n\
             \x20   asked :done, 0, 1\n\
             \x20   held :active, 1, 39\n\
             \x20   section i-01\n\
             \x20   asked :done, 0, 31\n\
             \x20   held :active, 31, 44\n\
             \x20   section server\n\
             \x20   commit :33, 35\n\
             \x20   committed :vert, 35, 0ms\n\
             ```\n"
        );
    }

    #[test]
    fn an_instance_that_did_not_answer_is_seen_at_once() {
        let mut aborted = cut_over(2, |index| InstanceReceipt {
            held_ns: (index == 0).then_some(6_000_000),
            ..InstanceReceipt::default()
        });
        aborted.committed_ns = None;

        let picture = timeline(&aborted).expect("the hold was asked for");

        for part in [
            "in microseconds",
            "held :milestone, 5000, 0ms",
            "no answer :crit, 0, 5000",
        ] {
            assert!(picture.contains(part), "`{part}` is not in {picture}");
        }
        assert!(!picture.contains("committed"), "{picture}");
    }

    #[test]
    fn of_a_large_fleet_only_the_slowest_are_drawn() {
        let picture = timeline(&cut_over(99, |index| InstanceReceipt {
            held_ns: Some(index * 1_000_000),
            ..InstanceReceipt::default()
        }));
        let picture = picture.expect("the hold was asked for");

        assert_eq!(picture.matches("section i-").count(), MOST_INSTANCES);
        assert!(picture.contains("section i-98\n"), "{picture}");
        assert!(
            picture.contains("the slowest 20 of 99 instances"),
            "{picture}"
        );
    }

    fn cut_over(instances: u64, each: impl Fn(u64) -> InstanceReceipt) -> CutOverReceipt {
        let instances = 0..instances;
        CutOverReceipt {
            hold_sent_ns: Some(1_000_000),
            committed_ns: Some(36_000_000),
            commit_sync_us: Some(2_000),
            instances: instances
                .map(|index| (InstanceId(format!("i-{index:02}")), each(index)))
                .collect(),
            ..CutOverReceipt::new(Epoch(1), Direction::Forward)
        }
    }
}
