//! A machine to log in to: namespaces of its own for network, files and processes, a real `sshd`,
//! and what stands in for systemd as its first process.
//!
//! Its files are this machine's with a layer of memory above them, so that whatever is installed
//! there is there only, and gone with it.

use crate::network::{Namespace, Running};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SYSTEMCTL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hosts/systemctl");
const START_TIMEOUT: Duration = Duration::from_mins(2);

/// Runs as root and as the first process of a machine: `$1` is an empty folder, `$2` the keys.
const BOOT: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=0755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
root=$1/root
for dir in sys dev; do mount --rbind /$dir $root/$dir; done
mount -t proc proc $root/proc
mount -t tmpfs -o mode=0755 tmpfs $root/run
mount -t tmpfs -o mode=1777 tmpfs $root/tmp
mkdir -p $root/run/sshd $root/root/.ssh
install -m 0755 "$3" $root/usr/bin/systemctl
install -m 0600 "$2/operator.pub" $root/root/.ssh/authorized_keys
install -m 0600 "$2/host" $root/etc/ssh/test_key
chroot $root useradd --create-home --password '*' deploy
install -d -m 0755 $root/home/deploy/.ssh
install -m 0644 "$2/operator.pub" $root/home/deploy/.ssh/authorized_keys
echo 'deploy ALL=(ALL) NOPASSWD: ALL' > $root/etc/sudoers.d/deploy
chroot $root /usr/sbin/sshd -D -e -f /dev/null -h /etc/ssh/test_key \
    -o UsePAM=no -o StrictModes=no -o PidFile=none &
exec chroot $root /usr/bin/systemctl boot
"#;

pub(crate) struct Machine {
    /// Ends with the machine, and the machine with it.
    keeper: Running,
    _namespace: Namespace,
    pub(crate) address: Ipv4Addr,
}

/// The keys of a test: its hosts', and its operator's.
pub(crate) struct Keys {
    dir: PathBuf,
}

impl Keys {
    pub(crate) fn make(dir: &Path) -> Self {
        for name in ["host", "operator"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(dir.join(name))
                .status();
            assert!(made.expect("`ssh-keygen` runs").success());
        }
        Self {
            dir: dir.to_owned(),
        }
    }

    /// Makes a host known by its key.
    pub(crate) fn know(&self, address: Ipv4Addr) {
        let path = self.known_hosts();
        let known = std::fs::read_to_string(&path).unwrap_or_default();
        let key = std::fs::read_to_string(self.dir.join("host.pub")).expect("it was made");
        std::fs::write(path, format!("{known}{address} {key}")).expect("a folder");
    }

    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.dir.join("known_hosts")
    }

    pub(crate) fn identity(&self) -> PathBuf {
        self.dir.join("operator")
    }
}

impl Machine {
    /// Starts a machine that is connected to `hub`.
    pub(crate) fn boot(hub: &Namespace, keys: &Keys, dir: &Path, name: &str, last: u8) -> Self {
        let namespace = Namespace::new(name);
        let address = Ipv4Addr::new(10, 77, 0, last);
        let end = format!("ctl-{name}");
        hub.cable(&end, &namespace, "eth0", &format!("{address}/24"));
        hub.ip(&format!("link set {end} master ctl"));
        let home = dir.join(name);
        std::fs::create_dir_all(&home).expect("a folder");
        let log = std::fs::File::create(dir.join(format!("{name}.log"))).expect("a folder");
        let mut boot = Command::new("unshare");
        boot.args(["--mount", "--pid", "--fork", "--kill-child"])
            .args(["sh", "-c", BOOT, "boot"])
            .args([&home, &keys.dir, Path::new(SYSTEMCTL)])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log);
        keys.know(address);
        let machine = Self {
            keeper: namespace.start(&mut boot),
            _namespace: namespace,
            address,
        };
        let deadline = Instant::now() + START_TIMEOUT;
        let is_up = || machine.path("/run/standin.sock").exists();
        while !is_up() || hub.inside(|| TcpStream::connect((address, 22)).is_err()) {
            let said = std::fs::read_to_string(dir.join(format!("{name}.log")));
            assert!(
                Instant::now() < deadline,
                "{name}: {}",
                said.unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        machine
    }

    /// Its first process, as it is called here.
    fn first(&self) -> String {
        let keeper = self.keeper.id();
        let children = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"));
        children.unwrap_or_default().trim().to_owned()
    }

    /// One of its files, as it is reached from here.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.first()))
    }

    pub(crate) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// Runs a command there.
    pub(crate) fn run(&self, command: &str) -> String {
        let output = Command::new("nsenter")
            .arg(format!("--target={}", self.first()))
            .args(["--mount", "--root", "--net", "--pid", "sh", "-c", command])
            .output()
            .expect("`nsenter` runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{command}`: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The command lines of all its processes.
    pub(crate) fn commands(&self) -> Vec<String> {
        let processes = std::fs::read_dir(self.path("/proc")).expect("it runs");
        let commands = processes.filter_map(|process| {
            let command = std::fs::read(process.ok()?.path().join("cmdline")).ok()?;
            Some(String::from_utf8_lossy(&command).replace('\0', " "))
        });
        commands.collect()
    }

    /// The number that a service's process has there.
    pub(crate) fn process(&self, unit: &str) -> u32 {
        let text = self.run(&format!("systemctl show --property MainPID --value {unit}"));
        text.parse().expect("a number")
    }

    /// What its services and their manager said.
    pub(crate) fn logs(&self) -> String {
        let names = [
            "standin",
            "greenlight-server.service",
            "greenlight-proxy.service",
        ];
        let names = names.into_iter().chain(["greenlight-agent.service"]);
        let logs = names.map(|name| {
            let text = self.read(&format!("/var/log/{name}.log"));
            format!("== {name} on {}\n{text}\n", self.address)
        });
        logs.collect()
    }
}
