//! Failpoints: named points around every effect of server and agent, so that a test can end the
//! process at each of them, as `kill -9` would.
//!
//! `GREENLIGHT_FAILPOINT_DIR` names a folder. There a test writes `ROLE.plan`, one line: the number
//! of its run, then `count`, `kill POINT` or `pause POINT`. The process appends the points it
//! passes to `ROLE.passed`. When it reaches the point of its plan it removes the plan, so that this
//! happens once only, writes `ROLE.reached`, and kills or pauses itself. A paused process continues
//! when it is sent SIGCONT and `ROLE.reached` was removed.
//!
//! A point is called `EFFECT#OCCURRENCE before` or `… after`, counted anew for every run. Without
//! the variable a point costs one load of a static.

use parking_lot::Mutex;
use rustix::process::{Signal, getpid, kill_process};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// Work that was handed to another task needs a moment to have its effect; a crash after it
/// is only then different from a crash before.
const LINGER: Duration = Duration::from_millis(30);

/// How often a thread looks whether it may go on from where it was paused.
const LOOK_EVERY: Duration = Duration::from_millis(1);

static POINTS: OnceLock<Option<Points>> = OnceLock::new();

struct Points {
    dir: PathBuf,
    role: String,
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    plan: String,
    occurrences: BTreeMap<String, u32>,
}

/// An effect that is being carried out.
#[must_use = "the point after the effect is passed with `after`"]
pub struct Failpoint(Option<(&'static Points, String)>);

/// Names this process, for example `agent-b`. Effects before this call are no failpoints.
pub fn name_role(role: &str) {
    let points = || {
        let dir = std::env::var_os("GREENLIGHT_FAILPOINT_DIR")?;
        Some(Points {
            dir: dir.into(),
            role: role.to_owned(),
            counted: Mutex::default(),
        })
    };
    POINTS.get_or_init(points);
}

/// Whether a test wants to see every effect separately.
pub fn is_watched() -> bool {
    points().is_some()
}

/// Passes the point before an effect.
pub fn before(effect: impl FnOnce() -> String) -> Failpoint {
    let Some(points) = points() else {
        return Failpoint(None);
    };
    let name = points.count(&effect());
    points.pass(&format!("{name} before"), Duration::ZERO);
    Failpoint(Some((points, name)))
}

impl Failpoint {
    /// Passes the point after the effect.
    pub fn after(self) {
        if let Some((points, name)) = self.0 {
            points.pass(&format!("{name} after"), Duration::ZERO);
        }
    }

    /// Passes the point after an effect that another task carries out.
    pub fn after_a_moment(self) {
        if let Some((points, name)) = self.0 {
            points.pass(&format!("{name} after"), LINGER);
        }
    }
}

/// The name of an enum's variant.
pub fn variant(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    let end = text.find(|c: char| !c.is_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}

fn points() -> Option<&'static Points> {
    POINTS.get().and_then(Option::as_ref)
}

impl Points {
    fn file(&self, ending: &str) -> PathBuf {
        self.dir.join(format!("{}.{ending}", self.role))
    }

    fn plan(&self) -> Option<String> {
        let text = fs::read_to_string(self.file("plan")).ok()?;
        Some(text.trim().to_owned())
    }

    /// The effect with the number of its occurrence in this run.
    fn count(&self, effect: &str) -> String {
        let plan = self.plan().unwrap_or_default();
        let mut counted = self.counted.lock();
        if counted.plan != plan {
            counted.plan = plan;
            counted.occurrences.clear();
        }
        let number = counted.occurrences.entry(effect.to_owned()).or_default();
        *number += 1;
        format!("{effect}#{number}")
    }

    fn pass(&self, point: &str, linger: Duration) {
        let Some(plan) = self.plan() else {
            return;
        };
        let mut words = plan.splitn(3, ' ');
        let (_run, action, wanted) = (words.next(), words.next(), words.next());
        append(&self.file("passed"), point);
        if wanted != Some(point) {
            return;
        }
        // The plan is carried out by the one that removes it: this thread, another one, or the
        // test, which then knows that it will not be.
        if fs::remove_file(self.file("plan")).is_err() {
            return;
        }
        append(&self.file("reached"), point);
        std::thread::sleep(linger);
        let signal = match action {
            Some("kill") => Signal::KILL,
            _ => Signal::STOP,
        };
        kill_process(getpid(), signal).expect("a process may signal itself");
        // Another thread may be the one that takes the signal, at any time later; this one must not
        // continue before.
        while self.file("reached").exists() {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn append(path: &Path, line: &str) {
    let file = fs::File::options().create(true).append(true).open(path);
    // If this cannot be written, the test fails.
    let _ = file.and_then(|mut file| writeln!(file, "{line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_called_by_its_name_alone() {
        assert_eq!(variant(&Some(3)), "Some");
        assert_eq!(variant(&Option::<u8>::None), "None");
    }

    #[test]
    fn occurrences_are_counted_anew_for_every_plan() {
        let dir = tempfile::tempdir().expect("a folder");
        let points = Points {
            dir: dir.path().to_owned(),
            role: "agent-b".to_owned(),
            counted: Mutex::default(),
        };
        fs::write(points.file("plan"), "1 count\n").expect("a plan");
        assert_eq!(points.count("persist Armed"), "persist Armed#1");
        assert_eq!(points.count("persist Armed"), "persist Armed#2");
        assert_eq!(points.count("report Armed"), "report Armed#1");
        fs::write(points.file("plan"), "2 kill report Armed#1 after\n").expect("a plan");
        assert_eq!(points.count("persist Armed"), "persist Armed#1");
        points.pass("persist Armed#1 before", Duration::ZERO);
        let passed = fs::read_to_string(points.file("passed")).expect("it was passed");
        assert_eq!(passed, "persist Armed#1 before\n");
    }
}
