//! The installation of a fleet: the coordinator's machine, then the others one after the other.
//!
//! A machine that cannot be reached is named, and setup continues with the others. Without the
//! coordinator's machine it stops.

use super::binary::Binary;
use super::change::{Change, changes};
use super::desired::{DesiredState, Part, TargetMachine, machines};
use super::facts::Facts;
use super::ssh::{Input, Remote, RemoteError};
use super::{PROGRAM, SERVER_STATE, remove};
use greenlight_config::Config;
use greenlight_link::api::FleetStatus;
use greenlight_link::{ApiClient, ApiError, JoinError, JoinToken, TokenAnswer, TokenRequest, join};
use greenlight_protocol::InstanceId;
use greenlight_release::digest::sha256_hex;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long an instance may take to connect once its agent runs.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Tokens are used at once.
const TOKEN_MS: u64 = 5 * 60 * 1000;

/// A fleet to install.
pub struct Installation<'a> {
    /// What is desired.
    pub config: &'a Config,
    pub binary: Binary,
    /// The folder of the operator's credentials.
    pub fleet: PathBuf,
    /// What it is to come to.
    pub aim: Aim,
    /// Whether to say only what would be done.
    pub dry_run: bool,
    /// Reports each step.
    pub tell: &'a dyn Fn(&str),
}

/// What an installation is to come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// The fleet runs.
    Installed,
    /// Nothing of it is left.
    Removed,
}

/// What became of one machine.
#[derive(Debug)]
pub struct Done {
    pub machine: TargetMachine,
    /// What was changed there, or would be.
    pub changes: Vec<Change>,
    /// Why it is not as it should be, if it is not.
    pub failure: Option<MachineFailure>,
    /// Whether the server sees its instance; `None` if it is no instance, or this was not checked.
    pub connected: Option<bool>,
}

/// Why a machine is not as it should be.
#[derive(Debug)]
pub struct MachineFailure {
    /// What is wrong.
    pub error: String,
    /// What to do about it.
    pub help: String,
}

/// Where changes are made.
struct Making<'a> {
    remote: &'a Remote,
    desired: &'a DesiredState,
    /// The coordinator's address.
    server: &'a str,
}

impl Done {
    fn nothing(machine: TargetMachine) -> Self {
        Self {
            machine,
            changes: Vec::new(),
            failure: None,
            connected: None,
        }
    }
}

impl From<RemoteError> for MachineFailure {
    fn from(error: RemoteError) -> Self {
        Self {
            help: error.help(),
            error: error.to_string(),
        }
    }
}

