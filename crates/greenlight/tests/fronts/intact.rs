//! Through Nginx and the gate to the application, and back, unchanged: over TLS, as users come.

use crate::app::{LARGE, large_sum, pattern};
use crate::conformance::{SHOP, TEST_TIMEOUT, open};
use crate::test_fronts::Builtin;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use greenlight_agent::nginx::{AttachError, Attachment, Include, PrivateNginx, Upstream};
use greenlight_ports::{reserve_address, reserve_port};
use greenlight_protocol::Color;
use greenlight_release::nginx::{ForwardHeaders, Label, NginxPath};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

/// Where the client is; loopback has many addresses.
const CLIENT: &str = "127.0.0.5:0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn nginx_keeps_tls_static_files_and_its_log_and_passes_on_who_asked_how() {
    let lab = Lab::start(ForwardHeaders::No).await;
    let mut client = lab.client().await;

    let page = lab.get(&mut client, "/static/page.txt", &[]).await;
    assert_eq!(text(page).await, "a static page\n");
    let lies = [
        ("x-forwarded-for", "10.9.9.9"),
        ("x-forwarded-proto", "gopher"),
        ("x-forwarded-host", "lie"),
        ("x-forwarded-prefix", "/lie"),
        ("forwarded", "for=10.9.9.9"),
        ("x-real-ip", "10.9.9.9"),
        ("x-kept", "kept"),
    ];
    let seen = text(lab.get(&mut client, "/headers", &lies).await).await;
    let has = |line: &str| seen.lines().any(|seen| seen == line);
    assert!(has("x-forwarded-for: 127.0.0.5"), "{seen}");
    assert!(has("x-real-ip: 127.0.0.5"), "{seen}");
    assert!(has("x-forwarded-proto: https"), "{seen}");
    assert!(has("host: localhost:4433"), "{seen}");
    assert!(has("x-forwarded-host: localhost:4433"), "{seen}");
    assert!(has("x-kept: kept"), "{seen}");
    assert!(
        !seen.contains("lie") && !seen.contains("10.9.9.9"),
        "{seen}"
    );

    // The log is written when the answer has gone, not before.
    let log = async {
        loop {
            let log = std::fs::read_to_string(lab.dir.join("access.log")).expect("a log");
            if log.contains("GET /headers") {
                return log;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let log = tokio::time::timeout(TEST_TIMEOUT, log)
        .await
        .expect("it is logged");
    assert!(
        log.contains("127.0.0.5") && log.contains("GET /static/page.txt"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn behind_a_load_balancer_nginx_keeps_what_it_says_of_the_client() {
    let lab = Lab::start(ForwardHeaders::Yes).await;
    let mut client = lab.client().await;

    let told = [
        ("x-forwarded-for", "10.9.9.9"),
        ("x-forwarded-proto", "http"),
    ];
    let seen = text(lab.get(&mut client, "/headers", &told).await).await;

    assert!(
        seen.contains("x-forwarded-for: 10.9.9.9, 127.0.0.5\n"),
        "{seen}"
    );
    assert!(seen.contains("x-forwarded-proto: http\n"), "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn large_uploads_and_downloads_go_through_nginx_whole() {
    let lab = Lab::start(ForwardHeaders::No).await;
    let mut client = lab.client().await;

    let chunks = stream::iter(0..LARGE / pattern().len());
    let body = StreamBody::new(chunks.map(|_| Ok(Frame::data(pattern()))));
    let request = request("POST", "/upload", &[]).body(BodyExt::boxed(body));
    let sent = client.send_request(request.expect("a request")).await;
    let answer = text(sent.expect("an answer")).await;
    assert_eq!(answer, format!("{LARGE} {}", large_sum()));

    let mut download = lab.get(&mut client, "/download", &[]).await;
    assert_eq!(download.status(), StatusCode::OK);
    let (mut bytes, mut sum) = (0, 0);
    while let Some(frame) = download.body_mut().frame().await {
        let data = frame.expect("the download goes on").into_data();
        let data = data.unwrap_or_default();
        bytes += data.len();
        sum += data.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    }
    assert_eq!((bytes, sum), (LARGE, large_sum()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn each_server_sent_event_comes_through_nginx_when_it_is_sent() {
    let lab = Lab::start(ForwardHeaders::No).await;
    let mut client = lab.client().await;

    let mut events = lab.get(&mut client, "/events", &[]).await;

    for number in 0..3_u64 {
        // The application sends the next only when this one has been seen.
        let event = tokio::time::timeout(TEST_TIMEOUT, events.body_mut().frame()).await;
        let event = event.expect("nothing holds it back").expect("an event");
        let event = event
            .expect("the stream goes on")
            .into_data()
            .expect("data");
        assert_eq!(&event[..], format!("data: {number}\n\n").as_bytes());
        lab.gate.apps.blue.step.send_replace(number + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn a_websocket_through_nginx_carries_bytes_both_ways() {
    let lab = Lab::start(ForwardHeaders::No).await;
    let mut client = lab.client().await;

    let upgrade = [("connection", "Upgrade"), ("upgrade", "websocket")];
    let answer = lab.get(&mut client, "/socket", &upgrade).await;
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    let upgraded = hyper::upgrade::on(answer).await.expect("a tunnel");
    let mut socket = TokioIo::new(upgraded);

    for word in ["first", "again"] {
        socket.write_all(word.as_bytes()).await.expect("it is open");
        let mut back = [0; 5];
        let read = tokio::time::timeout(TEST_TIMEOUT, socket.read_exact(&mut back)).await;
        read.expect("it comes back").expect("it is open");
        assert_eq!(&back, word.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn attaching_nginx_to_no_gate_leaves_everything_as_it_was() {
    let lab = Lab::start(ForwardHeaders::No).await;
    let include = lab.attachment.include.as_path();
    let before = std::fs::read_to_string(include).expect("a file");
    let workers = lab.nginx.workers().expect("it runs");
    let attach_to = async |socket: PathBuf| {
        let mut attachment = lab.attachment.clone();
        let socket = NginxPath::socket(&socket).expect("a path");
        for upstream in attachment.wanted.upstreams.values_mut() {
            *upstream = Upstream::Gate(socket.clone());
        }
        let changes = attachment.changes().expect("ours");
        attachment.carry_out(&changes).await
    };

    let nobody = attach_to(lab.dir.join("nowhere.sock")).await;
    assert!(
        matches!(nobody, Err(AttachError::GateAway { .. })),
        "{nobody:?}"
    );
    assert_eq!(lab.nginx.workers().expect("it runs"), workers);

    // Somebody is there, and it is no gate.
    let elsewhere = lab.dir.join("elsewhere.sock");
    let somebody = tokio::net::UnixListener::bind(&elsewhere).expect("a folder");
    tokio::spawn(async move { while somebody.accept().await.is_ok() {} });
    let somebody = attach_to(elsewhere).await;
    assert!(
        matches!(somebody, Err(AttachError::NoGate { .. })),
        "{somebody:?}"
    );
    assert_eq!(std::fs::read_to_string(include).expect("a file"), before);
    let mut client = lab.client().await;
    assert_eq!(text(lab.get(&mut client, "/", &[]).await).await, "blue");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn attaching_to_a_broken_nginx_or_one_that_does_not_include_the_file_writes_nothing() {
    let lab = Lab::start(ForwardHeaders::No).await;
    let mut elsewhere = lab.attachment.clone();
    let other = lab.dir.join("elsewhere.conf");
    elsewhere.include = NginxPath::new(&other).expect("a path");
    let changes = elsewhere.changes().expect("nothing is there");
    let refused = elsewhere.carry_out(&changes).await;
    assert!(
        matches!(refused, Err(AttachError::NotIncluded { .. })),
        "{refused:?}"
    );
    assert!(!other.exists());

    let mut changed = lab.attachment.clone();
    changed.wanted.forward_headers = ForwardHeaders::Yes;
    let include = changed.include.as_path();
    let before = std::fs::read_to_string(include).expect("a file");
    let broken = lab.dir.join("conf.d/broken.conf");
    std::fs::write(&broken, "nonsense;\n").expect("a folder");
    let changes = changed.changes().expect("ours");
    assert!(changes[1].diff().contains("+map $http_x_forwarded_proto"));
    let refused = changed.carry_out(&changes).await.expect_err("it is broken");
    assert!(refused.to_string().contains("nonsense"), "{refused}");
    assert_eq!(std::fs::read_to_string(include).expect("a file"), before);
}

/// A gate with an application, and an Nginx with TLS before it, attached.
struct Lab {
    nginx: PrivateNginx,
    attachment: Attachment,
    gate: Builtin,
    listen: SocketAddr,
    tls: Arc<ClientConfig>,
    dir: PathBuf,
    _folder: tempfile::TempDir,
}

impl Lab {
    /// As a user does it: Nginx runs, is attached to the gate, and gets a location by hand.
    async fn start(forward_headers: ForwardHeaders) -> Self {
        let gate = Builtin::set().await;
        open(&gate, 1, Color::Blue).await;
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().canonicalize().expect("a folder");
        let listen = reserve_address().expect("a port is free");
        let tls = certify(&dir);
        std::fs::create_dir(dir.join("static")).expect("a folder");
        std::fs::write(dir.join("static/page.txt"), "a static page\n").expect("a folder");
        let nginx = PrivateNginx::write(&dir, "", "").expect("a folder");
        let nginx = PrivateNginx::start(nginx).await.expect("nginx starts");
        let socket = NginxPath::socket(&gate.folder().join("gate.sock")).expect("a path");
        let attachment = Attachment {
            nginx: nginx.nginx().clone(),
            include: NginxPath::new(&dir.join("conf.d/greenlight.conf")).expect("a path"),
            wanted: Include {
                generation: 0,
                verify_port: reserve_port().expect("a port is free"),
                forward_headers,
                upstreams: [(Label::new(SHOP).expect("a name"), Upstream::Gate(socket))].into(),
            },
        };
        let changes = attachment.changes().expect("nothing is there");
        let attached = attachment.carry_out(&changes).await.expect("it attaches");
        let (_, location) = attached.missing.first().expect("no server has it yet");
        let here = dir.display();
        let server = format!(
            "server {{\n listen {listen} ssl;\n server_name localhost;\n \
             ssl_certificate {here}/cert.pem;\n ssl_certificate_key {here}/key.pem;\n \
             location /static/ {{ root {here}; }}\n location / {{ include {}; }}\n}}\n",
            location.display()
        );
        std::fs::write(dir.join("conf.d/shop.conf"), server).expect("a folder");
        drop(nginx);
        let nginx = PrivateNginx::start(attachment.nginx.clone()).await;
        let lab = Self {
            nginx: nginx.expect("nginx starts"),
            attachment,
            gate,
            listen,
            tls,
            dir,
            _folder: folder,
        };
        // What is attached already is neither written nor reloaded again.
        let workers = lab.nginx.workers().expect("it runs");
        let changes = lab.attachment.changes().expect("ours");
        assert_eq!(changes, []);
        let attached = lab.attachment.carry_out(&changes).await;
        assert_eq!(attached.expect("it is attached").missing, []);
        assert_eq!(lab.nginx.workers().expect("it runs"), workers);
        lab
    }

    async fn client(&self) -> SendRequest<BoxBody<Bytes, Infallible>> {
        let socket = TcpSocket::new_v4().expect("a socket");
        let own = CLIENT.parse().expect("an address");
        socket.bind(own).expect("loopback has it");
        let stream = socket.connect(self.listen).await.expect("nginx listens");
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(self.tls.clone());
        let stream = connector
            .connect(name, stream)
            .await
            .expect("its certificate");
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .expect("a connection");
        tokio::spawn(connection.with_upgrades());
        sender
    }

    async fn get(
        &self,
        client: &mut SendRequest<BoxBody<Bytes, Infallible>>,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Response<Incoming> {
        let request = request("GET", path, headers).body(Empty::new().boxed());
        let request = request.expect("a request");
        client.ready().await.expect("it is open");
        client.send_request(request).await.expect("an answer")
    }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> hyper::http::request::Builder {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("host", "localhost:4433");
    headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    })
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.expect("a body");
    String::from_utf8_lossy(&body.to_bytes()).into_owned()
}

/// A certificate for Nginx, and a client that believes it.
fn certify(dir: &std::path::Path) -> Arc<ClientConfig> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a key");
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).expect("a folder");
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).expect("a folder");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ));
    let config = config.with_safe_default_protocol_versions();
    let config = config.expect("its versions").with_root_certificates(roots);
    Arc::new(config.with_no_client_auth())
}
