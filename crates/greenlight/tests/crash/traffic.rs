//! Users' traffic over the whole of a test, and what it must not have seen.
//!
//! GET and POST over new and kept connections to both instances, and a WebSocket to each. Every
//! release has a version of its own, so each response shows who gave it.

use futures_util::{SinkExt as _, StreamExt as _};
use greenlight::load::{Load, Mix, RequestError, Sample};
use greenlight_shell::clock::monotonic_ns;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

const MIX: Mix = Mix {
    per_second: 150,
    fresh: 7,
    post: 4,
};
/// Only on the second instance, `b`, are a proxy and applications killed: the first has no excuse.
const KILLED_ON: usize = 1;
/// A WebSocket speaks this often.
const SPEAK_EVERY: Duration = Duration::from_millis(20);
/// An echo that takes longer has failed.
const ECHO_TIMEOUT: Duration = Duration::from_mins(1);

/// The traffic as it runs.
pub(crate) struct Traffic {
    load: Load,
    sockets: Vec<Socket>,
    runs: Vec<Run>,
}

/// One WebSocket after the other to one instance.
struct Socket {
    sessions: Arc<Mutex<Vec<Session>>>,
    speaks: tokio::task::JoinHandle<()>,
}

/// One deployment as users may have noticed it.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// What was done, for a failure's message.
    pub(crate) title: String,
    /// From when to when, on the monotonic clock.
    pub(crate) from_ns: u64,
    pub(crate) until_ns: u64,
    /// What served before.
    pub(crate) old: String,
    /// What was deployed.
    pub(crate) new: String,
    pub(crate) went: Went,
    /// What users may have noticed.
    pub(crate) excused: Excused,
}

/// How a deployment went, by decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Went {
    /// The new release serves.
    Forward,
    /// The new release never served.
    Nowhere,
    /// The new release served, and then the old one again.
    ForwardAndBack,
}

/// Failures that have an honest excuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excused {
    /// None has.
    Nothing,
    /// A POST that a killed application of `b` had in its hands is not sent again.
    PostsInHand,
    /// The connections that a killed proxy of `b` had in its hands, and tries to reach it before
    /// this time.
    Connections { until_ns: u64 },
}

/// One WebSocket from its opening to its end.
#[derive(Debug)]
struct Session {
    release: Result<String, String>,
    echoes: u64,
    ended_ns: u64,
    end: String,
}

impl Traffic {
    pub(crate) fn start(targets: &[SocketAddr]) -> Self {
        Self {
            load: Load::start_mixed(targets.to_vec(), MIX).expect("a thread"),
            sockets: targets.iter().copied().map(Socket::open).collect(),
            runs: Vec::new(),
        }
    }

    /// How many requests were answered so far, and how many of these failed.
    pub(crate) fn progress(&self) -> (usize, usize) {
        self.load.progress()
    }

    /// Notes a deployment, and looks at once at what users have seen of it.
    pub(crate) fn ran(&mut self, run: Run) {
        let samples = self.load.samples();
        let near: Vec<_> = samples.into_iter().filter(|s| run.touches(s)).collect();
        let order = run.judge_order(&near);
        let title = run.title.clone();
        self.runs.push(run);
        judge(&near, &self.runs);
        if let Err(problem) = order {
            panic!("{title}: {problem}");
        }
    }

    /// Ends the traffic and looks at all of it. Returns how many requests there were, and how
    /// many failed with an excuse.
    pub(crate) fn stop(self, effects: &Path) -> (usize, usize) {
        for socket in &self.sockets {
            socket.speaks.abort();
        }
        let samples = self.load.stop();
        judge(&samples, &self.runs);
        for run in &self.runs {
            if let Err(problem) = run.judge_order(&samples) {
                panic!("{}: {problem}", run.title);
            }
        }
        judge_effects(&samples, effects);
        for (instance, socket) in self.sockets.iter().enumerate() {
            let sessions = socket.sessions.lock();
            judge_sessions(instance, &sessions, &self.runs);
        }
        let failed = samples.iter().filter(|s| s.result.is_err()).count();
        (samples.len(), failed)
    }
}

