//! An open-loop load: each request leaves at its scheduled time, no matter what happens to others.
//! There is one exception: while too many are under way the next one waits. The longest such delay is
//! noted as lateness.
//!
//! It measures from outside, as users would see it, and on one clock, because it is one process.

mod stamped;
mod window;

use stamped::{Stamped, Stamps};
pub use window::{Flip, Segment, Window, analyse};

use bytes::Bytes;
use greenlight_shell::clock::monotonic_ns;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

/// A request that gets no answer in this time has failed: as long as Nginx and most load balancers
/// wait by default. How long the slowest took is told apart from that.
const TIMEOUT: Duration = Duration::from_mins(1);
/// How many connections to one target are kept. Without a bound each new connection stays open, and
/// a load that runs for minutes runs out of descriptors.
const MAX_IDLE: usize = 256;
/// How many requests of one stream may be under way at a time, if it sends fewer in a second; else as
/// many as it sends in a second. More than the machine can carry would pile up until they time out,
/// and show nothing but that. A hold within the default budget, 250 ms, keeps a quarter of a second
/// of requests waiting.
const MIN_UNDER_WAY: usize = 256;

/// The result of one request. Times are nanoseconds on the monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Which target.
    pub instance: usize,
    /// When it was to leave: what a user waits for begins here, also if there is no connection yet.
    pub due_ns: u64,
    /// When its first bytes had been written to the socket; when it failed without that, when it
    /// was to leave.
    pub sent_ns: u64,
    /// When the answer's first bytes had been read from the socket, or the failure was known.
    pub received_ns: u64,
    /// The key that a POST carried; none for a GET.
    pub key: Option<String>,
    /// Which release answered, or what went wrong.
    pub result: Result<String, RequestError>,
}

/// Why a request has no good answer. What other libraries say of it is kept as their text, because
/// samples are compared and counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No connection came about.
    #[error("{0}")]
    NotConnected(String),
    /// The request cannot be written as HTTP.
    #[error("{0}")]
    NotSent(String),
    /// The connection ended before the answer was complete.
    #[error("connection broke: {0}")]
    Broken(String),
    /// The answer is no success.
    #[error("status {0}")]
    Status(u16),
    /// Nothing came in time.
    #[error("no answer")]
    NoAnswer,
}

/// What a load is made of.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Requests a second to each target.
    pub per_second: u32,
    /// Every so many come over a new connection, the others over kept ones.
    pub fresh: u64,
    /// Every so many are POSTs with a key of their own; none if 0.
    pub post: u64,
}

/// The load as it runs.
pub struct Load {
    samples: Arc<Mutex<Vec<Sample>>>,
    latest: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
    thread: std::thread::JoinHandle<()>,
}

impl Load {
    /// Starts sending `per_second` GET requests to each target. Every `fresh`-th goes over a new
    /// connection, the others over kept ones.
    pub fn start(targets: Vec<SocketAddr>, per_second: u32, fresh: u64) -> std::io::Result<Self> {
        let mix = Mix {
            per_second,
            fresh,
            post: 0,
        };
        Self::start_mixed(targets, mix)
    }

    /// Starts sending requests of both kinds to each target.
    pub fn start_mixed(targets: Vec<SocketAddr>, mix: Mix) -> std::io::Result<Self> {
        let streams = (0..targets.len()).map(|only| -> Choice { Box::new(move || only) });
        let streams = streams.collect();
        Self::start_streams(targets, mix, streams)
    }

    /// Starts one stream of `per_second` GET requests, each to the target whose number `choose`
    /// gives: a load balancer's point of view.
    pub fn start_balanced(
        targets: Vec<SocketAddr>,
        per_second: u32,
        fresh: u64,
        choose: impl FnMut() -> usize + Send + 'static,
    ) -> std::io::Result<Self> {
        let mix = Mix {
            per_second,
            fresh,
            post: 0,
        };
        Self::start_streams(targets, mix, vec![Box::new(choose)])
    }

    fn start_streams(
        targets: Vec<SocketAddr>,
        mix: Mix,
        streams: Vec<Choice>,
    ) -> std::io::Result<Self> {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let latest = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = watch::channel(false);
        let (seen, lateness) = (samples.clone(), latest.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || {
                let local = tokio::task::LocalSet::new();
                for choose in streams {
                    let (targets, stopped) = (targets.clone(), stopped.clone());
                    let noted = Noted {
                        samples: seen.clone(),
                        latest_ns: lateness.clone(),
                    };
                    local.spawn_local(drive(targets, choose, mix, noted, stopped));
                }
                runtime.block_on(local);
            })?;
        Ok(Self {
            samples,
            latest,
            stop,
            thread,
        })
    }

    /// How many requests have been answered so far, and how many of these failed.
    pub fn progress(&self) -> (usize, usize) {
        let samples = self.samples.lock();
        let failed = samples
            .iter()
            .filter(|sample| sample.result.is_err())
            .count();
        (samples.len(), failed)
    }

    /// The results of the requests so far.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.lock().clone()
    }

    /// How late its thread was at most, in nanoseconds: so much later than at the socket a request
    /// may have left and an answer may have been seen.
    pub fn lateness_ns(&self) -> u64 {
        self.latest.load(Ordering::Relaxed)
    }

    /// Sends nothing more, waits for the last answers, and returns everything.
    pub fn stop(self) -> Vec<Sample> {
        // If the thread has ended, it needs no signal.
        let _ = self.stop.send(true);
        let _ = self.thread.join();
        std::mem::take(&mut *self.samples.lock())
    }
}

