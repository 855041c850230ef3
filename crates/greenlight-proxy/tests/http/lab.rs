//! A proxy with one service, `shop`, and its two applications, which do what each test says.

use super::wire::{Wire, soon};
use greenlight_admin::{
    AdminClient, Color, HoldAnswer, HoldRequest, OnUncertain, OpenRequest, ServiceEvidence,
    ServiceSettings, ServiceStatus,
};
use greenlight_ports::reserve_address;
use greenlight_proxy::{Address, IfRunning, Limits, ProxyOptions, RunningProxy};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio::task::JoinHandle;

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
pub(crate) const GET: &str = "GET / HTTP/1.1\r\nhost: shop\r\n\r\n";
/// The service that most tests need.
pub(crate) const SHOP: &str = "shop";

/// An application that is up.
pub(crate) struct App {
    listener: TcpListener,
}

/// A proxy and its two applications.
pub(crate) struct Lab {
    pub(crate) admin: AdminClient,
    pub(crate) blue: App,
    pub(crate) green: App,
    pub(crate) address: SocketAddr,
    pub(crate) unix: PathBuf,
    proxy: Option<RunningProxy>,
    _folder: TempDir,
}

impl App {
    /// Its port stays its own when it has ended: a proxy that tries to reach it there is refused,
    /// and it can be started again.
    pub(crate) async fn start() -> Self {
        let address = reserve_address().expect("a port is free");
        let listener = TcpListener::bind(address).await;
        Self {
            listener: listener.expect("the port is reserved"),
        }
    }

    /// Starts again where an application was before.
    pub(crate) fn start_at(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("a new socket");
        socket.bind(address).expect("the port is free again");
        Self {
            listener: socket.listen(128).expect("a bound socket"),
        }
    }

    /// An application that does not accept, so that connecting to it takes for ever. It stays so
    /// as long as the callers that fill its queue are there.
    pub(crate) async fn start_full() -> (Self, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().expect("a socket");
        let any = "127.0.0.1:0".parse().expect("an address");
        socket.bind(any).expect("a free port");
        let app = Self {
            listener: socket.listen(1).expect("a bound socket"),
        };
        let mut callers = Vec::new();
        let short = Duration::from_millis(200);
        while let Ok(caller) = tokio::time::timeout(short, TcpStream::connect(app.address())).await
        {
            callers.push(caller.expect("a place in the queue"));
        }
        (app, callers)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound socket")
    }

    /// The next connection of the proxy.
    pub(crate) async fn accept(&self) -> Wire {
        Wire::new(self.accept_stream().await)
    }

    pub(crate) async fn accept_stream(&self) -> TcpStream {
        let (stream, _) = soon("a connection", self.listener.accept())
            .await
            .expect("a listener");
        stream
    }

    /// Takes one request and answers `ok`. Returns the connection.
    pub(crate) async fn serve_one(&self) -> Wire {
        let mut wire = self.accept().await;
        wire.head().await;
        wire.send(OK).await;
        wire
    }

    /// Answers every request with this text, until dropped; the requests have no bodies.
    pub(crate) fn answer_all(self, text: &'static str) -> JoinHandle<()> {
        self.answer_and_count(text, Arc::default())
    }

    /// The same, and counts the requests as they arrive.
    pub(crate) fn answer_and_count(
        self,
        text: &'static str,
        received: Arc<AtomicU64>,
    ) -> JoinHandle<()> {
        tokio::spawn(async move {
            while let Ok((stream, _)) = self.listener.accept().await {
                let received = received.clone();
                tokio::spawn(async move {
                    let mut wire = Wire::new(stream);
                    let length = text.len();
                    while wire.try_head().await.is_some() {
                        received.fetch_add(1, SeqCst);
                        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
                        if wire.try_send(head + text).await.is_err() {
                            return;
                        }
                    }
                });
            }
        })
    }

    /// Whether no connection waits to be accepted.
    pub(crate) async fn is_alone(&self) -> bool {
        let accepted = tokio::time::timeout(Duration::from_millis(50), self.listener.accept());
        accepted.await.is_err()
    }
}

