//! What every runtime must do, as functions over a [`Subject`]. `runtime_conforms!` makes a test
//! of each, so that a failure names what is broken and in which runtime.
//!
//! The applications are small shell scripts, because these run as processes and in containers
//! alike; a fake reads what they should do from [`App`].

use greenlight_agent::runtime::{Launch, Running, Runtime, RuntimeError};
use greenlight_protocol::{Color, Epoch, Incarnation, ServiceName, Slot};
use greenlight_release::secret::Secrets;
use greenlight_release::spec::Artifact;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up.
const TEST_TIMEOUT: Duration = Duration::from_mins(2);
/// What a polite application never needs.
const LONG: Duration = Duration::from_mins(4);

/// A runtime under test, and the machine beneath it.
pub(crate) trait Subject: Send + Sync {
    /// The runtime as an agent opens it. Each call gives another object over the same machine,
    /// as a restarted agent has it.
    fn open(&self) -> Arc<dyn Runtime>;
    /// How an application of this kind is launched. [`launch`] fills in most of it.
    fn launch(&self, app: App, slot: Slot, port: u16) -> Launch;
    /// Ends an application with SIGKILL, from outside.
    fn kill(&self, running: &Running);
    /// What of all that was launched still runs, asked of the machine and not of the runtime.
    fn remaining(&self) -> Vec<String>;
}

/// What an application does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum App {
    /// Writes its environment, runs until SIGTERM, then writes `stopping` and ends.
    Polite,
    /// Writes `started` and ignores SIGTERM.
    Stubborn,
    /// Starts a child that ignores SIGTERM, and is polite itself.
    Parent,
    /// Starts a child that ignores SIGTERM, and ends with status 7 without it.
    BadParent,
    /// Writes three lines and ends with status 7.
    Failing,
    /// Names a program that does not exist.
    Missing,
}

impl App {
    /// The application as a command for `sh`.
    pub(crate) fn command(self) -> Vec<String> {
        const POLITE: &str = "trap 'echo stopping; exit 0' TERM; \
             echo \"port=$PORT version=$VERSION service=$GREENLIGHT_SERVICE \
             color=$GREENLIGHT_COLOR incarnation=$GREENLIGHT_INCARNATION greeting=$GREETING \
             argument=$0\"; while :; do sleep 0.05; done";
        const STUBBORN: &str = "trap '' TERM; echo started; while :; do sleep 0.05; done";
        const CHILD: &str = "(trap '' TERM; while :; do sleep 0.05; done) &";
        const FAILING: &str = "echo one; echo two; echo three; exit 7";
        let script = match self {
            Self::Polite => POLITE.to_owned(),
            Self::Stubborn => STUBBORN.to_owned(),
            Self::Parent => format!("{CHILD} {POLITE}"),
            Self::BadParent => format!("{CHILD} {FAILING}"),
            Self::Failing => FAILING.to_owned(),
            Self::Missing => return vec!["no-such-program-anywhere".to_owned()],
        };
        let command = ["sh", "-c", &script, "argument-of-${VERSION}-on-${PORT}"];
        command.map(ToOwned::to_owned).to_vec()
    }
}

/// A launch that any subject can start from.
pub(crate) fn launch(app: App, slot: Slot, port: u16) -> Launch {
    Launch {
        slot,
        incarnation: Incarnation {
            epoch: Epoch(3),
            attempt: 1,
        },
        digest: "digest-of-v1".to_owned(),
        version: "v1".to_owned(),
        artifact: Artifact::command(app.command()),
        env: [("GREETING".to_owned(), "hello-${VERSION}-${PORT}".to_owned())].into(),
        secrets: Secrets::default(),
        port,
    }
}

