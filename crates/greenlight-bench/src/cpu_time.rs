//! Which processes are below one, and how much CPU they have used, from `/proc`.

use std::io;
use std::time::Duration;

/// The part of `/proc/PID/stat` that is wanted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    pid: u32,
    parent: u32,
    /// User and system time, in ticks of the system's clock.
    ticks: u64,
}

/// CPU used so far by `pid` and every process below it.
pub(crate) fn of_tree(pid: u32) -> io::Result<Duration> {
    let ticks = sum_of_tree(pid, &all()?).ok_or(io::ErrorKind::NotFound)?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_micros(ticks * 1_000_000 / per_second))
}

/// Every process below `pid`, itself not among them.
pub(crate) fn below(pid: u32) -> io::Result<Vec<u32>> {
    Ok(descendants(pid, &all()?))
}

fn all() -> io::Result<Vec<Stat>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        // A process may end while the list is read.
        let text = entry.and_then(|entry| std::fs::read_to_string(entry.path().join("stat")));
        all.extend(text.ok().and_then(|text| parse(&text)));
    }
    Ok(all)
}

fn descendants(root: u32, all: &[Stat]) -> Vec<u32> {
    let mut found = Vec::new();
    for child in all.iter().filter(|s| s.parent == root && s.pid != root) {
        found.push(child.pid);
        found.extend(descendants(child.pid, all));
    }
    found
}

/// `None` if there is no such process.
fn sum_of_tree(root: u32, all: &[Stat]) -> Option<u64> {
    let mut sum = all.iter().find(|stat| stat.pid == root)?.ticks;
    let children = all.iter().filter(|s| s.parent == root && s.pid != root);
    for child in children {
        sum += sum_of_tree(child.pid, all).unwrap_or(0);
    }
    Some(sum)
}

/// The program's name is in brackets and may contain anything, also brackets and spaces: the
/// fields are counted from the last bracket.
fn parse(text: &str) -> Option<Stat> {
    let (pid, rest) = text.split_once(" (")?;
    let (_, fields) = rest.rsplit_once(") ")?;
    let fields: Vec<_> = fields.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        pid: pid.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        ticks: number(11)? + number(12)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_found_behind_a_name_with_brackets() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194304 1 2 3 4 150 50 9 9 20 0 1 0 100 0 0";
        let expected = Stat {
            pid: 42,
            parent: 7,
            ticks: 200,
        };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(parse("42 (cut off"), None);
    }

    #[test]
    fn a_tree_has_the_time_of_its_children_and_of_nobody_else() {
        let stat = |pid, parent, ticks| Stat { pid, parent, ticks };
        let all = [
            stat(1, 0, 5),
            stat(2, 1, 10),
            stat(3, 2, 20),
            stat(9, 1, 99),
        ];
        assert_eq!(sum_of_tree(2, &all), Some(30));
        assert_eq!(sum_of_tree(7, &all), None);
        assert_eq!(descendants(1, &all), [2, 3, 9]);
    }

    #[test]
    fn this_process_has_used_some() {
        let before = of_tree(std::process::id()).expect("this process runs");
        let mut after = before;
        while after == before {
            after = of_tree(std::process::id()).expect("this process runs");
        }
        assert!(after > before);
    }
}
