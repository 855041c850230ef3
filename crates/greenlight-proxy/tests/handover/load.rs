//! Users: on new connections, on connections kept alive, and on one that has left HTTP.

use crate::client::{Client, echo};
use crate::proxy::until;
use parking_lot::Mutex;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Who is not answered for so long was lost; far more than a busy machine takes.
const RESPONSE_TIMEOUT: Duration = Duration::from_mins(2);
/// Users of each kind.
const USERS: usize = 6;

#[derive(Default)]
struct Seen {
    is_over: AtomicBool,
    answered: AtomicU64,
    echoed: AtomicU64,
    failures: Mutex<Vec<String>>,
}

pub(crate) struct Load {
    seen: Arc<Seen>,
    users: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(to: SocketAddr) -> Self {
        let seen = Arc::new(Seen::default());
        let mut users = vec![user(&seen, "tunnel", {
            let seen = seen.clone();
            move || talk(to, seen.clone())
        })];
        for _ in 0..USERS {
            let mine = seen.clone();
            let once = move || once(to, mine.clone());
            users.push(user(&seen, "new connection", once));
            let mine = seen.clone();
            let kept = move || kept_alive(to, mine.clone());
            users.push(user(&seen, "kept-alive connection", kept));
        }
        Self { seen, users }
    }

    /// Waits until so many more requests were answered, and a message came back.
    pub(crate) async fn go_on_for(&self, requests: u64) {
        let answered = self.seen.answered.load(SeqCst) + requests;
        let echoed = self.seen.echoed.load(SeqCst) + 1;
        until("users are answered", async || {
            self.assert_no_failure();
            let is_enough = self.seen.answered.load(SeqCst) >= answered
                && self.seen.echoed.load(SeqCst) >= echoed;
            is_enough.then_some(())
        })
        .await;
    }

    /// Ends it; returns how many requests were answered.
    pub(crate) async fn end(self) -> u64 {
        self.seen.is_over.store(true, SeqCst);
        for user in self.users {
            user.await.expect("a user does not panic");
        }
        let failures = self.seen.failures.lock();
        assert!(failures.is_empty(), "{failures:?}"); // G3
        self.seen.answered.load(SeqCst)
    }

    fn assert_no_failure(&self) {
        let failures = self.seen.failures.lock();
        assert!(failures.is_empty(), "{failures:?}"); // G3
    }
}

fn user<Fut>(
    seen: &Arc<Seen>,
    kind: &'static str,
    visit: impl Fn() -> Fut + Send + 'static,
) -> JoinHandle<()>
where
    Fut: Future<Output = io::Result<()>> + Send,
{
    let seen = seen.clone();
    tokio::spawn(async move {
        while !seen.is_over.load(SeqCst) {
            if let Err(error) = visit().await {
                let mut failures = seen.failures.lock();
                failures.push(format!("{kind}: {error}"));
                return;
            }
        }
    })
}

async fn once(to: SocketAddr, seen: Arc<Seen>) -> io::Result<()> {
    let mut client = Client::connect(to).await?;
    ask(&mut client, &seen).await.map(|_| ())
}

async fn kept_alive(to: SocketAddr, seen: Arc<Seen>) -> io::Result<()> {
    let mut client = Client::connect(to).await?;
    while !seen.is_over.load(SeqCst) {
        if ask(&mut client, &seen).await? {
            return Ok(());
        }
        // Idle for a moment, so that handovers also find idle connections.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    Ok(())
}

/// Asks once; says whether the connection is announced to close.
async fn ask(client: &mut Client<tokio::net::TcpStream>, seen: &Seen) -> io::Result<bool> {
    let response = timeout(RESPONSE_TIMEOUT, client.get("/")).await??;
    if response.status != 200 {
        return Err(io::Error::other(response.head));
    }
    seen.answered.fetch_add(1, SeqCst);
    Ok(response.closes())
}

async fn talk(to: SocketAddr, seen: Arc<Seen>) -> io::Result<()> {
    let mut stream = Client::connect(to).await?.upgrade().await?;
    while !seen.is_over.load(SeqCst) {
        echo(&mut stream).await?;
        seen.echoed.fetch_add(1, SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
