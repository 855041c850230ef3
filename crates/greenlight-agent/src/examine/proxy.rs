//! The proxy of an instance: whether it answers, and how many connections it may still take.

use crate::front::{ProxyStatus, ProxyStatusError};
use greenlight_link::doctor::Finding;

const CHECK: &str = "proxy";
/// A request takes two descriptors, and a kept connection one or two.
const FEW: u64 = 1024;
const MODEST: u64 = 8192;

/// Descriptors of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Descriptors {
    open: u64,
    most: u64,
}

/// The findings about a proxy that was queried.
pub(super) fn check(status: &Result<ProxyStatus, ProxyStatusError>) -> Vec<Finding> {
    let proxy = match status {
        Ok(proxy) => proxy,
        Err(error) => {
            let todo = "start `greenlight proxy`, or read its log; users get no response";
            return vec![Finding::problem(CHECK, error.to_string(), todo)];
        }
    };
    let version = match proxy.version.as_str() {
        "" => "of an older version",
        version => version,
    };
    let found = format!("{version} (process {}) answers", proxy.pid);
    let mut findings = vec![Finding::ok(CHECK, found)];
    findings.push(match look_at_descriptors(proxy.pid) {
        Some(descriptors) => judge(descriptors),
        None => Finding::note(
            "file descriptors",
            format!("those of process {} cannot be counted", proxy.pid),
            "run the agent as the proxy's user",
        ),
    });
    findings
}

fn judge(Descriptors { open, most }: Descriptors) -> Finding {
    const CHECK: &str = "file descriptors";
    let found = format!("the proxy may open {most} and has {open} open");
    let todo = "raise `LimitNOFILE` in the proxy's unit, or `ulimit -n` where it is started: each \
                request takes two";
    if most < FEW || open > most / 5 * 4 {
        Finding::problem(CHECK, found, todo)
    } else if most < MODEST {
        Finding::note(CHECK, found, todo)
    } else {
        Finding::ok(CHECK, found)
    }
}

fn look_at_descriptors(pid: i32) -> Option<Descriptors> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    Some(Descriptors {
        open: u64::try_from(files.count()).unwrap_or(u64::MAX),
        most: soft_limit(&limits)?,
    })
}

fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenlight_link::doctor::Level;

    #[test]
    fn few_descriptors_and_used_up_ones_are_problems() {
        let level = |open, most| judge(Descriptors { open, most }).level;
        assert_eq!(level(10, 512), Level::Problem);
        assert_eq!(level(60_000, 65_536), Level::Problem);
        assert_eq!(level(10, 4096), Level::Note);
        assert_eq!(level(10, 65_536), Level::Ok);
    }

    #[test]
    fn the_soft_limit_is_read() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(soft_limit(limits), Some(1024));
    }
}
