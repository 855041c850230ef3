//! `greenlight setup --remove`: the machines as they were before, except for what setup did not
//! bring: Docker with its containers, Nginx with its configuration.

use super::facts::Facts;
use super::units::{AGENT, ALL, PROXY, SERVER, SOCKET};
use super::{PROGRAM, SERVER_USER, UNITS, USER};

/// Whether anything of Greenlight is installed.
pub(super) fn is_there(facts: &Facts) -> bool {
    let mut units = ALL.iter().map(|unit| format!("{UNITS}/{unit}"));
    facts.has_user(USER)
        || facts.has_user(SERVER_USER)
        || facts.digest(PROGRAM).is_some()
        || units.any(|path| facts.digest(&path).is_some())
}

/// The script that removes it, as root.
pub(super) fn script() -> String {
    // The socket would start its service again, so it goes first.
    let units = [SOCKET, PROXY, AGENT, SERVER];
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
         for user in {USER} {SERVER_USER}; do\n\
         id -u $user > /dev/null 2>&1 && userdel $user || true\n\
         done\n",
        units = units.join(" ")
    )
}
