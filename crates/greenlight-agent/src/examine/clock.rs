//! What keeps the clock of this machine: receipts and histories are read by it; nothing is decided by
//! it.

use super::procfs;
use greenlight_link::doctor::Finding;
use std::path::Path;

/// What keeps a clock in time, by the name of its process.
const KEEPERS: [&str; 5] = ["chronyd", "ntpd", "openntpd", "systemd-timesyn", "ptp4l"];

/// Whether something keeps this machine's clock in time.
pub(super) fn keeper(root: &Path) -> Finding {
    let synchronised = root.join("run/systemd/timesync/synchronized").exists();
    let names = procfs::all().into_iter().filter_map(procfs::name);
    let mut names = names.filter(|name| KEEPERS.contains(&name.as_str()));
    match (names.next(), synchronised) {
        (Some(name), _) => Finding::ok("clock", format!("`{name}` keeps it right")),
        (None, true) => Finding::ok("clock", "it was synchronised since the start"),
        (None, false) => Finding::note(
            "clock",
            "found nothing that keeps it right",
            "install chrony, unless the machine's host keeps its clock",
        ),
    }
}
