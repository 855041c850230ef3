//! The unit files: what systemd starts, as which user, and in which sandbox.
//!
//! Each value that comes from outside is a name, an address or a path that was checked where it
//! was read. [`refuse`] looks once more for what would end a value in a unit.

use super::{GATE, INSTANCE_STATE, PEER_PORT, PROGRAM, SERVER_STATE, SERVER_USER, USER};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

pub(super) const SERVER: &str = "greenlight-server.service";
pub(super) const AGENT: &str = "greenlight-agent.service";
pub(super) const PROXY: &str = "greenlight-proxy.service";
pub(super) const SOCKET: &str = "greenlight-proxy.socket";
/// The port on which the built-in front answers a load balancer's health checks.
const STATUS_PORT: u16 = 9702;
/// The port on which a proxy behind Nginx answers them.
const NGINX_STATUS_PORT: u16 = 9070;
/// Every unit that setup may write, in the order in which they are started.
pub(super) const ALL: [&str; 4] = [SERVER, SOCKET, PROXY, AGENT];

/// A unit file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    pub name: &'static str,
    pub text: String,
    /// The command line that it runs, if it is a service.
    pub command: Option<String>,
}

/// A value that is not allowed in a unit file: these files say what root runs.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is not allowed in a unit file", .0.escape_debug())]
pub struct NotForUnit(String);

/// Refuses a value that is not allowed in a unit file.
pub(super) fn refuse(value: &str) -> Result<(), NotForUnit> {
    let ends = |c: char| c.is_whitespace() || c.is_control() || "%$\"'\\".contains(c);
    match value.is_empty() || value.contains(ends) {
        true => Err(NotForUnit(value.to_owned())),
        false => Ok(()),
    }
}

/// What an agent's sandbox must leave open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    /// Applications are its own processes: they live in its sandbox, and outlive it.
    pub(super) processes: bool,
    /// It speaks to Docker.
    pub(super) docker: bool,
    /// It writes for Nginx in this folder, tests it and signals it, which takes root.
    pub(super) nginx: bool,
}

/// What every service must not do.
const SANDBOX: &str = "\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
LockPersonality=yes
SystemCallArchitectures=native
UMask=0077
LimitNOFILE=1048576
";

/// What only our own code need not do.
const OWN_CODE: &str = "\
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectProc=invisible
RestrictNamespaces=yes
MemoryDenyWriteExecute=yes
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
";

/// What an instance beside the coordinator must not see, also if its agent is root.
const NOT_THE_SERVER: &str = "InaccessiblePaths=-/var/lib/greenlight/server\n";

/// The coordinator.
pub(super) fn server(port: u16, v6: bool, instances: &[String]) -> Unit {
    let listen = anywhere(v6, port);
    let mut command = format!("{PROGRAM} server --state {SERVER_STATE} --listen {listen}");
    for name in instances {
        write!(command, " --instance {name}").expect("a string takes all");
    }
    let more = format!(
        "User={SERVER_USER}\nGroup={SERVER_USER}\nStateDirectory=greenlight/server\n\
         StateDirectoryMode=0700\n{SANDBOX}{OWN_CODE}"
    );
    service(SERVER, "the coordinator and its API", "", &command, &more)
}

/// The proxy, and the socket that users come in on.
pub(super) fn proxy(listen: &str, status: SocketAddr) -> Unit {
    let command = format!(
        "{PROGRAM} proxy --listen {listen} --status {status} --admin {INSTANCE_STATE}/proxy.sock \
         --state {INSTANCE_STATE}/routing"
    );
    let more = format!(
        "ExecReload=/bin/kill -USR2 $MAINPID\nTimeoutStopSec=40\n\
         User={USER}\nGroup={USER}\nStateDirectory=greenlight/instance\n\
         StateDirectoryMode=0750\n{SANDBOX}{OWN_CODE}{NOT_THE_SERVER}ProcSubset=pid\n"
    );
    let head = format!("Requires={SOCKET}\nAfter={SOCKET}\n");
    service(
        PROXY,
        "the proxy that receives users",
        &head,
        &command,
        &more,
    )
}

/// The socket: the same address once for every processor, so that the kernel spreads users.
/// That of load balancers' questions is beside it.
pub(super) fn socket(listen: &str, status: SocketAddr, times: usize, group: Option<&str>) -> Unit {
    let mut text = String::from(
        "# Written by `greenlight setup`; put changes into greenlight-proxy.socket.d/.\n\
         [Unit]\nDescription=Greenlight: where users come in\n\n[Socket]\n",
    );
    let path = listen.strip_prefix("unix:");
    for _ in 0..path.map_or(times, |_| 1) {
        writeln!(text, "ListenStream={}", path.unwrap_or(listen)).expect("a string takes all");
    }
    writeln!(text, "ListenStream={status}").expect("a string takes all");
    text.push_str(match path {
        // It keeps listening while the proxy restarts.
        None => "ReusePort=yes\nNoDelay=yes\n",
        Some(_) => "SocketMode=0660\nDirectoryMode=0755\n",
    });
    if path.is_some() {
        let group = group.unwrap_or(USER);
        write!(text, "SocketUser={USER}\nSocketGroup={group}\n").expect("a string takes all");
    }
    text.push_str("Backlog=4096\nFileDescriptorName=users\n\n[Install]\nWantedBy=sockets.target\n");
    Unit {
        name: SOCKET,
        text,
        command: None,
    }
}

