//! A role's crash points: enumerated by counting runs, and made to happen at one of them.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// How long a run may take to get to a point.
const PATIENCE: Duration = Duration::from_secs(20);

/// The crash points of one role.
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

    /// Waits until the point of the plan was reached.
    pub(crate) async fn reached(&self) {
        let deadline = Instant::now() + PATIENCE;
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
