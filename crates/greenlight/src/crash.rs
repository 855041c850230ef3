//! Named crash points around every effect, so that a test can end the process at each of them.
//!
//! `GREENLIGHT_CRASH_AT=3` aborts the process when the third point is passed;
//! `GREENLIGHT_CRASH_COUNT=FILE` writes the points that were passed, one name a line, so that a
//! test can enumerate them. Without either variable a point costs one load of a static.

use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

struct Plan {
    at: Option<u64>,
    names: Option<std::fs::File>,
    passed: AtomicU64,
}

static PLAN: OnceLock<Option<Plan>> = OnceLock::new();

/// Passes a point. `role` and `name` tell a reader of the enumeration where it is.
pub fn point(role: &str, name: &str) {
    let Some(plan) = PLAN.get_or_init(read_plan) else {
        return;
    };
    let number = plan.passed.fetch_add(1, Ordering::SeqCst) + 1;
    if let Some(mut file) = plan.names.as_ref() {
        // An enumeration that cannot be written makes its test fail, which is loud enough.
        let _ = writeln!(file, "{number} {role} {name}");
    }
    if plan.at == Some(number) {
        std::process::abort();
    }
}

fn read_plan() -> Option<Plan> {
    let at = std::env::var("GREENLIGHT_CRASH_AT")
        .ok()
        .and_then(|text| text.parse().ok());
    let names = std::env::var_os("GREENLIGHT_CRASH_COUNT").and_then(|path| {
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .ok()
    });
    (at.is_some() || names.is_some()).then(|| Plan {
        at,
        names,
        passed: AtomicU64::new(0),
    })
}
