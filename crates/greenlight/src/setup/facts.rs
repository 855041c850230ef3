//! The facts about a machine, collected by one script that changes nothing.

use super::units::ALL;
use super::{INSTANCE_STATE, PROGRAM, SERVER_STATE, SERVER_USER, UNITS, USER};
use std::collections::BTreeMap;

/// The facts about a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts(BTreeMap<String, String>);

impl Facts {
    /// The script whose output [`Facts::read`] reads.
    pub fn script() -> String {
        let units = ALL.join(" ");
        let files = ALL.map(|unit| format!("{UNITS}/{unit}")).join(" ");
        let identity = format!("{INSTANCE_STATE}/identity");
        format!(
            r#"set +e
say() {{ printf '%s\t%s\n' "$1" "$2"; }}
sum() {{ sha256sum < "$1" | cut -d ' ' -f 1; }}
say machine "$(uname -m)"
say cores "$(nproc)"
say systemd "$(systemctl --version | awk 'NR == 1 {{ print $2 }}')"
for user in {USER} {SERVER_USER}; do id -u $user > /dev/null 2>&1 && say "user $user" yes; done
for group in docker; do getent group $group > /dev/null && say "group $group" yes; done
for file in {PROGRAM} {files} {identity}/ca.pem {SERVER_STATE}/ca.pem; do
    [ -f "$file" ] && say "file $file" "$(sum "$file")"
done
[ -f {identity}/role ] && say role "$(cat {identity}/role)"
for unit in {units}; do
    say "enabled $unit" "$(systemctl is-enabled $unit 2> /dev/null)"
    say "active $unit" "$(systemctl is-active $unit 2> /dev/null)"
    process=$(systemctl show --property MainPID --value $unit 2> /dev/null)
    if [ "${{process:-0}}" -gt 0 ]; then
        say "program $unit" "$(sum /proc/$process/exe)"
        say "command $unit" "$(tr '\0' ' ' < /proc/$process/cmdline)"
    fi
done
exit 0
"#
        )
    }

    /// Reads what the script printed.
    pub fn read(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| line.split_once('\t'));
        let known = lines.map(|(key, value)| (key.to_owned(), value.trim().to_owned()));
        Self(known.collect())
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// What `uname -m` says.
    pub fn machine(&self) -> &str {
        self.get("machine").unwrap_or("unknown")
    }

    /// Its processors.
    pub fn cores(&self) -> usize {
        let cores = self.get("cores").and_then(|cores| cores.parse().ok());
        cores.unwrap_or(1)
    }

    /// The version of systemd, if it is installed.
    pub fn systemd(&self) -> Option<u32> {
        self.get("systemd")?.parse().ok()
    }

    /// Whether a user exists.
    pub fn has_user(&self, name: &str) -> bool {
        self.get(&format!("user {name}")).is_some()
    }

    /// Whether a group exists.
    pub fn has_group(&self, name: &str) -> bool {
        self.get(&format!("group {name}")).is_some()
    }

    /// The SHA-256 of a file, if it exists.
    pub fn digest(&self, path: &str) -> Option<&str> {
        self.get(&format!("file {path}"))
    }

    /// Whether a unit starts with the machine.
    pub fn is_enabled(&self, unit: &str) -> bool {
        self.get(&format!("enabled {unit}")) == Some("enabled")
    }

    /// Whether a unit runs.
    pub fn is_active(&self, unit: &str) -> bool {
        self.get(&format!("active {unit}")) == Some("active")
    }

    /// The SHA-256 of the program that runs as this unit.
    pub fn program_of(&self, unit: &str) -> Option<&str> {
        self.get(&format!("program {unit}"))
    }

    /// The command line of what runs as this unit.
    pub fn command_of(&self, unit: &str) -> Option<&str> {
        self.get(&format!("command {unit}"))
    }

    /// The role in the instance's certificate.
    pub fn role(&self) -> Option<&str> {
        self.get("role")
    }
}
