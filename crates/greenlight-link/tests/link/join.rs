//! How machines come to have certificates, and keep them from running out.

use crate::within;
use greenlight_link::{
    AgentStreams, Authority, ClientAuth, Credentials, Enrollment, Https, Identity, JoinError,
    JoinToken, LinkEvent, Renewal, Role, ServerLink, Tokens, agent_router, join, role_of,
    serve_with_optional_client_auth,
};
use greenlight_protocol::InstanceId;
use hyper::{Method, StatusCode};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_rustls::TlsConnector;

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn a_machine_joins_once_as_who_its_token_names_and_keeps_its_key_to_itself() {
    let server = Server::start(HOUR).await;
    let token = server.token(&Role::Agent("a".to_owned()), HOUR);

    let credentials = join(server.address, &token).await.expect("a good token");

    let role = role_of(&credentials.certificate).expect("it gives one");
    assert_eq!(role, Role::Agent("a".to_owned()));
    assert!(
        credentials.fingerprint_key.is_none(),
        "only operators have it"
    );
    let tls = credentials
        .client_config()
        .expect("key and certificate match");
    let mut https = Https::to_server(server.address, tls);
    let report = https.exchange(Method::GET, "/v1/agents/b/directives", Vec::new());
    assert_eq!(report.await.expect("an answer").0, StatusCode::FORBIDDEN);
    let again = join(server.address, &token).await;
    assert_eq!(refusal(again), "the token was used already");
}

#[tokio::test]
async fn an_operator_joins_and_gets_what_secrets_are_sealed_with() {
    let server = Server::start(HOUR).await;
    let token = server.token(&Role::Operator, HOUR);

    let credentials = join(server.address, &token).await.expect("a good token");

    assert!(credentials.fingerprint_key.is_some());
}

#[tokio::test]
async fn expired_and_invented_tokens_and_those_of_instances_nobody_knows_are_refused() {
    let server = Server::start(HOUR).await;
    let expired = server.token(&Role::Operator, Duration::ZERO);
    let stray = server.token(&Role::Agent("z".to_owned()), HOUR);
    let authority = server.token(&Role::Operator, HOUR).to_string();
    let (_, fingerprint) = authority.rsplit_once('.').expect("three parts");
    let invented = format!("gl1.{}.{fingerprint}", "0".repeat(32));
    let invented: JoinToken = invented.parse().expect("it looks like one");

    let refused = |token| async move { refusal(join(server.address, token).await) };
    assert_eq!(refused(&expired).await, "the token has expired");
    assert_eq!(refused(&stray).await, "the server knows no instance `z`");
    assert_eq!(refused(&invented).await, "this server knows no such token");
}

#[tokio::test]
async fn a_server_that_the_token_is_not_of_learns_nothing() {
    let server = Server::start(HOUR).await;
    let impostor = Server::start(HOUR).await;
    let token = server.token(&Role::Operator, HOUR);

    let error = join(impostor.address, &token)
        .await
        .expect_err("not that one");

    let said = error.to_string();
    assert!(
        said.contains("not the server that the token is of"),
        "{said}"
    );
    // It was not sent: the server that it is of still takes it.
    join(server.address, &token).await.expect("it is unused");
}