impl Lab {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default(), Duration::from_mins(2)).await
    }

    pub(crate) async fn with_limits(limits: Limits) -> Self {
        Self::with(limits, Duration::from_mins(2)).await
    }

    /// A proxy whose service is open to blue, with these limits and this request timeout.
    pub(crate) async fn with(limits: Limits, request_timeout: Duration) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let unix = folder.path().join("front.sock");
        let any = "127.0.0.1:0".parse().expect("an address");
        let options = ProxyOptions {
            listen: vec![Address::Tcp(any), Address::Unix(unix.clone())],
            socket_group: None,
            admin: folder.path().join("admin.sock"),
            state: folder.path().join("routing"),
            status: None,
            threads: 1,
            limits,
            if_running: IfRunning::Fail,
        };
        let proxy = RunningProxy::start(&options).expect("a proxy");
        let lab = Self {
            admin: AdminClient::new(&options.admin),
            blue: App::start().await,
            green: App::start().await,
            address: proxy.address().expect("a TCP address"),
            unix,
            proxy: Some(proxy),
            _folder: folder,
        };
        let millis = u64::try_from(request_timeout.as_millis()).expect("a short time");
        lab.define(SHOP, &[], "/", millis).await;
        lab.open(1, Color::Blue).await;
        lab
    }

    pub(crate) async fn define(&self, name: &str, hosts: &[&str], prefix: &str, millis: u64) {
        let settings = ServiceSettings {
            hosts: hosts.iter().map(ToString::to_string).collect(),
            path_prefix: prefix.to_owned(),
            blue: self.blue.address().to_string(),
            green: self.green.address().to_string(),
            request_timeout_ms: millis,
        };
        let defined = self.admin.define(name, &settings).await;
        defined.expect("good settings");
    }

    pub(crate) async fn client(&self) -> Wire {
        Wire::new(self.client_stream().await)
    }

    pub(crate) async fn client_stream(&self) -> TcpStream {
        let stream = soon("connecting", TcpStream::connect(self.address)).await;
        stream.expect("the proxy listens")
    }

    /// A client on the unix socket, where another proxy connects.
    pub(crate) async fn peer(&self) -> Wire {
        let stream = soon("connecting", UnixStream::connect(&self.unix)).await;
        Wire::new(stream.expect("the proxy listens"))
    }

    pub(crate) async fn hold(&self, epoch: u64) -> HoldAnswer {
        self.hold_for(epoch, 120_000, OnUncertain::ServeOld).await
    }

    pub(crate) async fn hold_for(
        &self,
        epoch: u64,
        max_hold_ms: u64,
        on_uncertain: OnUncertain,
    ) -> HoldAnswer {
        let command = HoldRequest {
            epoch,
            services: vec![SHOP.to_owned()],
            max_hold_ms,
            on_uncertain,
            exclusive_ms: None,
        };
        let held = soon("the hold", self.admin.hold(&command)).await;
        held.expect("a hold")
    }

    pub(crate) async fn open(&self, epoch: u64, color: Color) {
        let command = OpenRequest {
            epoch,
            services: [(SHOP.to_owned(), Some(color))].into(),
        };
        let opened = soon("opening", self.admin.open(&command)).await;
        opened.expect("an open gate");
    }

    pub(crate) async fn status(&self) -> ServiceStatus {
        let status = self.admin.status().await.expect("the proxy answers");
        status.services[SHOP].clone()
    }

    pub(crate) async fn evidence(&self, epoch: u64) -> ServiceEvidence {
        let evidence = self.admin.evidence(epoch).await.expect("evidence");
        evidence.services[SHOP].clone()
    }

    /// Waits until the evidence of a cut-over shows something.
    pub(crate) async fn until_evidence(
        &self,
        epoch: u64,
        shows: impl Fn(&ServiceEvidence) -> bool,
    ) -> ServiceEvidence {
        let asking = async {
            loop {
                let evidence = self.evidence(epoch).await;
                if shows(&evidence) {
                    return evidence;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        soon("the evidence", asking).await
    }

    /// Waits until the status of the service shows something.
    pub(crate) async fn until_status(&self, shows: impl Fn(&ServiceStatus) -> bool) {
        let asking = async {
            while !shows(&self.status().await) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        soon("the status", asking).await;
    }

    /// The application in blue; a new one, that nobody is routed to, is in its place.
    pub(crate) async fn take_blue(&mut self) -> App {
        std::mem::replace(&mut self.blue, App::start().await)
    }

    pub(crate) async fn take_green(&mut self) -> App {
        std::mem::replace(&mut self.green, App::start().await)
    }

    /// Blue refuses connections from here on. Returns where it was.
    pub(crate) async fn kill_blue(&mut self) -> SocketAddr {
        self.take_blue().await.address()
    }

    /// Starts counting failures: the gate counts from a hold on.
    pub(crate) async fn count_from_here(&self, epoch: u64) {
        self.hold(epoch).await;
        self.open(epoch, Color::Blue).await;
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(proxy) = self.proxy.take() {
            // It ends when the test's connections are closed, which is after this.
            std::thread::spawn(move || proxy.stop());
        }
    }
}
