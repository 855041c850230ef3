//! The leader's view of its followers: it replicates the routing to them, and asks for their
//! counts.
//!
//! A follower's connections pass its own gates, so a command is carried out only when every
//! follower has carried it out too. One whose socket refuses connections is gone, and its
//! connections with it; one that does not answer is waited for, because it may be admitting.
//!
//! Messages are sent by a thread of their own, because the admin thread waits for the disk: it
//! flips its gates, tells its followers, and writes that down, and the followers are to flip before
//! the last of these is done.

use super::follower_calls::{CountsAnswer, counts, replicate};
use super::follower_socket::{follower_name, follower_sockets};
use greenlight_admin::AdminClient;
use greenlight_admin::ServiceSettings;
use greenlight_gate::{CountsByCutOver, ReplicateRequest};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle};

/// The pause before a follower that did not answer is asked again.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// All followers of this leader.
pub(crate) struct Followers {
    sockets: RefCell<Vec<PathBuf>>,
    /// The thread that sends messages to them.
    thread: Handle,
    /// Ends it.
    _running: oneshot::Sender<Infallible>,
}

/// Messages of one kind, each on its way to a follower, which gets it even if no one waits.
pub(crate) struct Sent<A>(Vec<(PathBuf, JoinHandle<Option<A>>)>);

/// Ends what is on its way to followers, if it still is, when nobody waits for the answers any more.
/// A follower that stands still never answers, and each question to it would keep its task and its
/// connection.
struct Asking(Vec<AbortHandle>);

impl<A> Sent<A> {
    fn as_long_as_somebody_waits(&self) -> Asking {
        let tasks = self.0.iter().map(|(_, task)| task.abort_handle());
        Asking(tasks.collect())
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Followers {
    /// Starts the thread; knows no followers yet.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = runtime.handle().clone();
        let (running, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("followers".to_owned())
            .spawn(move || {
                // Its sender says nothing but that it is gone.
                let _ = runtime.block_on(ended);
            })?;
        Ok(Self {
            sockets: RefCell::default(),
            thread,
            _running: running,
        })
    }

    /// Finds the sockets of followers beside the admin socket.
    pub(crate) fn discover(&self, admin: &Path) {
        *self.sockets.borrow_mut() = follower_sockets(admin);
    }

    pub(crate) fn len(&self) -> usize {
        self.sockets.borrow().len()
    }

    pub(crate) fn names(&self) -> BTreeSet<String> {
        let sockets = self.sockets.borrow();
        sockets.iter().map(|socket| follower_name(socket)).collect()
    }

    /// Sends every follower the routing, at once.
    pub(crate) fn send_routing(
        &self,
        request: &ReplicateRequest<ServiceSettings>,
    ) -> Sent<CountsAnswer> {
        let request = Arc::new(request.clone());
        self.send(move |follower| {
            let request = request.clone();
            async move { replicate(&follower, &request).await }
        })
    }

    /// Returns when every follower has obeyed, or is gone.
    pub(crate) async fn have_obeyed(&self, sent: Sent<CountsAnswer>) {
        self.answers(sent).await;
    }

    /// What all followers have counted, without those that have ended.
    pub(crate) async fn counts(&self) -> CountsByCutOver {
        loop {
            let asked = self.sockets.borrow().clone();
            let sent = self.send(|follower| async move { counts(&follower).await });
            let _asking = sent.as_long_as_somebody_waits();
            let mut total = CountsByCutOver::default();
            for answer in self.answers(sent).await {
                total.add_all(&answer.services);
            }
            // One that ended meanwhile is not one of them any more: count again.
            if *self.sockets.borrow() == asked {
                return total;
            }
        }
    }

    fn send<A, E, Fut>(
        &self,
        ask: impl Fn(AdminClient) -> Fut + Clone + Send + Sync + 'static,
    ) -> Sent<A>
    where
        A: Send + 'static,
        E: std::fmt::Display + Send,
        Fut: Future<Output = Result<A, E>> + Send,
    {
        let sockets = self.sockets.borrow();
        let sent = sockets.iter().map(|socket| {
            let (ask, to) = (ask.clone(), socket.clone());
            let follower = AdminClient::new(socket);
            let answer = async move { until_answered(&to, || ask(follower.clone())).await };
            (socket.clone(), self.thread.spawn(answer))
        });
        Sent(sent.collect())
    }

    /// The answers of all followers that are not gone.
    async fn answers<A>(&self, sent: Sent<A>) -> Vec<A> {
        let mut answers = Vec::new();
        for (socket, answer) in sent.0 {
            match answer.await.expect("asking does not panic") {
                Some(answer) => answers.push(answer),
                None => self.forget(&socket),
            }
        }
        answers
    }

    /// A follower has ended.
    pub(crate) fn has_ended(&self, name: &str) {
        let mut sockets = self.sockets.borrow_mut();
        sockets.retain(|socket| follower_name(socket) != name);
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
