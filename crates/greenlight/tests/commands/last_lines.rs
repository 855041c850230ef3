//! What processes wrote last, for whoever has to find out why a test failed.

use std::path::Path;

/// How many lines of each log are shown.
const LINES: usize = 40;

/// The last lines of every log in a folder.
pub(crate) fn of(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let logs = entries.map(|entry| entry.path());
    let logs = logs.filter(|path| path.extension().is_some_and(|ending| ending == "log"));
    let last = logs.map(|path| {
        let bytes = std::fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LINES)..].join("\n");
        format!("--- {}\n{last}\n", path.display())
    });
    last.collect()
}
