//! Where the suite plays: a front, two applications behind it, and users before it.

use crate::app::App;
use crate::conformance::SHOP;
use crate::fake::{FakeFront, State};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use greenlight_agent::front::{BuiltinFront, Front, NginxReloadFront, SlotAddresses};
use greenlight_agent::nginx::{Attachment, Include, PrivateNginx, Target, Upstream};
use greenlight_ports::{reserve_address, reserve_port};
use greenlight_protocol::{Alignment, Color, ServiceName};
use greenlight_proxy::{Address, IfRunning, Limits, ProxyOptions, RunningProxy};
use greenlight_release::health::HealthCheck;
use greenlight_release::nginx::{ForwardHeaders, Label, NginxPath};
use greenlight_release::ports::PortPair;
use greenlight_release::spec::{Artifact, ServiceSpec};
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Which application answered, or with which status nobody did.
pub(crate) type Answer = Result<Color, u16>;

pub(crate) trait TestFront {
    fn front(&self) -> &dyn Front;
    fn alignment(&self) -> Alignment;
    /// One user's request, over a new connection.
    fn ask(&self) -> BoxFuture<'static, Answer>;
    /// One that is answered only after `finish`.
    fn ask_slowly(&self) -> BoxFuture<'static, Answer>;
    fn finish(&self);
    fn until_in_flight(&self) -> BoxFuture<'_, ()>;
    fn restart(&mut self) -> BoxFuture<'_, ()>;
}

// ---- In memory ----

pub(crate) struct Memory {
    front: FakeFront,
    finished: watch::Sender<bool>,
}

impl Memory {
    pub(crate) async fn set() -> Self {
        std::future::ready(Self {
            front: FakeFront::new(),
            finished: watch::Sender::new(false),
        })
        .await
    }
}

impl TestFront for Memory {
    fn front(&self) -> &dyn Front {
        &self.front
    }

    fn alignment(&self) -> Alignment {
        Alignment::Gated
    }

    fn ask(&self) -> BoxFuture<'static, Answer> {
        self.front.clone().ask(async {}).boxed()
    }

    fn ask_slowly(&self) -> BoxFuture<'static, Answer> {
        let mut finished = self.finished.subscribe();
        let answered = async move {
            let _ = finished.wait_for(|finished| *finished).await;
        };
        self.front.clone().ask(answered).boxed()
    }

    fn finish(&self) {
        self.finished.send_replace(true);
    }

    fn until_in_flight(&self) -> BoxFuture<'_, ()> {
        self.front.until(State::is_busy).boxed()
    }

    fn restart(&mut self) -> BoxFuture<'_, ()> {
        self.front.restart();
        async {}.boxed()
    }
}

// ---- Two real applications ----

pub(crate) struct Apps {
    pub(crate) blue: App,
    pub(crate) green: App,
}

impl Apps {
    pub(crate) async fn start() -> Self {
        Self {
            blue: App::start("blue").await,
            green: App::start("green").await,
        }
    }

    pub(crate) fn ports(&self) -> PortPair {
        PortPair {
            blue: self.blue.address.port(),
            green: self.green.address.port(),
        }
    }

    async fn until_in_flight(&self) {
        // The waiting request has subscribed.
        while self.blue.step.receiver_count() == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn finish(&self) {
        self.blue.step.send_replace(1);
    }
}

/// What is asked of the built-in proxy or Nginx over HTTP.
pub(crate) async fn ask(target: SocketAddr, path: &'static str) -> Answer {
    let stream = TcpStream::connect(target).await.expect("the front listens");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .expect("a connection");
    tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", "shop")
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body");
    match (status, &body.to_bytes()[..]) {
        (200, b"blue") => Ok(Color::Blue),
        (200, b"green") => Ok(Color::Green),
        (status, _) => Err(status),
    }
}

fn spec() -> ServiceSpec {
    ServiceSpec {
        artifact: Artifact::command(Vec::new()),
        env: BTreeMap::new(),
        secrets: BTreeMap::new(),
        health: HealthCheck::default(),
        hosts: Vec::new(),
        path_prefix: "/".to_owned(),
        request_timeout: Duration::from_mins(2),
        stop_timeout: Duration::from_secs(1),
    }
}

fn addresses(ports: PortPair) -> SlotAddresses {
    let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    SlotAddresses {
        blue: local(ports.blue),
        green: local(ports.green),
        ports,
    }
}

// ---- The built-in proxy ----

pub(crate) struct Builtin {
    proxy: Option<RunningProxy>,
    options: ProxyOptions,
    front: BuiltinFront,
    pub(crate) apps: Apps,
    folder: tempfile::TempDir,
}

impl Builtin {
    pub(crate) async fn set() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = ProxyOptions {
            listen: vec![
                Address::Tcp(reserve_address().expect("a port is free")),
                Address::Unix(folder.path().join("gate.sock")),
            ],
            socket_group: None,
            admin: folder.path().join("admin.sock"),
            state: folder.path().join("routing"),
            status: None,
            threads: 1,
            limits: Limits::default(),
            if_running: IfRunning::Fail,
        };
        let test_front = Self {
            proxy: Some(RunningProxy::start(&options).expect("a proxy")),
            front: BuiltinFront::new(&options.admin),
            options,
            apps: Apps::start().await,
            folder,
        };
        let ports = test_front.apps.ports();
        let (shop, spec) = (ServiceName::from(SHOP), spec());
        let defined = test_front.front.define(&shop, &spec, addresses(ports));
        defined.await.expect("it is defined");
        test_front
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn address(&self) -> SocketAddr {
        let proxy = self.proxy.as_ref().expect("it runs");
        proxy.address().expect("it has a TCP address")
    }
}

impl TestFront for Builtin {
    fn front(&self) -> &dyn Front {
        &self.front
    }

