//! SIGINT and SIGTERM for commands that ask the server for something and wait for how it ends.
//!
//! The server does the work, so there is nothing to undo (G8): the command says that what it
//! requested continues, how to find it again, and that it does not know the outcome. A runner of CI
//! jobs gives it ten seconds for that.

use super::{Exit, Failure};
use tokio::signal::unix::{SignalKind, signal};

/// The command, until it is done or told to end.
pub(super) async fn until_told_to_end(
    command: impl Future<Output = Result<Exit, Failure>>,
) -> Result<Exit, Failure> {
    let caught = |kind| signal(kind).map_err(|error| Failure::new(Exit::Failed, error));
    let mut interrupt = caught(SignalKind::interrupt())?;
    let mut terminate = caught(SignalKind::terminate())?;
    let name = tokio::select! {
        biased;
        done = command => return done,
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    };
    let error = format!("{name} ended this command; the server continues what it requested");
    Err(Failure::new(Exit::Unknown, error).help(
        "`greenlight deploy` with the same release attaches to its deployment, `greenlight status` \
         shows it, `greenlight abort` calls it off",
    ))
}
