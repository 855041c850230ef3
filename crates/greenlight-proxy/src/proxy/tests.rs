//! Commands to a proxy whose disk fails or is slow, and a successor that writes to it.

use super::*;
use crate::Limits;
use crate::state_file::State;
use crate::state_file::bad_disk::BadDisk;
use greenlight_admin::{
    AdminClient, AdminError, Color, HoldRequest, OnUncertain, OpenRequest, ServiceSettings,
    ServiceStatus,
};
use greenlight_gate::Mode;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn an_order_that_cannot_be_kept_is_refused_and_leaves_the_routing_as_it_was() {
    let lab = Lab::start().await;
    let before = lab.services().await;

    // Writing, syncing the file, putting it in its place, syncing the folder.
    for failing in 0..4 {
        lab.disk.fail_at(failing);
        refused(lab.admin.define("shop", &settings(3)).await);
        assert_eq!(lab.services().await, before);
        lab.disk.fail_at(failing);
        refused(lab.admin.define("mail", &settings(3)).await);
        assert_eq!(lab.services().await, before);
        lab.disk.fail_at(failing);
        refused(lab.admin.remove("shop").await);
        assert_eq!(lab.services().await, before);
    }

    lab.open(2, Color::Green).await.expect("a good disk");
    let kept = lab.kept();
    assert_eq!(kept.services.keys().collect::<Vec<_>>(), ["shop"]);
    assert_eq!(kept.services["shop"].settings, settings(1));
    lab.end().await;
}

#[tokio::test]
async fn an_opening_that_cannot_be_kept_is_refused_and_stands_and_is_kept_once_it_is_asked_again() {
    let lab = Lab::start().await;
    lab.open(1, Color::Blue).await.expect("a good disk");

    lab.disk.fail_at(1);
    refused(lab.open(2, Color::Green).await);
    // G1: requests may have come to green, so nothing goes back to blue.
    assert_eq!(lab.services().await["shop"].color, Some(Color::Green));
    assert_eq!(
        lab.kept().services["shop"].mode,
        Mode::Open { color: Color::Blue }
    );

    lab.open(2, Color::Green).await.expect("a good disk");
    let kept = lab.kept();
    assert_eq!(
        kept.services["shop"].mode,
        Mode::Open {
            color: Color::Green
        }
    );
    assert_eq!(kept.services["shop"].opened, 2);
    lab.end().await;
}

// What it was offered is old: the predecessor has led on.
#[tokio::test]
async fn a_successor_that_was_given_up_writes_nothing_over_what_is_kept() {
    let lab = Lab::start().await;
    let elsewhere = lab.options.state.with_file_name("elsewhere");
    for (epoch, state) in [(2, lab.options.state.clone()), (4, elsewhere.clone())] {
        lab.open(epoch, Color::Blue).await.expect("a good disk");
        let options = lab.successor(state.clone());
        let admin = options.admin.clone();
        let offered = tokio::task::spawn_blocking(move || Handover::request(&admin)).await;
        let offered = offered.expect("no panic").expect("it is offered");
        let handover = offered.expect("a proxy runs");
        handover.is_given_up();
        while lab.open(epoch + 1, Color::Green).await.is_err() {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }

        let taking_over = tokio::task::spawn_blocking(move || {
            let file = StateFile::new(options.state.clone());
            RunningProxy::take_over(&options, &file, handover).err()
        });
        let error = taking_over.await.expect("no panic").expect("it is late");
        assert!(matches!(error, ProxyError::Handover { .. }), "{error}");

        let color = Color::Green;
        assert_eq!(lab.kept().services["shop"].mode, Mode::Open { color });
        assert_eq!(state.exists(), state == lab.options.state);
    }
    lab.end().await;
}

#[tokio::test]
async fn a_successor_that_leads_has_written_what_it_was_handed_to_its_own_file() {
    let lab = Lab::start().await;
    lab.open(2, Color::Green).await.expect("a good disk");
    let elsewhere = lab.options.state.with_file_name("elsewhere");
    let options = lab.successor(elsewhere.clone());
    let file = StateFile::new(elsewhere);

    let successor = lab.hand_over(options, file.clone()).await;

    let kept = file.load().expect("a good file");
    let color = Color::Green;
    assert_eq!(kept.services["shop"].mode, Mode::Open { color });
    assert_eq!(kept.services["shop"].opened, 2);
    stop(successor).await;
    lab.end().await;
}

