//! `greenlight proxy` as a process: its messages to the service manager, and its upgrade.
//!
//! On SIGUSR2 it starts the program that is now installed in its place, with the same arguments and
//! `--take-over`. That one takes over sockets and routing; this one reports to the service manager
//! which process counts now, and ends with its last connection.

use greenlight_proxy::{Address, IfRunning, Limits, ProxyError, ProxyOptions, RunningProxy};
use greenlight_shell::descriptors::raise_limit;
use greenlight_shell::service_manager::ServiceManager;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// `greenlight proxy`.
#[derive(Clone, Debug)]
pub struct ProxyRole {
    /// Where users come in.
    pub listen: Vec<Address>,
    /// The group that may connect to the unix sockets among them; this process's if none.
    pub socket_group: Option<u32>,
    /// The admin socket.
    pub admin: PathBuf,
    /// The file that keeps the routing.
    pub state: PathBuf,
    /// A separate address for status, metrics and health.
    pub status: Option<SocketAddr>,
    /// Threads; one for each core if none.
    pub threads: Option<usize>,
    /// What to do about a proxy that runs already.
    pub if_running: IfRunning,
}

/// Runs a proxy until SIGTERM, or until its successor serves everyone.
pub async fn run_proxy(role: ProxyRole) -> Result<(), ProxyError> {
    raise_limit();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let options = ProxyOptions {
        listen: role.listen,
        socket_group: role.socket_group,
        admin: role.admin,
        state: role.state,
        status: role.status,
        threads: role.threads.unwrap_or(cores),
        limits: Limits::default(),
        if_running: role.if_running,
    };
    let caught = |kind| signal(kind).map_err(ProxyError::Threads);
    let mut terminate = caught(SignalKind::terminate())?;
    let mut interrupt = caught(SignalKind::interrupt())?;
    let mut upgrade = caught(SignalKind::user_defined2())?;
    // It waits for threads, and for the proxy that runs.
    let started = tokio::task::spawn_blocking(move || RunningProxy::start(&options));
    let mut proxy = started.await.expect("starting does not panic")?;
    let manager = ServiceManager::found();
    manager.ready();
    let mut heartbeat = proxy.heartbeat();
    let watched = tokio::spawn(manager.watched(move || {
        std::future::ready(match heartbeat.is_responsive() {
            true => Ok(()),
            false => Err("a thread is stuck"),
        })
    }));
    let mut handed_over = std::pin::pin!(proxy.handed_over());
    let mut successor: Option<Child> = None;
    let mut leads = true;
    loop {
        tokio::select! {
            // On a busy machine both may be true when this task runs: the proxy has handed over, and
            // it has ended. The service manager must hear the successor's number first, or it takes
            // the service for dead and the successor for a leftover.
            biased;
            () = &mut handed_over, if leads => {
                leads = false;
                watched.abort();
                if let Some(number) = successor.as_ref().and_then(Child::id) {
                    manager.main_process_is(number);
                }
            }
            () = proxy.ended() => return Ok(()),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = upgrade.recv(), if leads => {
                // With two, the manager could get the number of the one that did not take over.
                if successor.is_some() {
                    tracing::warn!("a successor is being started already");
                    continue;
                }
                match start_successor() {
                    Ok(child) => successor = Some(child),
                    Err(error) => tracing::error!(%error, "a successor cannot be started"),
                }
            }
            ended = exit(&mut successor) => {
                successor = None;
                tracing::warn!(?ended, "the successor ended");
            }
        }
    }
    if leads {
        manager.stopping();
    }
    let stopped = tokio::task::spawn_blocking(|| proxy.stop());
    stopped.await.expect("stopping does not panic");
    Ok(())
}

/// Waits until a successor has ended; never returns if there is none.
async fn exit(successor: &mut Option<Child>) -> io::Result<ExitStatus> {
    match successor {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

/// Starts the program that has this one's name now.
fn start_successor() -> io::Result<Child> {
    let mut arguments = std::env::args_os();
    let own = arguments.next().map(PathBuf::from).unwrap_or_default();
    // The kernel's path of this process may be that of the replaced file.
    let program = match own.is_absolute() {
        true => own,
        false => std::env::current_exe()?,
    };
    let mut arguments: Vec<OsString> = arguments.collect();
    let take_over = OsString::from("--take-over");
    if !arguments.contains(&take_over) {
        arguments.push(take_over);
    }
    // A status of this process, by its number, does not apply to the next one.
    Command::new(program)
        .args(arguments)
        .env_remove("WATCHDOG_PID")
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_FDNAMES")
        .spawn()
}