/// Makes a test of every function of the suite. The argument makes a new subject.
macro_rules! runtime_conforms {
    (ignored $why:literal, $subject:expr) => {
        runtime_conforms!(@all [#[ignore = $why]] $subject);
    };
    ($subject:expr) => {
        runtime_conforms!(@all [] $subject);
    };
    (@all $gate:tt $subject:expr) => {
        runtime_conforms!(@ $gate $subject;
            an_application_is_told_its_port_and_environment,
            how_an_application_ended_and_its_last_lines_are_known,
            a_stop_lets_a_polite_application_end_by_itself,
            a_stop_ends_a_stubborn_application_when_patience_ends,
            a_stop_takes_the_children_that_the_application_started,
            children_do_not_outlive_an_application_that_died,
            a_restarted_agent_finds_what_runs_and_can_stop_it,
            a_restarted_agent_notices_a_death,
            a_taken_port_is_a_clear_error_and_leaves_nothing,
            a_missing_program_is_a_clear_error_and_leaves_nothing,
            stopping_an_empty_slot_is_no_error,
            slots_do_not_touch_each_other,
            a_slot_can_be_filled_again,
        );
    };
    // One test at a time; the attributes are handed on whole.
    (@ $gate:tt $subject:expr;) => {};
    (@ [$($gate:tt)*] $subject:expr; $name:ident, $($rest:ident,)*) => {
        #[tokio::test(flavor = "multi_thread")]
        $($gate)*
        async fn $name() {
            let subject = $subject;
            $crate::conformance::runtime::$name(&subject).await;
        }
        runtime_conforms!(@ [$($gate)*] $subject; $($rest,)*);
    };
}

pub(crate) async fn an_application_is_told_its_port_and_environment(subject: &dyn Subject) {
    let runtime = subject.open();
    let port = free_port();

    start(subject, &*runtime, App::Polite, Color::Blue, port).await;

    let log = logged(&*runtime, Color::Blue, "port=").await;
    let wanted = format!(
        "port={port} version=v1 service=shop color=blue incarnation=3.1 \
         greeting=hello-v1-{port} argument=argument-of-v1-on-{port}"
    );
    assert_eq!(log, [wanted]);
    stop(&*runtime, Color::Blue).await;
}

pub(crate) async fn how_an_application_ended_and_its_last_lines_are_known(subject: &dyn Subject) {
    let runtime = subject.open();

    let failing = start(subject, &*runtime, App::Failing, Color::Blue, free_port()).await;

    let ended = exited(&*runtime, failing).await;
    assert!(ended.contains("status 7"), "{ended}");
    let blue = slot(Color::Blue);
    assert_eq!(runtime.logs(&blue, 2).await, ["two", "three"]);
    assert_eq!(runtime.logs(&blue, 10).await, ["one", "two", "three"]);
    assert!(runtime.logs(&slot(Color::Green), 10).await.is_empty());
    stop(&*runtime, Color::Blue).await;
}

pub(crate) async fn a_stop_lets_a_polite_application_end_by_itself(subject: &dyn Subject) {
    let runtime = subject.open();
    let polite = start(subject, &*runtime, App::Polite, Color::Blue, free_port()).await;
    logged(&*runtime, Color::Blue, "port=").await;
    assert!(!subject.remaining().is_empty(), "the machine is not seen");

    stop(&*runtime, Color::Blue).await; // G7

    assert_eq!(last_line(&*runtime, Color::Blue).await, "stopping");
    assert_eq!(subject.remaining(), [""; 0]);
    assert_eq!(listed(&*runtime).await, []);
    exited(&*runtime, polite).await;
}

pub(crate) async fn a_stop_ends_a_stubborn_application_when_patience_ends(subject: &dyn Subject) {
    let runtime = subject.open();
    start(subject, &*runtime, App::Stubborn, Color::Blue, free_port()).await;
    logged(&*runtime, Color::Blue, "started").await;
    let timeout = Duration::from_millis(300);
    let began = Instant::now();

    let stopped = runtime.stop(slot(Color::Blue), timeout).await;

    stopped.expect("it can be killed");
    assert!(began.elapsed() >= timeout, "it was killed too early"); // G7
    assert_eq!(subject.remaining(), [""; 0]);
    assert_eq!(listed(&*runtime).await, []);
}

pub(crate) async fn a_stop_takes_the_children_that_the_application_started(subject: &dyn Subject) {
    let runtime = subject.open();
    start(subject, &*runtime, App::Parent, Color::Blue, free_port()).await;
    logged(&*runtime, Color::Blue, "port=").await;

    stop(&*runtime, Color::Blue).await;

    assert_eq!(subject.remaining(), [""; 0]);
}

pub(crate) async fn children_do_not_outlive_an_application_that_died(subject: &dyn Subject) {
    let runtime = subject.open();
    let bad = start(subject, &*runtime, App::BadParent, Color::Blue, free_port()).await;

    exited(&*runtime, bad).await;

    // They might hold the port, and nobody will ask for a stop of what is dead.
    until("its children are gone", || subject.remaining().is_empty()).await;
    assert_eq!(listed(&*runtime).await, []);
}

pub(crate) async fn a_restarted_agent_finds_what_runs_and_can_stop_it(subject: &dyn Subject) {
    let first = subject.open();
    let polite = start(subject, &*first, App::Polite, Color::Blue, free_port()).await;
    logged(&*first, Color::Blue, "port=").await;
    drop(first);

    let second = subject.open();

    assert_eq!(listed(&*second).await, std::slice::from_ref(&polite));
    assert!(!second.logs(&slot(Color::Blue), 10).await.is_empty());
    stop(&*second, Color::Blue).await;
    exited(&*second, polite).await;
    assert_eq!(listed(&*second).await, []);
    assert_eq!(subject.remaining(), [""; 0]);
}

pub(crate) async fn a_restarted_agent_notices_a_death(subject: &dyn Subject) {
    let first = subject.open();
    start(subject, &*first, App::Polite, Color::Blue, free_port()).await;
    logged(&*first, Color::Blue, "port=").await;
    let second = subject.open();
    let found = listed(&*second).await;
    let [found] = &found[..] else {
        panic!("{found:?}")
    };
    let death = tokio::spawn(second.exited(found.clone()));

    subject.kill(found);

    let death = tokio::time::timeout(TEST_TIMEOUT, death).await;
    death.expect("it is noticed").expect("it does not panic");
    until("nothing is left", || subject.remaining().is_empty()).await;
    assert_eq!(listed(&*second).await, []);
    assert_eq!(listed(&*subject.open()).await, []);
}

pub(crate) async fn a_taken_port_is_a_clear_error_and_leaves_nothing(subject: &dyn Subject) {
    let runtime = subject.open();
    // It is taken, let go of, and taken again: nobody else may have it in between.
    let port = free_port();
    let taken = TcpListener::bind(("127.0.0.1", port)).expect("it is ours");
    let launch = subject.launch(App::Polite, slot(Color::Blue), port);

    let error = runtime.start(launch).await.expect_err("the port is taken");

    let RuntimeError::PortTaken { .. } = &error else {
        panic!("{error}")
    };
    let text = error.to_string();
    assert!(text.contains(&port.to_string()), "{text}");
    assert!(text.contains("shop/blue"), "{text}");
    assert_eq!(listed(&*runtime).await, []);
    assert_eq!(subject.remaining(), [""; 0]);
    drop(taken);
    start(subject, &*runtime, App::Polite, Color::Blue, port).await;
    stop(&*runtime, Color::Blue).await;
}

pub(crate) async fn a_missing_program_is_a_clear_error_and_leaves_nothing(subject: &dyn Subject) {
    let runtime = subject.open();
    let launch = subject.launch(App::Missing, slot(Color::Blue), free_port());

    let error = runtime.start(launch).await.expect_err("there is none");

    let text = error.to_string();
    assert!(text.contains("no-such-program-anywhere"), "{text}");
    assert_eq!(listed(&*runtime).await, []);
    assert_eq!(subject.remaining(), [""; 0]);
}

pub(crate) async fn stopping_an_empty_slot_is_no_error(subject: &dyn Subject) {
    let runtime = subject.open();
    stop(&*runtime, Color::Blue).await;
    start(subject, &*runtime, App::Polite, Color::Blue, free_port()).await;
    stop(&*runtime, Color::Blue).await;

    stop(&*runtime, Color::Blue).await;

    assert_eq!(listed(&*runtime).await, []);
}

pub(crate) async fn slots_do_not_touch_each_other(subject: &dyn Subject) {
    let runtime = subject.open();
    let blue = start(subject, &*runtime, App::Polite, Color::Blue, free_port()).await;
    let green = start(subject, &*runtime, App::Polite, Color::Green, free_port()).await;
    logged(&*runtime, Color::Blue, "color=blue").await;
    logged(&*runtime, Color::Green, "color=green").await;
    assert_eq!(listed(&*runtime).await, [blue, green.clone()]);

    stop(&*runtime, Color::Blue).await;

    assert_eq!(listed(&*runtime).await, [green]);
    stop(&*runtime, Color::Green).await;
    assert_eq!(subject.remaining(), [""; 0]);
}

pub(crate) async fn a_slot_can_be_filled_again(subject: &dyn Subject) {
    let runtime = subject.open();
    let port = free_port();
    let failing = start(subject, &*runtime, App::Failing, Color::Blue, port).await;
    exited(&*runtime, failing).await;
    stop(&*runtime, Color::Blue).await;
    let mut launch = subject.launch(App::Polite, slot(Color::Blue), port);
    launch.incarnation.attempt = 2;

    let again = runtime.start(launch).await.expect("the slot is empty");

    assert_eq!(again.launch.incarnation.attempt, 2);
    let log = logged(&*runtime, Color::Blue, "incarnation=3.2").await;
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!(listed(&*runtime).await, [again]);
    stop(&*runtime, Color::Blue).await;
}

pub(crate) fn free_port() -> u16 {
    greenlight_ports::reserve_port().expect("a port is free")
}

pub(crate) fn slot(color: Color) -> Slot {
    Slot {
        service: ServiceName::from("shop"),
        color,
    }
}

pub(crate) async fn start(
    subject: &dyn Subject,
    runtime: &dyn Runtime,
    app: App,
    color: Color,
    port: u16,
) -> Running {
    let launch = subject.launch(app, slot(color), port);
    runtime.start(launch).await.expect("it can be started")
}

pub(crate) async fn stop(runtime: &dyn Runtime, color: Color) {
    let stopping = runtime.stop(slot(color), LONG);
    let stopped = tokio::time::timeout(LONG / 2, stopping).await;
    stopped
        .expect("it ends by itself")
        .expect("it can be stopped");
}

pub(crate) async fn listed(runtime: &dyn Runtime) -> Vec<Running> {
    let mut running = runtime.list().await.expect("it can be listed");
    running.sort_by(|one, other| one.launch.slot.cmp(&other.launch.slot));
    running
}

pub(crate) async fn exited(runtime: &dyn Runtime, running: Running) -> String {
    let exited = tokio::time::timeout(TEST_TIMEOUT, runtime.exited(running)).await;
    exited.expect("its end is noticed")
}

/// Waits until the slot's application has written something, and returns all it wrote.
pub(crate) async fn logged(runtime: &dyn Runtime, color: Color, text: &str) -> Vec<String> {
    let slot = slot(color);
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        let written = runtime.logs(&slot, 100).await;
        if written.iter().any(|line| line.contains(text)) {
            return written;
        }
        assert!(
            Instant::now() < deadline,
            "gave up waiting until `{text}` is written"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn last_line(runtime: &dyn Runtime, color: Color) -> String {
    runtime.logs(&slot(color), 1).await.concat()
}

/// Waits for something that only looking can tell.
pub(crate) async fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !happened() {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
