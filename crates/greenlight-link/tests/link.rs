//! The link over real sockets: who may say what, and that nothing is lost when it is cut.

#[path = "link/join.rs"]
mod join;

use greenlight_link::{
    AgentStreams, Authority, Credentials, Https, LinkEvent, Role, ServerLink, ServerLinkEvent,
    agent_router, allow, serve,
};
use greenlight_protocol::{
    Directive, DirectiveEnvelope, Epoch, InstanceId, Report, ReportEnvelope, Term, Token,
};
use hyper::{Method, StatusCode};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;

const TEST_TIMEOUT: Duration = Duration::from_mins(2);

#[tokio::test]
async fn whoever_has_no_certificate_of_this_fleet_is_turned_away() {
    let server = Server::start(1).await;
    let other_fleet = authority();
    let stranger = other_fleet.issue(&Role::Operator).expect("credentials");
    // It may even know this fleet's authority: what counts is who signed its own certificate.
    let stranger = Credentials {
        authority: server.credentials(&Role::Operator).authority,
        ..stranger
    };
    let tls = stranger.client_config().expect("good credentials");
    let mut https = Https::to_server(server.address, tls);
    let refused = https.exchange(Method::GET, "/v1/operators", Vec::new());
    let error = refused
        .await
        .expect_err("it is not of this fleet")
        .to_string();
    assert!(error.contains("failed"), "{error}");

    // And who holds plain HTTP for good enough gets no answer either.
    let mut plain = TcpStream::connect(server.address)
        .await
        .expect("it listens");
    let ask = b"GET /v1/operators HTTP/1.1\r\nhost: x\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut plain, ask)
        .await
        .expect("it is open");
    let mut answer = Vec::new();
    // How it is ended does not matter.
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut plain, &mut answer).await;
    assert!(!answer.starts_with(b"HTTP"));
}

#[tokio::test]
async fn an_agent_speaks_for_itself_only_and_gives_no_orders() {
    let server = Server::start(1).await;
    let mut a = server.https(&Role::Agent("a".to_owned()));

    let report = serde_json::to_vec(&reported(1)).expect("it serialises");
    let path = |name: &str| format!("/v1/agents/{name}/reports");
    let own = a.exchange(Method::POST, &path("a"), report.clone()).await;
    assert_eq!(own.expect("an answer").0, StatusCode::NO_CONTENT);
    let others = a.exchange(Method::POST, &path("b"), report).await;
    assert_eq!(others.expect("an answer").0, StatusCode::FORBIDDEN);
    let stream = a.exchange(Method::GET, "/v1/agents/b/directives", Vec::new());
    assert_eq!(stream.await.expect("an answer").0, StatusCode::FORBIDDEN);
    let order = a.exchange(Method::GET, "/v1/operators", Vec::new()).await;
    assert_eq!(order.expect("an answer").0, StatusCode::FORBIDDEN);

    let mut operator = server.https(&Role::Operator);
    let order = operator.exchange(Method::GET, "/v1/operators", Vec::new());
    assert_eq!(order.await.expect("an answer").0, StatusCode::OK);
}

