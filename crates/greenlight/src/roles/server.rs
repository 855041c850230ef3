//! `greenlight server` as a process: it recovers the coordinator, opens the fleet's link and API,
//! and runs the coordinator's loop until that or the process is to end.

use super::RoleResult;
use super::listen::listen;
use greenlight_link::{
    AgentStreams, Authority, ClientAuth, Enrollment, Identity, LinkEvent, PkiError, Renewal, Role,
    Tokens, agent_router, allow, note_fleet, serve_with_optional_client_auth,
};
use greenlight_protocol::InstanceId;
use greenlight_protocol::coordinator::CoordinatorEvent;
use greenlight_server::{
    ApiParts, Input, ProgressLog, ReceiptArchive, RecoveredShell, Shell, router,
};
use greenlight_shell::descriptors::raise_limit;
use greenlight_shell::failpoint;
use greenlight_shell::journal::{Journal, JournalError};
use greenlight_shell::service_manager::ServiceManager;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, oneshot};

/// Progress kept for a slow reader before it loses some.
const PROGRESS_BUFFER: usize = 1024;
/// How long the end of the process waits for the last receipts to be on disk.
const LAST_RECEIPTS: Duration = Duration::from_secs(2);

/// `greenlight server`.
#[derive(Clone, Debug)]
pub struct ServerRole {
    /// Its folder: authority, identity, journal, receipts.
    pub state: PathBuf,
    /// Where agents and operators connect.
    pub listen: SocketAddr,
    pub instances: BTreeSet<InstanceId>,
    /// How many receipts it keeps.
    pub keep_receipts: usize,
    /// How long the certificates that it issues are good for.
    pub certificate_lifetime: Duration,
}

/// Runs the server until SIGTERM.
pub async fn run_server(role: ServerRole) -> RoleResult {
    failpoint::name_role("server");
    raise_limit();
    let (inbox, input) = std::sync::mpsc::channel();
    let (progress, _) = broadcast::channel(PROGRESS_BUFFER);
    let past = ProgressLog::default();
    let authority = Authority::open(&role.state)?.with_lifetime(role.certificate_lifetime);
    let identity = server_identity(&role.state, &authority)?;
    let archive = ReceiptArchive::open(
        role.state.join("receipts"),
        role.keep_receipts,
        Some(identity.clone()),
    )?;
    let recovered = recover(&role, archive.clone())?;
    let streams = AgentStreams::new(recovered.term().0, forward_to(inbox.clone()));
    let sending = streams.clone();
    let (shell, view) = recovered.into_shell(
        Box::new(move |outgoing| sending.send(outgoing)),
        past.clone(),
        progress.clone(),
    );
    let parts = ApiParts {
        inbox: inbox.clone(),
        view,
        archive: archive.clone(),
        past,
        progress,
        fleet: role.instances.clone(),
        streams,
    };
    serve_fleet(&role, authority, identity, parts).await?;
    let manager = ServiceManager::found();
    manager.ready();
    tokio::spawn(manager.watched(ping(inbox.clone())));
    let mut ended = start_coordinator(shell, input)?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = &mut ended => Ok(ended??),
        _ = terminate.recv() => {
            manager.stopping();
            // A loop that has ended needs no word; one that hangs is left: nothing depends on it.
            let _ = inbox.send(Input::Stop);
            let _ = tokio::time::timeout(LAST_RECEIPTS, ended).await;
            tokio::task::spawn_blocking(move || archive.flush(LAST_RECEIPTS)).await?;
            Ok(())
        }
    }
}

fn recover(role: &ServerRole, archive: ReceiptArchive) -> Result<RecoveredShell, JournalError> {
    RecoveredShell::read(
        role.instances.clone(),
        Journal::open(&role.state.join("journal.redb"))?,
        archive,
    )
}

/// Passes what happens on the link to the coordinator's loop. When the loop has ended the process
/// is ending, so what cannot be passed is lost.
fn forward_to(inbox: Sender<Input>) -> impl Fn(LinkEvent) {
    move |event| {
        let event = match event {
            LinkEvent::Observed(from, telemetry) => {
                let _ = inbox.send(Input::Observed(from, telemetry));
                return;
            }
            LinkEvent::Connected(agent) => CoordinatorEvent::Connected(agent),
            LinkEvent::Disconnected(agent) => CoordinatorEvent::Disconnected(agent),
            LinkEvent::Reported(from, envelope) => CoordinatorEvent::Reported {
                from,
                envelope: *envelope,
            },
        };
        let _ = inbox.send(Input::Event(event));
    }
}

/// Serves operators, agents and those who join, each with the routes that its certificate allows.
async fn serve_fleet(
    role: &ServerRole,
    authority: Authority,
    identity: Arc<Identity>,
    parts: ApiParts,
) -> RoleResult {
    let authority = Arc::new(authority);
    let streams = parts.streams.clone();
    if let Err(error) = note_fleet(&role.state, &role.instances) {
        tracing::warn!(%error, "the names of the instances could not be noted for `token --state`");
    }
    let enrollment = Enrollment::new(
        authority.clone(),
        Tokens::of(&role.state),
        role.instances.clone(),
    );
    let listener = listen(role.listen).await?;
    let operators = router(parts);
    let operators = operators.merge(enrollment.operators());
    let operators = allow(operators, Role::may_operate);
    let routes = operators
        .merge(agent_router(streams))
        .merge(enrollment.members());
    let tls = identity.server_config(ClientAuth::Optional)?;
    tokio::spawn(serve_with_optional_client_auth(
        listener,
        tls,
        routes,
        enrollment.public_routes(),
    ));
    tokio::spawn(Renewal::Own(authority).keep_fresh(identity));
    Ok(())
}

/// Asks the coordinator's loop whether it is responsive. When it has ended the process is ending.
fn ping(inbox: Sender<Input>) -> impl FnMut() -> oneshot::Receiver<()> {
    move || {
        let (answer, answered) = oneshot::channel();
        let _ = inbox.send(Input::Ping(answer));
        answered
    }
}

/// Runs the coordinator's loop on a thread of its own; returns what will say how it ended.
fn start_coordinator(
    shell: Shell,
    input: Receiver<Input>,
) -> std::io::Result<oneshot::Receiver<Result<(), JournalError>>> {
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new()
        .name("coordinator".to_owned())
        .spawn(move || {
            // The receiver lives until the process ends.
            let _ = ended.send(shell.run(&input));
        })?;
    Ok(end)
}

/// The server's own certificate: the present one, as long as it is valid for some time.
fn server_identity(state: &Path, authority: &Authority) -> Result<Arc<Identity>, PkiError> {
    let dir = state.join("identity");
    let good = Identity::load(&dir).ok().filter(|identity| {
        let left = identity.good_until().duration_since(SystemTime::now());
        left.is_ok()
    });
    if let Some(identity) = good {
        return Ok(identity);
    }
    authority.issue(&Role::Server)?.store(&dir)?;
    Identity::load(&dir)
}