/// The arguments of an agent.
pub(super) struct AgentUnit<'a> {
    pub(super) name: &'a str,
    pub(super) server: SocketAddr,
    pub(super) v6: bool,
    pub(super) peers: &'a [(String, SocketAddr)],
    /// What its front is, as arguments.
    pub(super) front: String,
    pub(super) needs: Needs,
    /// The folder of the file that Nginx includes.
    pub(super) nginx_dir: Option<String>,
}

/// The agent.
pub(super) fn agent(agent: &AgentUnit<'_>) -> Unit {
    let AgentUnit { name, server, .. } = agent;
    let listen = anywhere(agent.v6, PEER_PORT);
    let mut command = format!(
        "{PROGRAM} agent --name {name} --state {INSTANCE_STATE} --server {server} \
         --listen {listen} {}",
        agent.front,
    );
    let peers = agent.peers.iter();
    let peers: Vec<_> = peers.map(|(name, at)| format!("{name}={at}")).collect();
    if !peers.is_empty() {
        write!(command, " --peers {}", peers.join(",")).expect("a string takes all");
    }
    let needs = agent.needs;
    let mut more = match needs.nginx {
        true => "User=root\n".to_owned(),
        false => format!("User={USER}\nGroup={USER}\n"),
    };
    if needs.docker {
        more.push_str("SupplementaryGroups=docker\n");
    }
    more.push_str("StateDirectory=greenlight/instance\nStateDirectoryMode=0750\n");
    match needs.nginx {
        // Testing a configuration reads keys and opens logs; a reload is a signal.
        true => more.push_str(&SANDBOX.replace(
            "CapabilityBoundingSet=\n",
            "CapabilityBoundingSet=CAP_KILL CAP_DAC_OVERRIDE CAP_CHOWN CAP_SETUID CAP_SETGID \
             CAP_NET_BIND_SERVICE\n",
        )),
        false => more.push_str(SANDBOX),
    }
    if needs.processes {
        // The agent starts applications, and they live in its sandbox. They continue when it is
        // stopped, and must keep their temporary files then.
        more.push_str(
            "RestrictAddressFamilies=AF_NETLINK\nProtectSystem=full\nProtectHome=read-only\n\
             KillMode=process\n",
        );
    } else if needs.nginx {
        more.push_str("ProtectSystem=full\nProtectHome=yes\nPrivateTmp=yes\n");
    } else {
        more.push_str(OWN_CODE);
    }
    if let Some(dir) = &agent.nginx_dir {
        writeln!(more, "ReadWritePaths={dir}").expect("a string takes all");
    }
    more.push_str(NOT_THE_SERVER);
    writeln!(more, "WorkingDirectory={INSTANCE_STATE}").expect("a string takes all");
    let head = match needs.docker {
        true => "Wants=docker.service\nAfter=docker.service\n",
        false => "",
    };
    service(AGENT, "this instance's agent", head, &command, &more)
}

/// Where users connect on a machine, and where a load balancer checks its health.
pub(super) fn public(v6: bool, port: u16) -> (String, SocketAddr) {
    (anywhere(v6, port).to_string(), anywhere(v6, STATUS_PORT))
}

/// The same behind Nginx, which passes the balancer's question on.
pub(super) fn behind_nginx() -> (String, SocketAddr) {
    let status = (Ipv4Addr::LOCALHOST, NGINX_STATUS_PORT).into();
    (format!("unix:{GATE}"), status)
}

fn anywhere(v6: bool, port: u16) -> SocketAddr {
    match v6 {
        true => (Ipv6Addr::UNSPECIFIED, port).into(),
        false => (Ipv4Addr::UNSPECIFIED, port).into(),
    }
}

fn service(name: &'static str, what: &str, head: &str, command: &str, more: &str) -> Unit {
    let text = format!(
        "# Written by `greenlight setup`; put changes into {name}.d/.\n\
         [Unit]\nDescription=Greenlight: {what}\nWants=network-online.target\n\
         After=network-online.target\n{head}\
         # A crash must not keep it from coming back.\nStartLimitIntervalSec=0\n\n\
         [Service]\nType=notify\nExecStart={command}\nRestart=always\nRestartSec=100ms\n\
         # Its own loop gives the signs of life.\nWatchdogSec=10\nWatchdogSignal=SIGKILL\n\
         {more}\n[Install]\nWantedBy=multi-user.target\n"
    );
    Unit {
        name,
        text,
        command: Some(command.to_owned()),
    }
}
