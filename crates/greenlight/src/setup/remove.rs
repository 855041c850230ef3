//! `greenlight setup --remove`: the machines as they were before, except for what setup did not
//! bring: Docker with its containers, Nginx with its configuration.

use super::facts::Facts;
use super::units::{AGENT, ALL};
use super::{PROGRAM, UNITS, USER};

/// Whether anything of ours is there.
pub(super) fn is_there(facts: &Facts) -> bool {
    let unit = |unit: &&str| facts.digest(&format!("{UNITS}/{unit}")).is_some();
    facts.has_user() || facts.digest(PROGRAM).is_some() || ALL.iter().any(|name| unit(&name))
}

/// The script that removes it, as root.
pub(super) fn script() -> String {
    // Who starts the others goes first.
    let mut units = ALL;
    units.sort_by_key(|unit| {
        !std::path::Path::new(unit)
            .extension()
            .is_some_and(|e| e == "socket")
    });
    format!(
        "for unit in {units}; do\n\
         [ -f {UNITS}/$unit ] || continue\n\
         systemctl disable --quiet $unit\n\
         # Applications are the agent's own processes, and outlive it otherwise.\n\
         [ $unit != {AGENT} ] || systemctl kill $unit 2> /dev/null || true\n\
         systemctl stop $unit\n\
         rm -rf {UNITS}/$unit {UNITS}/$unit.d\n\
         done\n\
         systemctl daemon-reload\n\
         rm -rf /var/lib/greenlight /run/greenlight {PROGRAM}\n\
         id -u {USER} > /dev/null 2>&1 && userdel {USER} || true\n",
        units = units.join(" ")
    )
}
