//! The leader's view of its followers: it replicates the routing to them, and asks for their
//! counts.
//!
//! A follower's connections pass its own gates, so a command is carried out only when every
//! follower has carried it out too. One whose socket refuses connections is gone, and its
//! connections with it; one that does not answer is waited for, because it may be admitting.

use super::replication::{FinalCountsRequest, ReplicateRequest, follower_sockets};
use crate::admin::AdminClient;
use crate::counts::CountsByService;
use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// The pause before a follower that did not answer is asked again.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// All followers of this leader.
#[derive(Default)]
pub(crate) struct Followers {
    sockets: RefCell<Vec<PathBuf>>,
    /// What those counted that have ended.
    final_counts: RefCell<CountsByService>,
}

impl Followers {
    pub(crate) fn new(final_counts: CountsByService) -> Self {
        Self {
            sockets: RefCell::default(),
            final_counts: RefCell::new(final_counts),
        }
    }

    /// Finds the sockets of followers beside the admin socket.
    pub(crate) fn discover(&self, admin: &Path) {
        *self.sockets.borrow_mut() = follower_sockets(admin);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sockets.borrow().is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.sockets.borrow().len()
    }

    pub(crate) fn final_counts(&self) -> CountsByService {
        self.final_counts.borrow().clone()
    }

    pub(crate) fn change_final_counts(&self, change: impl FnOnce(&mut CountsByService)) {
        change(&mut self.final_counts.borrow_mut());
    }

    /// Returns when every follower has obeyed, or is gone.
    pub(crate) async fn replicate(&self, request: &ReplicateRequest) {
        let replications = self.clients().into_iter().map(|(socket, client)| {
            let request = request.clone();
            tokio::task::spawn_local(async move {
                let answer = until_answered(&socket, || client.replicate(&request)).await;
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

    /// What all followers have counted, those included that have ended.
    pub(crate) async fn counts(&self) -> CountsByService {
        loop {
            let asked = self.sockets.borrow().clone();
            let mut total = CountsByService::new();
            for (socket, client) in self.clients() {
                match until_answered(&socket, || client.counts()).await {
                    Some(answer) => add(&mut total, &answer.services),
                    None => self.forget(&socket),
                }
            }
            // One that ended meanwhile may be in both sums: count again.
            if *self.sockets.borrow() == asked {
                add(&mut total, &self.final_counts.borrow());
                return total;
            }
        }
    }

    /// A follower has ended, and its counts are final.
    pub(crate) fn record_final_counts(&self, request: &FinalCountsRequest) {
        let mut sockets = self.sockets.borrow_mut();
        let known = sockets.len();
        // By name: each process may spell the folder in its own way.
        sockets.retain(|socket| socket.file_name() != request.socket.file_name());
        if sockets.len() < known {
            add(&mut self.final_counts.borrow_mut(), &request.services);
        }
    }

    fn clients(&self) -> Vec<(PathBuf, AdminClient)> {
        let sockets = self.sockets.borrow();
        let client = |socket: &PathBuf| (socket.clone(), AdminClient::new(socket));
        sockets.iter().map(client).collect()
    }

    fn forget(&self, socket: &Path) {
        self.sockets.borrow_mut().retain(|known| known != socket);
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

fn add(total: &mut CountsByService, some: &CountsByService) {
    for (name, counts) in some {
        total.entry(name.clone()).or_default().add(counts);
    }
}