impl Installation<'_> {
    /// Installs what is missing; returns the result for each machine.
    pub async fn run(&self) -> Result<Vec<Done>, MachineFailure> {
        let machines = machines(self.config).map_err(|error| MachineFailure {
            error: error.to_string(),
            help: "correct `servers` or `setup.server`".to_owned(),
        })?;
        if self.aim == Aim::Removed {
            return Ok(self.remove(machines).await);
        }
        let mut all: Vec<Done> = Vec::new();
        let mut authority = None;
        for machine in &machines {
            let is_first = all.is_empty();
            let mut done = Done::nothing(machine.clone());
            let result = self.one(&machines, &mut done, &mut authority).await;
            if let Err(failure) = result {
                (self.tell)(&format!("{}: {}", machine.host, failure.error));
                done.failure = Some(failure);
            }
            let goes_on = done.failure.is_none() || !is_first;
            all.push(done);
            if !goes_on {
                break;
            }
        }
        if !self.dry_run {
            self.wait_for(&mut all).await;
        }
        Ok(all)
    }

    /// Removes everything, from the coordinator last.
    async fn remove(&self, machines: Vec<TargetMachine>) -> Vec<Done> {
        let mut all = Vec::new();
        for machine in machines.into_iter().rev() {
            let mut done = Done::nothing(machine);
            if let Err(error) = self.remove_one(&mut done).await {
                done.failure = Some(error.into());
            }
            all.push(done);
        }
        all
    }

    async fn remove_one(&self, done: &mut Done) -> Result<(), RemoteError> {
        let host = done.machine.host.to_string();
        let remote = Remote::new(host.clone(), self.config.setup.ssh.clone());
        let facts = Facts::read(&remote.run(&Facts::script(), Input::Nothing).await?);
        if !remove::is_there(&facts) {
            (self.tell)(&format!("{host}: nothing to change"));
            return Ok(());
        }
        let verb = if self.dry_run { "would " } else { "" };
        (self.tell)(&format!("{host}: {verb}{}", Change::Remove));
        if !self.dry_run {
            remote.run(&remove::script(), Input::Nothing).await?;
        }
        done.changes.push(Change::Remove);
        Ok(())
    }

    /// Brings one machine to the desired state.
    async fn one(
        &self,
        machines: &[TargetMachine],
        done: &mut Done,
        authority: &mut Option<String>,
    ) -> Result<(), MachineFailure> {
        let machine = done.machine.clone();
        let remote = Remote::new(machine.host.to_string(), self.config.setup.ssh.clone());
        let facts = Facts::read(&remote.run(&Facts::script(), Input::Nothing).await?);
        self.check(&facts)?;
        let desired = DesiredState::of(self.config, machines, &machine, &facts);
        let desired = desired.map_err(|error| MachineFailure {
            error: error.to_string(),
            help: "correct it in the configuration".to_owned(),
        })?;
        if desired.docker && !facts.has_group("docker") {
            return Err(MachineFailure {
                error: "it has no group `docker`, so no Docker that a service may use".to_owned(),
                help: "install Docker there, and run `greenlight setup` again".to_owned(),
            });
        }
        if desired.server {
            *authority = facts
                .digest(&format!("{SERVER_STATE}/ca.pem"))
                .map(ToOwned::to_owned);
        }
        let needed = changes(&desired, &facts, &self.binary.digest, authority.as_deref());
        let server = SocketAddr::new(machines[0].address, self.config.setup.port).to_string();
        // A deployment survives it, and might be called off because of it.
        let restarts = |change: &Change| matches!(change, Change::Restart(_));
        if needed.iter().any(restarts) {
            self.refuse_during_a_deployment().await?;
        }
        // The coordinator comes first, because machines join through it.
        let (first, then): (Vec<_>, Vec<_>) = needed
            .into_iter()
            .partition(|change| !desired.server || is_for_server(change));
        let made = Making {
            remote: &remote,
            desired: &desired,
            server: &server,
        };
        self.make(&made, first, done).await?;
        if desired.server && !self.dry_run {
            *authority = Some(self.enter(&remote, &server).await?);
        }
        self.make(&made, then, done).await?;
        if done.changes.is_empty() {
            (self.tell)(&format!("{}: nothing to change", machine.host));
        }
        Ok(())
    }

    fn check(&self, facts: &Facts) -> Result<(), MachineFailure> {
        if facts.machine() != self.binary.machine {
            return Err(MachineFailure {
                error: format!(
                    "it is a machine for {}, and `{}` is a program for {}",
                    facts.machine(),
                    self.binary.path.display(),
                    self.binary.machine
                ),
                help: "name a program for it with `--program`".to_owned(),
            });
        }
        if facts.systemd().is_none() {
            return Err(MachineFailure {
                error: "it has no systemd".to_owned(),
                help: "install it by hand as `docs/guides/setup.md` says, with another supervisor"
                    .to_owned(),
            });
        }
        Ok(())
    }

    /// Makes changes in order, or reports that it would. Few scripts for many changes: a connection
    /// takes longer than most of them.
    async fn make(
        &self,
        making: &Making<'_>,
        changes: Vec<Change>,
        done: &mut Done,
    ) -> Result<(), MachineFailure> {
        let verb = if self.dry_run { "would " } else { "" };
        let mut script = String::new();
        let mut input = Input::Nothing;
        for change in &changes {
            (self.tell)(&format!("{}: {verb}{change}", making.remote.host));
            if self.dry_run {
                continue;
            }
            if let Some(next) = self.input(change).await? {
                if !matches!(input, Input::Nothing) {
                    making
                        .remote
                        .run(&std::mem::take(&mut script), input)
                        .await?;
                }
                input = next;
            }
            script += &change.script(making.desired, making.server);
        }
        if !script.is_empty() {
            making.remote.run(&script, input).await?;
        }
        done.changes.extend(changes);
        Ok(())
    }

    /// What a change's script reads, if it reads anything.
    async fn input(&self, change: &Change) -> Result<Option<Input>, MachineFailure> {
        Ok(match change {
            Change::Program { .. } => Some(Input::File(self.binary.path.clone())),
            Change::Join { name } => Some(Input::Text(self.token(name).await?)),
            Change::User(_)
            | Change::Unit(_)
            | Change::Enable(_)
            | Change::Start(_)
            | Change::Restart(_)
            | Change::TakeOver
            | Change::Remove => None,
        })
    }

    /// A token for an instance, from the server.
    async fn token(&self, name: &str) -> Result<String, MachineFailure> {
        let asked = TokenRequest {
            instance: Some(InstanceId(name.to_owned())),
            valid_ms: TOKEN_MS,
        };
        let api = ApiClient::from_dir(&self.fleet).map_err(|error| api_failure(&error))?;
        let answer: Result<TokenAnswer, _> = api.post("/v1/tokens", &asked).await;
        Ok(answer.map_err(|error| api_failure(&error))?.token)
    }

    /// Makes this machine an operator's, unless it is already; the authority's digest.
    async fn enter(&self, remote: &Remote, server: &str) -> Result<String, MachineFailure> {
        let sum = format!("sha256sum < {SERVER_STATE}/ca.pem | cut -d ' ' -f 1\n");
        let authority = remote.run(&sum, Input::Nothing).await?.trim().to_owned();
        let own = self.fleet.join("ca.pem");
        if let Ok(kept) = std::fs::read(&own) {
            if sha256_hex(&kept) == authority {
                return Ok(authority);
            }
            return Err(MachineFailure {
                error: format!(
                    "`{}` has the credentials of another fleet",
                    self.fleet.display()
                ),
                help: "name another folder with `--fleet`, or remove that one if its fleet is gone"
                    .to_owned(),
            });
        }
        (self.tell)("here: join the fleet as an operator");
        let make = format!("{PROGRAM} token --state {SERVER_STATE} --operator\n");
        let token = remote.run(&make, Input::Nothing).await?;
        let unread = |error: String| MachineFailure {
            error,
            help: "use the same version of `greenlight` here and there".to_owned(),
        };
        let token: JoinToken = token.parse().map_err(unread)?;
        let address: SocketAddr = server.parse().expect("it was made of an address");
        let credentials = join(address, &token)
            .await
            .map_err(|error| join_failure(&error))?;
        let kept = credentials.store(&self.fleet);
        let kept = kept.map_err(|error| error.to_string()).and_then(|()| {
            let written = std::fs::write(self.fleet.join("server"), server);
            written.map_err(|error| error.to_string())
        });
        kept.map_err(|error| MachineFailure {
            error,
            help: "name a folder that can be written with `--fleet`".to_owned(),
        })?;
        Ok(authority)
    }

    async fn refuse_during_a_deployment(&self) -> Result<(), MachineFailure> {
        let Ok(api) = ApiClient::from_dir(&self.fleet) else {
            return Ok(());
        };
        // Of a server that does not answer nothing is interrupted.
        let Ok(status) = api.get::<FleetStatus>("/v1/status").await else {
            return Ok(());
        };
        match status.deployment {
            None => Ok(()),
            Some(deployment) => Err(MachineFailure {
                error: format!("a deployment is under way, by {}", deployment.requested_by),
                help: "wait for it, or stop it with `greenlight abort`; nothing was changed"
                    .to_owned(),
            }),
        }
    }

    /// Waits until the server sees every instance that was set up.
    async fn wait_for(&self, all: &mut [Done]) {
        let Ok(api) = ApiClient::from_dir(&self.fleet) else {
            return;
        };
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        loop {
            let status = api.get::<FleetStatus>("/v1/status").await;
            let mut missing = 0;
            for done in all.iter_mut() {
                let Some(name) = done.machine.instance() else {
                    continue;
                };
                let seen =
                    |status: &FleetStatus| matches!(status.instances.get(name), Some(Some(_)));
                let connected = status.as_ref().is_ok_and(seen);
                done.connected = Some(connected);
                missing += usize::from(!connected && done.failure.is_none());
            }
            if missing == 0 || Instant::now() > deadline {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        for done in all {
            if done.connected == Some(false) && done.failure.is_none() {
                done.failure = Some(MachineFailure {
                    error: "its agent runs, and the server does not see it".to_owned(),
                    help: "look at `journalctl -u greenlight-agent` there; is the server's port \
                           open to it?"
                        .to_owned(),
                });
            }
        }
    }
}

impl TargetMachine {
    /// The instance that it is, if it is one.
    pub fn instance(&self) -> Option<&InstanceId> {
        self.parts.iter().find_map(|part| match part {
            Part::Server => None,
            Part::Instance(name) => Some(name),
        })
    }
}

/// Whether the coordinator needs it to run.
fn is_for_server(change: &Change) -> bool {
    use super::units::SERVER;
    match change {
        Change::User(_) | Change::Program { .. } => true,
        Change::Unit(unit) => unit.name == SERVER,
        Change::Enable(unit) | Change::Start(unit) | Change::Restart(unit) => *unit == SERVER,
        Change::Join { .. } | Change::TakeOver | Change::Remove => false,
    }
}

fn api_failure(error: &ApiError) -> MachineFailure {
    let help = match error {
        ApiError::Refused { help, .. } => help.clone(),
        ApiError::NoCredentials(_)
        | ApiError::Credentials(_)
        | ApiError::Unreachable(_)
        | ApiError::Unreadable(_) => {
            "is the server's port open to this machine? `journalctl -u greenlight-server` there \
             says more"
                .to_owned()
        }
    };
    MachineFailure {
        error: format!("the server gave no token: {error}"),
        help,
    }
}

fn join_failure(error: &JoinError) -> MachineFailure {
    MachineFailure {
        error: format!("this machine cannot become an operator's: {error}"),
        help: match error {
            JoinError::Refused { help, .. } => help.clone(),
            JoinError::Unreachable(_) | JoinError::Pki(_) | JoinError::Unreadable(_) => {
                "is the server's port open to this machine?".to_owned()
            }
        },
    }
}