/// A connection that a request at a time goes over.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    stamps: Rc<Stamps>,
}

/// What a load notes.
#[derive(Clone)]
struct Noted {
    samples: Arc<Mutex<Vec<Sample>>>,
    latest_ns: Arc<AtomicU64>,
}

/// Which target gets the next request of a stream.
type Choice = Box<dyn FnMut() -> usize + Send>;
type Idle = Rc<RefCell<VecDeque<Connection>>>;

async fn drive(
    targets: Vec<SocketAddr>,
    mut choose: Choice,
    mix: Mix,
    noted: Noted,
    stopped: watch::Receiver<bool>,
) {
    let idle: Vec<_> = targets.iter().map(|_| Idle::default()).collect();
    let every = Duration::from_secs(1) / mix.per_second.max(1);
    let most_under_way = (mix.per_second as usize).max(MIN_UNDER_WAY);
    let mut due = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    let mut number = 0_u64;
    while !*stopped.borrow() {
        tokio::time::sleep_until(due).await;
        while tasks.len() >= most_under_way {
            tasks.join_next().await;
        }
        let late = u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX);
        noted.latest_ns.fetch_max(late, Ordering::Relaxed);
        // What was not sent meanwhile is not sent at once later.
        due = due.max(Instant::now() - every) + every;
        number += 1;
        let instance = choose();
        let (target, idle) = (targets[instance], idle[instance].clone());
        let kept = if number.is_multiple_of(mix.fresh.max(1)) {
            None
        } else {
            idle.borrow_mut().pop_front()
        };
        let is_post = mix.post > 0 && number.is_multiple_of(mix.post);
        let key = is_post.then(|| format!("{instance}-{number}"));
        let samples = noted.samples.clone();
        tasks.spawn_local(async move {
            let due_ns = monotonic_ns();
            // They outlive the connection, which a failure takes away.
            let stamps = RefCell::default();
            let asked = ask(target, kept, key.as_deref(), &stamps);
            let (result, connection) = match tokio::time::timeout(TIMEOUT, asked).await {
                Ok(Ok((release, connection))) => (Ok(release), Some(connection)),
                Ok(Err(error)) => (Err(error), None),
                Err(_) => (Err(RequestError::NoAnswer), None),
            };
            let now_ns = monotonic_ns();
            let stamps: Rc<Stamps> = stamps.into_inner();
            let sent_ns = stamps.sent_ns.get().unwrap_or(due_ns);
            // A failure is known when it is known, whatever came before it.
            let received_ns = match result {
                Ok(_) => stamps.received_ns.get().unwrap_or(now_ns),
                Err(_) => now_ns,
            };
            if let Some(connection) = connection
                && idle.borrow().len() < MAX_IDLE
            {
                idle.borrow_mut().push_back(connection);
            }
            samples.lock().push(Sample {
                instance,
                due_ns,
                sent_ns,
                received_ns,
                key,
                result,
            });
        });
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
}

async fn ask(
    target: SocketAddr,
    kept: Option<Connection>,
    key: Option<&str>,
    stamps: &RefCell<Rc<Stamps>>,
) -> Result<(String, Connection), RequestError> {
    let mut connection = match kept {
        Some(connection) if !connection.sender.is_closed() => connection,
        Some(_) | None => connect(target).await?,
    };
    connection.stamps.reset();
    stamps.replace(connection.stamps.clone());
    let sender = &mut connection.sender;
    sender.ready().await.map_err(|error| broken(&error))?;
    let request = match key {
        None => Request::get("/"),
        Some(key) => Request::post("/").header("idempotency-key", key),
    };
    let body = Full::from(key.unwrap_or_default().to_owned());
    let request = request.header("host", target.to_string()).body(body);
    let request = request.map_err(|error| RequestError::NotSent(error.to_string()))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| broken(&error))?;
    let status = response.status();
    let release = response.headers().get("x-release");
    let release = release
        .and_then(|r| r.to_str().ok())
        .unwrap_or("unknown")
        .to_owned();
    response
        .into_body()
        .collect()
        .await
        .map_err(|error| broken(&error))?;
    if status.is_success() {
        Ok((release, connection))
    } else {
        Err(RequestError::Status(status.as_u16()))
    }
}

async fn connect(target: SocketAddr) -> Result<Connection, RequestError> {
    let stream = TcpStream::connect(target).await;
    let stream = stream.map_err(|error| not_connected(&error))?;
    stream
        .set_nodelay(true)
        .map_err(|error| not_connected(&error))?;
    let stamps = Rc::new(Stamps::default());
    let stream = Stamped {
        stream,
        stamps: stamps.clone(),
    };
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = shaken.map_err(|error| not_connected(&error))?;
    tokio::task::spawn_local(async move {
        // Its error reaches the task that waits for the response.
        let _ = connection.await;
    });
    Ok(Connection { sender, stamps })
}

fn not_connected(error: &dyn std::error::Error) -> RequestError {
    RequestError::NotConnected(error.to_string())
}

fn broken(error: &hyper::Error) -> RequestError {
    RequestError::Broken(error.to_string())
}
