//! `greenlight server` as a process.

use super::RoleResult;
use super::listen::listen;
use greenlight_link::api::NumberedEvent;
use greenlight_link::{
    AgentStreams, Authority, ClientAuth, Enrollment, Identity, LinkEvent, PkiError, Renewal, Role,
    Tokens, agent_router, allow, note_fleet, serve_with_optional_client_auth,
};
use greenlight_protocol::coordinator::{CoordinatorEvent, Ledger};
use greenlight_protocol::{CoordinatorRecord, InstanceId};
use greenlight_server::{Input, Shell, router};
use greenlight_shell::descriptors::raise_limit;
use greenlight_shell::failpoint;
use greenlight_shell::journal::Journal;
use greenlight_shell::service_manager::ServiceManager;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Progress kept for a slow reader before it loses some.
const PROGRESS_BUFFER: usize = 1024;

/// `greenlight server`.
#[derive(Clone, Debug)]
pub struct ServerRole {
    /// Its folder: authority, identity, journal, receipts.
    pub state: PathBuf,
    /// Where agents and operators connect.
    pub listen: SocketAddr,
    pub instances: BTreeSet<InstanceId>,
    /// How long the certificates that it issues are good for.
    pub certificate_lifetime: Duration,
}

/// Runs the server until SIGTERM.
pub async fn run_server(role: ServerRole) -> RoleResult {
    failpoint::name_role("server");
    raise_limit();
    let journal = Journal::open(&role.state.join("journal.redb"))?;
    let records: Vec<CoordinatorRecord> = journal.load()?;
    let term = Ledger::replay(&records).term.next().0;
    let (inbox, input) = std::sync::mpsc::channel();
    let told = inbox.clone();
    let streams = AgentStreams::new(term, move |event| {
        let event = match event {
            LinkEvent::Observed(from, telemetry) => {
                // When the shell has ended the process is ending.
                let _ = told.send(Input::Observed(from, telemetry));
                return;
            }
            LinkEvent::Connected(agent) => CoordinatorEvent::Connected(agent),
            LinkEvent::Disconnected(agent) => CoordinatorEvent::Disconnected(agent),
            LinkEvent::Reported(from, envelope) => CoordinatorEvent::Reported {
                from,
                envelope: *envelope,
            },
        };
        // When the shell has ended the process is ending.
        let _ = told.send(Input::Event(event));
    });
    let (progress, _) = tokio::sync::broadcast::channel::<NumberedEvent>(PROGRESS_BUFFER);
    let sending = streams.clone();
    let shell = Shell::recover(
        role.instances.clone(),
        journal,
        role.state.join("receipts.json"),
        Box::new(move |outgoing| sending.send(outgoing)),
        progress.clone(),
    )?;
    let authority = Authority::open(&role.state)?.with_lifetime(role.certificate_lifetime);
    let authority = Arc::new(authority);
    let identity = server_identity(&role.state, &authority)?;
    if let Err(error) = note_fleet(&role.state, &role.instances) {
        tracing::warn!(%error, "the names of the instances could not be noted for `token --state`");
    }
    let enrollment = Enrollment::new(
        authority.clone(),
        Tokens::of(&role.state),
        role.instances.clone(),
    );
    let listener = listen(role.listen).await?;
    let operators = router(inbox.clone(), progress, role.instances, streams.clone());
    let operators = operators.merge(enrollment.operators());
    let operators = allow(operators, |role| *role == Role::Operator);
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
    let manager = ServiceManager::found();
    manager.ready();
    let pulse = inbox.clone();
    tokio::spawn(manager.watched(move || {
        let (answer, answered) = oneshot::channel();
        // When the shell has ended the process is ending.
        let _ = pulse.send(Input::Ping(answer));
        answered
    }));
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new()
        .name("coordinator".to_owned())
        .spawn(move || {
            // The receiver lives until the process ends.
            let _ = ended.send(shell.run(&input));
        })?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = end => Ok(ended??),
        _ = terminate.recv() => {
            manager.stopping();
            Ok(())
        }
    }
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
