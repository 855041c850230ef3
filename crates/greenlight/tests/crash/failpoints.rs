//! A role's failpoints: enumerated by counting runs, and made to happen at one of them.

use super::fleet::TEST_TIMEOUT;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// What an agent does only when a decision takes long.
const WHEN_LATE: [&str; 3] = ["InDoubt", "AskPeer", "AnswerPeer"];

/// The failpoints of one role.
pub(crate) struct Points {
    dir: PathBuf,
    role: String,
}

impl Points {
    pub(crate) fn new(dir: PathBuf, role: &str) -> Self {
        let role = role.to_owned();
        Self { dir, role }
    }

    /// From here on the points that are passed are written down.
    pub(crate) fn count(&self) {
        self.plan("count");
    }

    /// The process is to kill itself at the point.
    pub(crate) fn kill_at(&self, point: &str) {
        self.plan(&format!("kill {point}"));
    }

    /// The process is to stop itself at the point, and wait for SIGCONT.
    pub(crate) fn pause_at(&self, point: &str) {
        self.plan(&format!("pause {point}"));
    }

    /// Ends the plan. Whether its point was reached: then the process has killed or stopped
    /// itself, or is about to.
    pub(crate) fn withdraw(&self) -> bool {
        fs::remove_file(self.file("plan")).is_err()
    }

    /// Which points were passed, in order.
    pub(crate) fn passed(&self) -> Vec<String> {
        let passed = fs::read_to_string(self.file("passed")).unwrap_or_default();
        passed.lines().map(ToOwned::to_owned).collect()
    }

    /// Whether a point was passed.
    pub(crate) fn has_passed(&self, point: &str) -> bool {
        self.passed().iter().any(|passed| passed == point)
    }

    /// Waits until the point of the plan was reached.
    pub(crate) async fn reached(&self) {
        let deadline = Instant::now() + TEST_TIMEOUT;
        while !self.file("reached").exists() {
            let plan = fs::read_to_string(self.file("plan"));
            let passed = fs::read_to_string(self.file("passed"));
            assert!(
                Instant::now() < deadline,
                "the point was not reached: {plan:?}, {passed:?}"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Lets the process go on from the point that it has reached, once it runs again.
    pub(crate) fn leave(&self) {
        fs::remove_file(self.file("reached")).expect("it was reached");
    }

    fn plan(&self, what: &str) {
        static RUNS: AtomicU64 = AtomicU64::new(1);
        for ending in ["passed", "reached", "plan"] {
            let _ = fs::remove_file(self.file(ending));
        }
        let run = RUNS.fetch_add(1, SeqCst);
        let next = self.file("next");
        fs::write(&next, format!("{run} {what}\n")).expect("a plan");
        fs::rename(next, self.file("plan")).expect("a plan");
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.dir.join(format!("{}.{ending}", self.role))
    }
}

/// Whether every deployment that passed a point once must come by it: only what is late is said
/// again, so how often anything is said is a matter of time, and so are an agent's questions.
pub(crate) fn is_certain(point: &str) -> bool {
    point.contains("#1 ") && !WHEN_LATE.iter().any(|late| point.contains(late))
}

/// The points of two runs in one order: each that only the second has passed comes after what it
/// came after there.
pub(crate) fn merged(first: &[String], second: &[String]) -> Vec<String> {
    let mut all = first.to_vec();
    let mut next = 0;
    for point in second {
        if let Some(known) = all.iter().position(|known| known == point) {
            next = known;
        } else {
            all.insert(next, point.clone());
        }
        next += 1;
    }
    all
}

#[test]
fn what_only_a_second_run_has_passed_comes_where_it_came_there() {
    let points = |text: &str| -> Vec<_> { text.split(' ').map(ToOwned::to_owned).collect() };
    let both = merged(&points("b c e"), &points("a b d e f"));
    assert_eq!(both, points("a b d c e f"));
}

#[test]
fn what_is_said_again_or_asked_in_doubt_is_not_certain() {
    assert!(is_certain("persist Committed#1 before"));
    assert!(is_certain("SetTimer QueryDecision#1 after"));
    assert!(!is_certain("send Hold to a#2 before"));
    assert!(!is_certain("Report InDoubt#1 after"));
}