// The users of the predecessor do not wait for the successor's disk.
#[tokio::test]
async fn a_follower_opens_while_its_leaders_disk_is_busy() {
    let lab = Lab::start().await;
    let (blue, _) = app().await;
    let (green, green_was_asked) = app().await;
    let settings = ServiceSettings {
        blue,
        green,
        ..settings(1)
    };
    lab.admin.define("shop", &settings).await.expect("defined");
    lab.open(1, Color::Blue).await.expect("a good disk");
    let address = lab.proxy.address().expect("a TCP address");
    let mut user = TcpStream::connect(address).await.expect("connected");
    ask(&mut user).await;
    answered(&mut user).await;
    let disk = Arc::new(BadDisk::default());
    let options = lab.successor(lab.options.state.clone());
    let file = StateFile::on(options.state.clone(), disk.clone());
    let successor = lab.hand_over(options, file).await;
    let hold = HoldRequest {
        epoch: 2,
        services: vec!["shop".to_owned()],
        max_hold_ms: 60_000,
        on_uncertain: OnUncertain::ServeOld,
        exclusive_ms: None,
    };
    lab.admin.hold(&hold).await.expect("held");
    ask(&mut user).await;

    // The user's connection is the follower's, so only that can bring this request to green.
    disk.is_busy_until(green_was_asked);
    lab.open(2, Color::Green).await.expect("it opens meanwhile");

    answered(&mut user).await;
    drop(user);
    stop(successor).await;
    lab.end().await;
}

/// A proxy on a disk that can fail, with one service, `shop`.
struct Lab {
    proxy: RunningProxy,
    admin: AdminClient,
    disk: Arc<BadDisk>,
    file: StateFile,
    options: ProxyOptions,
    _folder: tempfile::TempDir,
}

impl Lab {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let any = "127.0.0.1:0".parse().expect("an address");
        let options = ProxyOptions {
            listen: vec![Address::Tcp(any)],
            socket_group: None,
            admin: folder.path().join("admin.sock"),
            state: folder.path().join("routing"),
            status: None,
            threads: 1,
            limits: Limits::default(),
            if_running: IfRunning::Fail,
        };
        let disk = Arc::new(BadDisk::default());
        let file = StateFile::on(options.state.clone(), disk.clone());
        let sockets = Sockets::open(&options, None).expect("free places");
        let proxy =
            RunningProxy::prepare(&options, file.clone(), HandoverState::default(), sockets);
        let lab = Self {
            proxy: proxy.expect("a proxy").serve(),
            admin: AdminClient::new(&options.admin),
            disk,
            file,
            options,
            _folder: folder,
        };
        let defined = lab.admin.define("shop", &settings(1)).await;
        defined.expect("a good disk");
        lab.disk.take_steps();
        lab
    }

    /// The options of a successor that keeps its routing here.
    fn successor(&self, state: PathBuf) -> ProxyOptions {
        ProxyOptions {
            state,
            if_running: IfRunning::TakeOver,
            ..self.options.clone()
        }
    }

    /// Returns when the successor leads.
    async fn hand_over(&self, options: ProxyOptions, file: StateFile) -> RunningProxy {
        let started = tokio::task::spawn_blocking(move || RunningProxy::start_with(&options, file));
        started.await.expect("no panic").expect("it takes over")
    }

    async fn open(&self, epoch: u64, color: Color) -> Result<(), AdminError> {
        let services = [("shop".to_owned(), Some(color))].into();
        let opened = self.admin.open(&OpenRequest { epoch, services }).await;
        self.disk.take_steps();
        opened.map(|_| ())
    }

    async fn services(&self) -> BTreeMap<String, ServiceStatus> {
        self.disk.take_steps();
        self.admin.status().await.expect("it answers").services
    }

    fn kept(&self) -> State {
        self.file.load().expect("a good file")
    }

    async fn end(self) {
        stop(self.proxy).await;
    }
}

async fn stop(proxy: RunningProxy) {
    let stopping = tokio::task::spawn_blocking(|| proxy.stop());
    stopping.await.expect("it ends");
}

/// An application that answers each request; says when it gets one.
async fn app() -> (String, std::sync::mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let (asked, was_asked) = std::sync::mpsc::channel();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(serve(connection, asked.clone()));
        }
    });
    (address, was_asked)
}

async fn serve(mut connection: TcpStream, asked: Sender<()>) {
    while read_head(&mut connection).await {
        // The test may have ended.
        let _ = asked.send(());
        let response = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        if connection.write_all(response).await.is_err() {
            return;
        }
    }
}

async fn ask(user: &mut TcpStream) {
    let request = b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n";
    user.write_all(request).await.expect("it is connected");
}

async fn answered(user: &mut TcpStream) {
    let answered = tokio::time::timeout(Duration::from_mins(1), read_head(user)).await;
    assert!(answered.expect("it is answered"));
}

/// Reads up to the empty line; says whether it came.
async fn read_head(connection: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match connection.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    true
}

fn settings(port: u16) -> ServiceSettings {
    ServiceSettings {
        hosts: Vec::new(),
        path_prefix: "/".to_owned(),
        blue: format!("127.0.0.1:{port}"),
        green: "127.0.0.1:2".to_owned(),
        request_timeout_ms: 1000,
    }
}

fn refused<T>(answer: Result<T, AdminError>) {
    let error = answer.err().expect("it cannot be kept").to_string();
    assert!(error.contains("cannot keep the routing state"), "{error}");
    assert!(error.contains("the disk is broken"), "{error}");
}