/// Who may answer a request, and whether it may fail, by all that went on while it was under
/// way: one that waits may well see the next deployment. Between deployments nothing may fail.
fn judge(samples: &[Sample], runs: &[Run]) {
    assert!(!samples.is_empty(), "there was no traffic");
    for sample in samples {
        let meanwhile = || runs.iter().filter(|run| run.touches(sample));
        let titles = || meanwhile().map(|run| &*run.title).collect::<Vec<_>>();
        match &sample.result {
            // G2
            Ok(release) => assert!(
                meanwhile().count() == 0 || meanwhile().any(|run| run.knows(release)),
                "{:?}: another release answered: {sample:?}{}",
                titles(),
                around(samples, sample)
            ),
            // G3
            Err(error) => assert!(
                meanwhile().any(|run| run.excuses(sample, error)),
                "{:?}: failed: {sample:?}",
                titles()
            ),
        }
    }
}

impl Run {
    fn covers(&self, at_ns: u64) -> bool {
        (self.from_ns..self.until_ns).contains(&at_ns)
    }

    /// Whether a request was under way during any of it.
    fn touches(&self, sample: &Sample) -> bool {
        sample.sent_ns < self.until_ns && sample.received_ns >= self.from_ns
    }

    fn knows(&self, release: &str) -> bool {
        release == self.old || release == self.new
    }

    /// G1, from outside: no request that was sent after the new release had answered anywhere is
    /// answered by the old one. Going back, the same the other way round.
    fn judge_order(&self, samples: &[Sample]) -> Result<(), String> {
        let inside: Vec<_> = samples.iter().filter(|s| self.covers(s.sent_ns)).collect();
        if inside.is_empty() {
            return Err("there was no traffic".to_owned());
        }
        let samples = &inside[..];
        let (old, new) = (&self.old, &self.new);
        match self.went {
            Went::Nowhere => match samples.iter().find(|s| s.result.as_ref() == Ok(new)) {
                Some(seen) => Err(format!("a release that was not committed served: {seen:?}")),
                None => Ok(()),
            },
            Went::Forward if old == new => Ok(()),
            Went::Forward => no_stale(samples, old, new, 0),
            Went::ForwardAndBack => {
                // Had the old release served on somewhere, it would be found to have come back
                // before the new one was gone.
                let Some(switched) = first(samples, new, 0) else {
                    return Ok(());
                };
                no_stale(samples, new, old, switched)
            }
        }
    }

    fn excuses(&self, sample: &Sample, error: &RequestError) -> bool {
        if sample.instance != KILLED_ON {
            return false;
        }
        match self.excused {
            Excused::Nothing => false,
            Excused::PostsInHand => sample.key.is_some() && *error == RequestError::Status(502),
            Excused::Connections { until_ns } => {
                let lost = match error {
                    RequestError::NotConnected(_)
                    | RequestError::NotSent(_)
                    | RequestError::Broken(_) => true,
                    RequestError::Status(_) | RequestError::NoAnswer => false,
                };
                lost && sample.sent_ns < until_ns
            }
        }
    }
}

/// When a release was first seen to answer a request sent after a time.
fn first(samples: &[&Sample], release: &str, after_ns: u64) -> Option<u64> {
    let its = samples
        .iter()
        .filter(|sample| sample.result.as_deref() == Ok(release) && sample.sent_ns > after_ns);
    its.map(|sample| sample.received_ns).min()
}

/// Nothing that was sent after `after` had answered is answered by `before`.
fn no_stale(samples: &[&Sample], before: &str, after: &str, from_ns: u64) -> Result<(), String> {
    let Some(first) = first(samples, after, from_ns) else {
        return Ok(());
    };
    let stale = samples
        .iter()
        .find(|sample| sample.result.as_deref() == Ok(before) && sample.sent_ns > first);
    match stale {
        Some(stale) => {
            let late = (stale.sent_ns - first) / 1_000;
            Err(format!("stale by {late} us: {stale:?}"))
        }
        None => Ok(()),
    }
}

/// What became of other slow requests, and how evenly requests were sent, near a strange one.
fn around(samples: &[Sample], strange: &Sample) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let mut last = [0, 0];
    for sample in samples {
        let took = sample.received_ns.saturating_sub(sample.sent_ns) / 1_000_000;
        let gap = sample.sent_ns.saturating_sub(last[sample.instance]) / 1_000_000;
        last[sample.instance] = sample.sent_ns.max(last[sample.instance]);
        if took > 200 || gap > 200 {
            let at = (i128::from(sample.sent_ns) - i128::from(strange.sent_ns)) / 1_000_000;
            let _ = write!(text, "\n{at} ms, gap {gap} ms, took {took} ms: {sample:?}");
        }
    }
    text
}

