//! Processes as `/proc` shows them: names, parents, descriptors, memory.

use std::collections::{BTreeMap, BTreeSet};

/// Parents that are followed.
const DEEPEST: usize = 32;

/// A process by its number and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) pid: i32,
    pub(super) name: String,
}

/// Every process that can be seen.
pub(super) fn all() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.collect()
}

/// The name of a process.
pub(super) fn name(pid: i32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim().to_owned())
}

/// By inode: the processes that have a socket open, as far as this one may look.
pub(super) fn holders(inodes: &BTreeSet<u64>) -> BTreeMap<u64, Vec<Named>> {
    let mut holders: BTreeMap<u64, Vec<Named>> = BTreeMap::new();
    if inodes.is_empty() {
        return holders;
    }
    for pid in all() {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd"));
        let targets = files.into_iter().flatten().filter_map(|file| {
            let target = std::fs::read_link(file.ok()?.path()).ok()?;
            let inode = target.to_str()?.strip_prefix("socket:[")?;
            inode.strip_suffix(']')?.parse::<u64>().ok()
        });
        let held: BTreeSet<_> = targets.filter(|inode| inodes.contains(inode)).collect();
        for inode in held {
            let name = name(pid).unwrap_or_default();
            holders.entry(inode).or_default().push(Named { pid, name });
        }
    }
    holders
}

/// Whether a process is another, a descendant of it, or in its group.
pub(super) fn belongs_to(pid: i32, leader: i32) -> bool {
    let mut at = pid;
    for _ in 0..DEEPEST {
        if at == leader {
            return true;
        }
        let Some((parent, group)) = parent_and_group(at) else {
            return false;
        };
        if group == leader {
            return true;
        }
        at = parent;
    }
    false
}

fn parent_and_group(pid: i32) -> Option<(i32, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in brackets and may have anything in it, brackets included.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The memory of a process and what belongs to it, in bytes.
pub(super) fn memory(leader: i32) -> u64 {
    let members = all().into_iter().filter(|pid| belongs_to(*pid, leader));
    members.filter_map(resident).sum()
}

fn resident(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    kilobytes(&status, "VmRSS:")
}

/// A figure of `/proc` that is given in kB, in bytes.
pub(super) fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(number * 1024)
}
