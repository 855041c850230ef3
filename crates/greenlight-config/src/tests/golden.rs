//! Broken files and the reports they get, side by side in `tests/golden/config`.
//!
//! After a deliberate change of the texts: `UPDATE_GOLDEN=1 cargo test -p greenlight-config golden`,
//! and read the difference.

use super::{parse, report};
use std::collections::BTreeSet;
use std::path::PathBuf;

#[test]
fn every_broken_file_gets_the_report_that_is_kept_beside_it() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();

    for entry in std::fs::read_dir(&folder).expect("the folder is part of the repository") {
        let path = entry.expect("the folder can be listed").path();
        if path.extension().is_none_or(|ending| ending != "yml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("the file is text");
        let error = parse(&text).expect_err(&format!("{} is broken", path.display()));
        let found = report(&error);
        let kept = path.with_extension("txt");
        if update {
            std::fs::write(&kept, &found).expect("the folder can be written");
        }
        if std::fs::read_to_string(&kept).unwrap_or_default() != found {
            wrong.push(format!("{}:\n{found}", path.display()));
        }
        seen.insert(kept);
    }

    assert!(
        wrong.is_empty(),
        "other reports than kept:\n{}",
        wrong.join("\n")
    );
    assert!(seen.len() >= 20, "only {} broken files", seen.len());
}