/// The effect of a POST comes once if it was answered, and never more than once.
fn judge_effects(samples: &[Sample], effects: &Path) {
    let text = std::fs::read_to_string(effects).unwrap_or_default();
    let mut done = BTreeMap::<&str, u32>::new();
    for key in text.lines() {
        *done.entry(key).or_default() += 1;
    }
    let twice: Vec<_> = done.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "done more than once: {twice:?}");
    let posts = samples.iter().filter(|sample| sample.result.is_ok());
    let posts: BTreeSet<_> = posts.filter_map(|sample| sample.key.as_deref()).collect();
    assert!(!posts.is_empty(), "there was no POST");
    let missing: Vec<_> = posts
        .iter()
        .filter(|key| !done.contains_key(**key))
        .collect();
    assert!(missing.is_empty(), "answered and not done: {missing:?}");
}

/// A WebSocket ends only with its release (G7): whoever opens the next finds another one.
fn judge_sessions(instance: usize, sessions: &[Session], runs: &[Run]) {
    let excused = |session: &Session| {
        let mut runs = runs.iter().filter(|run| run.excused != Excused::Nothing);
        instance == KILLED_ON && runs.any(|run| run.covers(session.ended_ns))
    };
    for (number, session) in sessions.iter().enumerate() {
        if excused(session) {
            continue;
        }
        let release = match &session.release {
            Ok(release) => release,
            Err(reason) => panic!("a WebSocket could not be opened: {reason}"),
        };
        let next = sessions.get(number + 1);
        let next = next.and_then(|next| next.release.as_ref().ok());
        assert_ne!(
            next,
            Some(release),
            "a WebSocket of instance {instance} was cut off: {session:?}"
        );
    }
    assert!(sessions.iter().any(|session| session.echoes > 0));
}

impl Socket {
    /// Keeps a WebSocket open, and opens the next when one has ended.
    fn open(target: SocketAddr) -> Self {
        let sessions = Arc::default();
        let speaks = tokio::spawn(speak(target, Arc::clone(&sessions)));
        Self { sessions, speaks }
    }
}

async fn speak(target: SocketAddr, sessions: Arc<Mutex<Vec<Session>>>) {
    loop {
        let mut session = Session {
            release: Err("it did not begin".to_owned()),
            echoes: 0,
            ended_ns: 0,
            end: String::new(),
        };
        session.end = match run_session(target, &mut session).await {
            Ok(()) => "closed".to_owned(),
            Err(reason) => {
                if session.echoes == 0 {
                    session.release = Err(reason.clone());
                }
                reason
            }
        };
        session.ended_ns = monotonic_ns();
        let failed = session.release.is_err();
        sessions.lock().push(session);
        if failed {
            tokio::time::sleep(SPEAK_EVERY).await;
        }
    }
}

async fn run_session(target: SocketAddr, session: &mut Session) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect(target).await.map_err(|e| text(&e))?;
    let url = format!("ws://{target}/socket");
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream)
        .await
        .map_err(|e| text(&e))?;
    loop {
        let said = format!("message {}", session.echoes);
        let sent = socket.send(Message::text(said.clone())).await;
        sent.map_err(|e| text(&e))?;
        let heard = tokio::time::timeout(ECHO_TIMEOUT, socket.next()).await;
        let heard = heard.map_err(|_| "no echo".to_owned())?;
        let message = match heard {
            Some(Ok(Message::Text(message))) => message,
            Some(Ok(_)) | None => return Ok(()),
            Some(Err(error)) => return Err(error.to_string()),
        };
        let Some((release, echo)) = message.split_once(' ') else {
            return Err(format!("`{message}` is no echo"));
        };
        if echo != said {
            return Err(format!("`{said}` came back as `{echo}`"));
        }
        session.release = Ok(release.to_owned());
        session.echoes += 1;
        tokio::time::sleep(SPEAK_EVERY).await;
    }
}
