//! The leader's view of its followers: it replicates the routing to them, and asks for their
//! counts.
//!
//! A follower's connections pass its own gates, so a command is carried out only when every
//! follower has carried it out too. One whose socket refuses connections is gone, and its
//! connections with it; one that does not answer is waited for, because it may be admitting.

use super::follower_calls::{counts, replicate};
use super::follower_socket::{follower_name, follower_sockets};
use greenlight_admin::AdminClient;
use greenlight_admin::ServiceSettings;
use greenlight_gate::{CountsByService, ReplicateRequest, add_all};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// The pause before a follower that did not answer is asked again.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// The sockets of all followers of this leader.
#[derive(Default)]
pub(crate) struct Followers(RefCell<Vec<PathBuf>>);

impl Followers {
    /// Finds the sockets of followers beside the admin socket.
    pub(crate) fn discover(&self, admin: &Path) {
        *self.0.borrow_mut() = follower_sockets(admin);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    pub(crate) fn names(&self) -> BTreeSet<String> {
        let sockets = self.0.borrow();
        sockets.iter().map(|socket| follower_name(socket)).collect()
    }

    /// Returns when every follower has obeyed, or is gone.
    pub(crate) async fn replicate(&self, request: &ReplicateRequest<ServiceSettings>) {
        let replications = self.clients().into_iter().map(|(socket, client)| {
            let request = request.clone();
            tokio::task::spawn_local(async move {
                let answer = until_answered(&socket, || replicate(&client, &request)).await;
                (socket, answer.is_none())
            })
        });
        for replication in replications.collect::<Vec<_>>() {
            let (socket, is_gone) = replication.await.expect("asking does not panic");
            if is_gone {
                self.forget(&socket);
            }
        }
    }

    /// What all followers have counted, without those that have ended.
    pub(crate) async fn counts(&self) -> CountsByService {
        loop {
            let asked = self.0.borrow().clone();
            let mut total = CountsByService::new();
            for (socket, client) in self.clients() {
                match until_answered(&socket, || counts(&client)).await {
                    Some(answer) => add_all(&mut total, &answer.services),
                    None => self.forget(&socket),
                }
            }
            // One that ended meanwhile is not one of them any more: count again.
            if *self.0.borrow() == asked {
                return total;
            }
        }
    }

    /// A follower has ended.
    pub(crate) fn has_ended(&self, name: &str) {
        let mut sockets = self.0.borrow_mut();
        sockets.retain(|socket| follower_name(socket) != name);
    }

    fn clients(&self) -> Vec<(PathBuf, AdminClient)> {
        let sockets = self.0.borrow();
        let client = |socket: &PathBuf| (socket.clone(), AdminClient::new(socket));
        sockets.iter().map(client).collect()
    }

    fn forget(&self, socket: &Path) {
        self.0.borrow_mut().retain(|known| known != socket);
        // No process listens there: the file remains of a process that died.
        let _ = std::fs::remove_file(socket);
    }
}

/// Asks until there is an answer; `None` if the process is gone.
async fn until_answered<A, E: std::fmt::Display, Fut>(
    socket: &Path,
    ask: impl Fn() -> Fut,
) -> Option<A>
where
    Fut: Future<Output = Result<A, E>>,
{
    let mut is_first = true;
    loop {
        let error = match ask().await {
            Ok(answer) => return Some(answer),
            Err(error) => error,
        };
        if is_gone(socket).await {
            return None;
        }
        if is_first {
            tracing::warn!(%error, "a follower that still has connections does not answer");
            is_first = false;
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

async fn is_gone(socket: &Path) -> bool {
    match UnixStream::connect(socket).await {
        Ok(_) => false,
        Err(error) => matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        ),
    }
}
