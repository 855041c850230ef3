//! The predecessors that still have connections: told the routing, and asked for their counts.
//!
//! A predecessor's connections pass its own gates, so an order is carried out only when every
//! predecessor has carried it out too. One whose socket refuses connections is gone, and its
//! connections with it; one that does not answer is waited for, because it may be admitting.

use super::AdminClient;
use super::following::{FollowRequest, LeftRequest, sockets_beside};
use crate::counts::CountsByService;
use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// The pause before a predecessor that did not answer is asked again.
const PAUSE: Duration = Duration::from_millis(5);

/// All predecessors of this process.
#[derive(Default)]
pub(super) struct Predecessors {
    sockets: RefCell<Vec<PathBuf>>,
    /// What those counted that have ended.
    departed: RefCell<CountsByService>,
}

impl Predecessors {
    pub(super) fn new(departed: CountsByService) -> Self {
        Self {
            sockets: RefCell::default(),
            departed: RefCell::new(departed),
        }
    }

    /// Looks for the sockets of predecessors beside the admin socket.
    pub(super) fn discover(&self, admin: &Path) {
        *self.sockets.borrow_mut() = sockets_beside(admin);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sockets.borrow().is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.sockets.borrow().len()
    }

    pub(super) fn departed(&self) -> CountsByService {
        self.departed.borrow().clone()
    }

    pub(super) fn change_departed(&self, change: impl FnOnce(&mut CountsByService)) {
        change(&mut self.departed.borrow_mut());
    }

    /// Returns when every predecessor follows, or is gone.
    pub(super) async fn tell(&self, request: &FollowRequest) {
        let told = self.clients().into_iter().map(|(socket, client)| {
            let request = request.clone();
            tokio::task::spawn_local(async move {
                let answer = until_answered(&socket, || client.follow(&request)).await;
                (socket, answer.is_none())
            })
        });
        for told in told.collect::<Vec<_>>() {
            let (socket, is_gone) = told.await.expect("asking does not panic");
            if is_gone {
                self.forget(&socket);
            }
        }
    }

    /// What all predecessors have counted, those included that have ended.
    pub(super) async fn counts(&self) -> CountsByService {
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
                add(&mut total, &self.departed.borrow());
                return total;
            }
        }
    }

    /// A predecessor has ended, and its counts are final.
    pub(super) fn left(&self, request: &LeftRequest) {
        let mut sockets = self.sockets.borrow_mut();
        let known = sockets.len();
        // By name: each process may spell the folder in its own way.
        sockets.retain(|socket| socket.file_name() != request.socket.file_name());
        if sockets.len() < known {
            add(&mut self.departed.borrow_mut(), &request.services);
        }
    }

    fn clients(&self) -> Vec<(PathBuf, AdminClient)> {
        let sockets = self.sockets.borrow();
        let client = |socket: &PathBuf| (socket.clone(), AdminClient::new(socket));
        sockets.iter().map(client).collect()
    }

    fn forget(&self, socket: &Path) {
        self.sockets.borrow_mut().retain(|known| known != socket);
        // Nobody listens there: it is left over from a process that died.
        let _ = std::fs::remove_file(socket);
    }
}

/// Asks until there is an answer; `None` if there is nobody any more.
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
            tracing::warn!(%error, "a predecessor that still has connections does not answer");
            is_first = false;
        }
        tokio::time::sleep(PAUSE).await;
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