#[tokio::test]
async fn whoever_has_no_certificate_may_join_and_nothing_else() {
    let server = Server::start(HOUR).await;
    let token = server.token(&Role::Operator, HOUR);
    let credentials = join(server.address, &token).await.expect("a good token");
    let mut https = Https::to_server(server.address, stranger(&credentials));
    for path in ["/v1/certificate", "/v1/tokens", "/v1/agents/a/reports"] {
        let asked = https.exchange(Method::POST, path, b"{}".to_vec());
        assert_eq!(
            asked.await.expect("an answer").0,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
}

#[tokio::test]
async fn whoever_has_no_certificate_cannot_hold_a_connection() {
    let server = Server::start(HOUR).await;
    let token = server.token(&Role::Operator, HOUR);
    let credentials = join(server.address, &token).await.expect("a good token");
    let stream = TcpStream::connect(server.address).await.expect("it runs");
    let name = ServerName::try_from("server.greenlight.internal").expect("a name");
    let connector = TlsConnector::from(stranger(&credentials));
    let mut stream = connector.connect(name, stream).await.expect("let in");
    let half = "POST /v1/join HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 100\r\n\r\n{";
    let sent = stream.write_all(half.as_bytes()).await;
    sent.expect("it is open");

    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_mins(1), stream.read_to_end(&mut answer));

    // How it is ended does not matter; nobody was answered.
    let _ = ended.await.expect("the server ends it");
    assert_eq!(String::from_utf8_lossy(&answer), "");
}

#[tokio::test]
async fn certificates_are_renewed_while_the_stream_stays_open() {
    let mut server = Server::start(Duration::from_secs(6)).await;
    let token = server.token(&Role::Agent("a".to_owned()), HOUR);
    let credentials = join(server.address, &token).await.expect("a good token");
    let folder = tempfile::tempdir().expect("a folder");
    credentials.store(folder.path()).expect("a folder");
    let identity = Identity::load(folder.path()).expect("it was stored");
    let (first, servers_first) = (identity.good_until(), server.identity.good_until());
    let dial = ServerLink {
        server: server.address,
        tls: identity.client_config().expect("good credentials"),
        name: "a".to_owned(),
        injected_delay: Duration::ZERO,
    };
    let (dialled, _arriving) = unbounded_channel();
    tokio::spawn(dial.clone().listen(dialled));
    tokio::spawn(Renewal::OverLink(server.address).keep_fresh(identity.clone()));
    let connected = within(server.events.recv()).await;
    assert!(matches!(connected, Some(LinkEvent::Connected(_))));

    // Both have run out when this is over, unless they were renewed.
    let both = first.max(servers_first) + Duration::from_secs(1);
    while SystemTime::now() < both {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    assert!(identity.good_until() > both && server.identity.good_until() > both);
    assert!(server.events.try_recv().is_err(), "the stream was cut");
    let kept = Credentials::load(folder.path()).expect("it is whole");
    let kept = Identity::new(&kept).expect("key and certificate match");
    assert_eq!(kept.good_until(), identity.good_until());
    let mut https = Https::to_server(server.address, dial.tls);
    let asked = https.exchange(Method::GET, "/v1/agents/b/directives", Vec::new());
    assert_eq!(
        asked.await.expect("new connections come about").0,
        StatusCode::FORBIDDEN
    );
}

/// TLS of somebody who knows the authority, and has no certificate.
fn stranger(credentials: &Credentials) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(credentials.authority.as_bytes());
    roots.add(authority.expect("a certificate")).expect("one");
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("usual ones")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// A server with a enrollment of the instances `a` and `b`.
struct Server {
    address: SocketAddr,
    identity: Arc<Identity>,
    events: UnboundedReceiver<LinkEvent>,
    authority: Arc<Authority>,
    state: tempfile::TempDir,
}

impl Server {
    async fn start(lifetime: Duration) -> Self {
        let state = tempfile::tempdir().expect("a folder");
        let authority = Authority::open(state.path()).expect("a folder");
        let authority = Arc::new(authority.with_lifetime(lifetime));
        let own = authority.issue(&Role::Server).expect("credentials");
        let identity = Arc::new(Identity::new(&own).expect("good credentials"));
        let fleet = ["a", "b"].map(InstanceId::from).into();
        let enrollment = Enrollment::new(authority.clone(), Tokens::of(state.path()), fleet);
        let (told, events) = unbounded_channel();
        let streams = AgentStreams::new(1, move |event| {
            // A test that has seen enough is no longer there.
            let _ = told.send(event);
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it has one");
        let tls = identity.server_config(ClientAuth::Optional);
        let routes = enrollment.members().merge(agent_router(streams));
        tokio::spawn(serve_with_optional_client_auth(
            listener,
            tls.expect("good credentials"),
            routes,
            enrollment.public_routes(),
        ));
        tokio::spawn(Renewal::Own(authority.clone()).keep_fresh(identity.clone()));
        Self {
            address,
            identity,
            events,
            authority,
            state,
        }
    }

    fn token(&self, role: &Role, valid: Duration) -> JoinToken {
        let tokens = Tokens::of(self.state.path());
        tokens.make(&self.authority, role, valid).expect("a folder")
    }
}

fn refusal(joined: Result<Credentials, JoinError>) -> String {
    match joined {
        Err(JoinError::Refused { error, help }) => {
            assert!(!help.is_empty());
            error
        }
        other => panic!("{other:?}"),
    }
}