    fn alignment(&self) -> Alignment {
        Alignment::Gated
    }

    fn ask(&self) -> BoxFuture<'static, Answer> {
        ask(self.address(), "/").boxed()
    }

    fn ask_slowly(&self) -> BoxFuture<'static, Answer> {
        ask(self.address(), "/slow").boxed()
    }

    fn finish(&self) {
        self.apps.finish();
    }

    fn until_in_flight(&self) -> BoxFuture<'_, ()> {
        self.apps.until_in_flight().boxed()
    }

    fn restart(&mut self) -> BoxFuture<'_, ()> {
        let proxy = self.proxy.take().expect("it runs");
        async move {
            let stopped = tokio::task::spawn_blocking(move || proxy.stop());
            stopped.await.expect("it stops");
            let proxy = RunningProxy::start(&self.options).expect("a proxy");
            self.proxy = Some(proxy);
        }
        .boxed()
    }
}

impl Drop for Builtin {
    fn drop(&mut self) {
        if let Some(proxy) = self.proxy.take() {
            // It ends when the test's connections are closed, which is after this.
            std::thread::spawn(move || proxy.stop());
        }
    }
}

// ---- Nginx, reloaded ----

pub(crate) struct NginxReload {
    nginx: Option<PrivateNginx>,
    front: NginxReloadFront,
    listen: SocketAddr,
    apps: Apps,
    _folder: tempfile::TempDir,
}

impl NginxReload {
    pub(crate) async fn set() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().canonicalize().expect("a folder");
        let apps = Apps::start().await;
        let ports = apps.ports();
        let listen = reserve_address().expect("a port is free");
        let http = format!(
            "server {{ listen {listen}; location / {{ include {}/conf.d/greenlight_shop.location; }} }}",
            dir.display()
        );
        let nginx = PrivateNginx::write(&dir, "", &http).expect("a folder");
        let attachment = Attachment {
            nginx: nginx.clone(),
            include: NginxPath::new(&dir.join("conf.d/greenlight.conf")).expect("a path"),
            wanted: Include {
                generation: 0,
                verify_port: reserve_port().expect("a port is free"),
                forward_headers: ForwardHeaders::No,
                upstreams: [(
                    Label::new(SHOP).expect("a name"),
                    Upstream::Slots {
                        blue: ports.blue,
                        green: ports.green,
                        to: Target::Parked,
                    },
                )]
                .into(),
            },
        };
        for change in attachment.changes().expect("nothing is there") {
            std::fs::write(&change.path, &change.after).expect("a folder");
        }
        let front = NginxReloadFront::new(nginx.clone(), attachment.include.clone());
        let test_front = Self {
            nginx: Some(PrivateNginx::start(nginx).await.expect("nginx starts")),
            front,
            listen,
            apps,
            _folder: folder,
        };
        let (shop, spec) = (ServiceName::from(SHOP), spec());
        let defined = test_front.front.define(&shop, &spec, addresses(ports));
        defined.await.expect("it is defined");
        test_front
    }
}

impl TestFront for NginxReload {
    fn front(&self) -> &dyn Front {
        &self.front
    }

    fn alignment(&self) -> Alignment {
        Alignment::Aligned
    }

    fn ask(&self) -> BoxFuture<'static, Answer> {
        ask(self.listen, "/").boxed()
    }

    fn ask_slowly(&self) -> BoxFuture<'static, Answer> {
        ask(self.listen, "/slow").boxed()
    }

    fn finish(&self) {
        self.apps.finish();
    }

    fn until_in_flight(&self) -> BoxFuture<'_, ()> {
        self.apps.until_in_flight().boxed()
    }

    fn restart(&mut self) -> BoxFuture<'_, ()> {
        let running = self.nginx.take().expect("it runs");
        async move {
            let nginx = running.nginx().clone();
            drop(running);
            let started = PrivateNginx::start(nginx).await;
            self.nginx = Some(started.expect("nginx starts"));
        }
        .boxed()
    }
}