#[tokio::test]
async fn an_agent_does_not_take_another_for_its_server() {
    let server = Server::start(1).await;
    let impostor = server.credentials(&Role::Agent("b".to_owned()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it has one");
    let tls = impostor.server_config().expect("good credentials");
    tokio::spawn(serve(
        listener,
        tls,
        agent_router(AgentStreams::new(1, |_| {})),
    ));

    let own = server.credentials(&Role::Agent("a".to_owned()));
    let mut https = Https::to_server(address, own.client_config().expect("good credentials"));
    let asked = https.exchange(Method::GET, "/v1/agents/a/directives", Vec::new());

    assert!(asked.await.is_err());
}

#[tokio::test]
async fn directives_sent_while_the_link_was_cut_arrive_once_and_in_order() {
    let mut server = Server::start(1).await;
    let cable = Cable::to(server.address).await;
    let mut arriving = server.listen("a", cable.address);
    server.wait_for_connection().await;
    server.send("a", 1);
    assert_eq!(epoch(&mut arriving).await, 1);

    cable.cut();
    server.wait_for_disconnection().await;
    server.send("a", 2);
    server.send("a", 3);
    cable.mend();

    let seen = [epoch(&mut arriving).await, epoch(&mut arriving).await];
    assert_eq!(seen, [2, 3]);
    server.send("a", 4);
    assert_eq!(epoch(&mut arriving).await, 4);
}

#[tokio::test]
async fn positions_of_an_earlier_coordinator_mean_nothing_to_the_next() {
    let mut first = Server::start(1).await;
    let cable = Cable::to(first.address).await;
    let mut arriving = first.listen("a", cable.address);
    first.wait_for_connection().await;
    first.send("a", 1);
    assert_eq!(epoch(&mut arriving).await, 1);

    // The next one has sent nothing yet that this agent could have missed: it prompts anew.
    let mut second = first.succeed(2).await;
    second.send("a", 7);
    cable.lead_to(second.address);
    second.wait_for_connection().await;
    second.send("a", 8);

    assert_eq!(epoch(&mut arriving).await, 8);
}

#[tokio::test]
async fn a_report_is_repeated_until_the_server_has_it_and_order_is_kept() {
    let mut server = Server::start(1).await;
    let cable = Cable::to(server.address).await;
    cable.cut();
    let (reports, outgoing) = unbounded_channel();
    tokio::spawn(server.dial("a", cable.address).report(outgoing));
    for epoch in 1..=3 {
        let report = (tokio::time::Instant::now(), reported(epoch));
        reports.send(report).expect("it is taken");
    }
    tokio::task::yield_now().await;
    cable.mend();

    let mut seen = Vec::new();
    while seen.last() != Some(&3) {
        let event = within(server.events.recv())
            .await
            .expect("the server lives");
        if let LinkEvent::Reported(from, envelope) = event {
            assert_eq!(from, InstanceId::from("a"));
            seen.push(envelope.token.epoch.0);
        }
    }
    seen.dedup();
    assert_eq!(seen, [1, 2, 3]);
}

/// A server's side of the link, with one route for operators.
struct Server {
    authority: tempfile::TempDir,
    streams: AgentStreams,
    events: UnboundedReceiver<LinkEvent>,
    address: SocketAddr,
}

impl Server {
    async fn start(term: u64) -> Self {
        Self::of(tempfile::tempdir().expect("a folder"), term).await
    }

    /// Another server of the same fleet.
    async fn succeed(self, term: u64) -> Self {
        Self::of(self.authority, term).await
    }

    async fn of(authority: tempfile::TempDir, term: u64) -> Self {
        let (told, events) = unbounded_channel();
        let streams = AgentStreams::new(term, move |event| {
            // A test that has seen enough is no longer there.
            let _ = told.send(event);
        });
        let operators =
            axum::Router::new().route("/v1/operators", axum::routing::get(|| async { "yes" }));
        let routes = allow(operators, |role| *role == Role::Operator);
        let routes = routes.merge(agent_router(streams.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it has one");
        let server = Self {
            authority,
            streams,
            events,
            address,
        };
        let tls = server.credentials(&Role::Server).server_config();
        tokio::spawn(serve(listener, tls.expect("good credentials"), routes));
        server
    }

    fn credentials(&self, role: &Role) -> Credentials {
        let authority = Authority::open(self.authority.path()).expect("an authority");
        authority.issue(role).expect("credentials")
    }

    fn https(&self, role: &Role) -> Https {
        let tls = self.credentials(role).client_config();
        Https::to_server(self.address, tls.expect("good credentials"))
    }

    fn dial(&self, agent: &str, address: SocketAddr) -> ServerLink {
        let credentials = self.credentials(&Role::Agent(agent.to_owned()));
        ServerLink {
            server: address,
            tls: credentials.client_config().expect("good credentials"),
            name: agent.to_owned(),
            injected_delay: Duration::ZERO,
        }
    }

    fn listen(&self, agent: &str, address: SocketAddr) -> UnboundedReceiver<ServerLinkEvent> {
        let (dialled, arriving) = unbounded_channel();
        tokio::spawn(self.dial(agent, address).listen(dialled));
        arriving
    }

    fn send(&self, agent: &str, epoch: u64) {
        let token = Token {
            term: Term(1),
            epoch: Epoch(epoch),
        };
        let directive = Directive::QueryStatus;
        let envelope = DirectiveEnvelope { token, directive };
        self.streams.send(&[(InstanceId::from(agent), envelope)]);
    }

    async fn wait_for_connection(&mut self) {
        let event = within(self.events.recv()).await;
        assert!(matches!(event, Some(LinkEvent::Connected(_))), "{event:?}");
    }

    async fn wait_for_disconnection(&mut self) {
        let event = within(self.events.recv()).await;
        let gone = matches!(event, Some(LinkEvent::Disconnected(_)));
        assert!(gone, "{event:?}");
    }
}

/// What lies between an agent and its server, and can be cut.
struct Cable {
    address: SocketAddr,
    leads_to: watch::Sender<Option<SocketAddr>>,
    end: watch::Sender<SocketAddr>,
}

impl Cable {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it has one");
        let (leads_to, led) = watch::channel(Some(server));
        tokio::spawn(async move {
            loop {
                let Ok((mut near, _)) = listener.accept().await else {
                    return;
                };
                let mut led = led.clone();
                let Some(server) = *led.borrow_and_update() else {
                    continue;
                };
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(server).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = led.changed() => {}
                    }
                });
            }
        });
        let (end, _) = watch::channel(server);
        Self {
            address,
            leads_to,
            end,
        }
    }

    fn cut(&self) {
        self.leads_to.send_replace(None);
    }

    fn mend(&self) {
        self.leads_to.send_replace(Some(*self.end.borrow()));
    }

    fn lead_to(&self, server: SocketAddr) {
        self.end.send_replace(server);
        self.mend();
    }
}

async fn epoch(arriving: &mut UnboundedReceiver<ServerLinkEvent>) -> u64 {
    loop {
        match within(arriving.recv()).await.expect("the agent listens") {
            ServerLinkEvent::Directed(envelope) => return envelope.token.epoch.0,
            ServerLinkEvent::Connected | ServerLinkEvent::Requested(_) => {}
        }
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(TEST_TIMEOUT, future).await;
    waited.expect("it happens in time")
}

fn reported(epoch: u64) -> ReportEnvelope {
    let token = Token {
        term: Term(1),
        epoch: Epoch(epoch),
    };
    ReportEnvelope {
        token,
        report: Report::Prepared,
    }
}

fn authority() -> Authority {
    let dir = tempfile::tempdir().expect("a folder");
    Authority::open(dir.path()).expect("an authority")
}
