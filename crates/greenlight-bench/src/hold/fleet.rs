//! A server and any number of agents with real journals and real links between them (mutual TLS
//! over loopback), in this process, so that their messages can be timed where they arrive.

use super::fakes::{InstantGate, NothingRuns, Opened};
use crate::Outcome;
use crate::rig::SERVICE;
use greenlight_agent::addresses::Addresses;
use greenlight_agent::examine::MachinePaths;
use greenlight_agent::secret_store::SecretStore;
use greenlight_agent::{AgentOptions, AgentShell};
use greenlight_link::api::{DeploymentEvent, NumberedEvent};
use greenlight_link::receipt::Receipt;
use greenlight_link::{AgentStreams, Authority, LinkEvent, Role, ServerLink, agent_router, serve};
use greenlight_ports::reserve_address;
use greenlight_protocol::coordinator::{Command, CoordinatorEvent};
use greenlight_protocol::{
    Alignment, Directive, DirectiveEnvelope, Epoch, InstanceId, Outcome as Ended, Report,
    ServiceName, Term, Token,
};
use greenlight_release::ports::{PortPair, RequestedAddresses, RequestedPorts};
use greenlight_server::{
    FleetView, Input, KEPT_RECEIPTS, ProgressLog, ReceiptArchive, RecoveredShell, ViewReader,
};
use greenlight_shell::clock::monotonic_ns;
use greenlight_shell::journal::Journal;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, oneshot};

/// How long anything may take before the benchmark gives up.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// The only incarnation of this server.
const TERM: Term = Term(1);

type Pongs = Arc<Mutex<Option<mpsc::Sender<u64>>>>;

/// A fleet whose gates and applications are simulated.
pub(super) struct Fleet {
    names: BTreeSet<InstanceId>,
    inbox: mpsc::Sender<Input>,
    view: ViewReader,
    streams: AgentStreams,
    progress: broadcast::Sender<NumberedEvent>,
    pongs: Pongs,
    runtime: tokio::runtime::Runtime,
    opened: Arc<Opened>,
    agents: Vec<oneshot::Sender<()>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Fleet {
    /// Starts `size` agents, the last of them with a link that is `late` both ways, and waits
    /// until all are connected. The server's files are in `dir`, the agents' in `agents`. What
    /// `port` answers is taken for every application.
    pub(super) fn start(
        dir: &Path,
        agents: &Path,
        size: usize,
        late: Duration,
        port: u16,
    ) -> Outcome<Self> {
        let names: BTreeSet<_> = (0..size).map(|i| InstanceId(format!("i{i:03}"))).collect();
        let authority = Authority::open(&dir.join("server"))?;
        // As many threads as the server has in its own process.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let (inbox, input) = mpsc::channel();
        let (told, pongs) = (inbox.clone(), Pongs::default());
        let streams = AgentStreams::new(TERM.0, receive(told, pongs.clone()));
        let (progress, _) = broadcast::channel(16 * 1024);
        let sending = streams.clone();
        let archive = ReceiptArchive::open(dir.join("server/receipts"), KEPT_RECEIPTS, None)?;
        let recovered = RecoveredShell::read(
            names.clone(),
            Journal::open(&dir.join("server/journal.redb"))?,
            archive,
        )?;
        let (shell, view) = recovered.into_shell(
            Box::new(move |outgoing| sending.send(outgoing)),
            ProgressLog::default(),
            progress.clone(),
        );
        let tls = authority.issue(&Role::Server)?.server_config()?;
        let address = reserve_address()?;
        let listener = runtime.block_on(TcpListener::bind(address))?;
        runtime.spawn(serve(listener, tls, agent_router(streams.clone())));
        let coordinator = std::thread::spawn(move || {
            if let Err(error) = shell.run(&input) {
                eprintln!("the coordinator ended: {error}");
            }
        });
        let mut fleet = Self {
            names: names.clone(),
            inbox,
            view,
            streams,
            progress,
            pongs,
            runtime,
            opened: Opened::new(size),
            agents: Vec::new(),
            threads: vec![coordinator],
        };
        for (number, name) in names.iter().enumerate() {
            let late = if number + 1 == size {
                late
            } else {
                Duration::ZERO
            };
            fleet.start_agent(agents, &authority, address, name, late, port)?;
        }
        fleet.wait_until_connected()?;
        Ok(fleet)
    }

    /// Each agent has a thread, as it has a machine: a disk write of one keeps no other waiting.
    fn start_agent(
        &mut self,
        dir: &Path,
        authority: &Authority,
        server: SocketAddr,
        name: &InstanceId,
        late: Duration,
        port: u16,
    ) -> Outcome<()> {
        let addresses = Addresses::open(dir.join(format!("{name}-addresses.json")))?;
        let pair = PortPair {
            blue: port,
            green: port,
        };
        addresses.request(RequestedAddresses {
            ports: [(ServiceName::from(SERVICE), RequestedPorts::Named(pair))].into(),
            front: None,
        })?;
        let tls = authority
            .issue(&Role::Agent(name.0.clone()))?
            .client_config()?;
        let options = AgentOptions {
            name: name.clone(),
            journal: dir.join(format!("{name}.redb")),
            server: ServerLink {
                server,
                tls: tls.clone(),
                name: name.0.clone(),
                injected_delay: late,
            },
            peers: BTreeMap::new(),
            tls,
            runtime: Arc::new(NothingRuns),
            images: Arc::new(NothingRuns),
            secrets: SecretStore::new(dir.join(format!("{name}-secrets"))),
            addresses,
            front: Arc::new(InstantGate(self.opened.clone())),
            alignment: Alignment::Gated,
            machine: MachinePaths {
                state: None,
                admin: None,
                docker: None,
                root: MachinePaths::usual_root(),
            },
        };
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        self.threads.push(std::thread::spawn(move || {
            runtime.block_on(async move {
                let ended = async { AgentShell::recover(options)?.run().await };
                tokio::select! {
                    Err(error) = ended => eprintln!("an agent ended: {error}"),
                    // Dropped or told, the end is meant.
                    _ = stopped => {}
                }
            });
        }));
        self.agents.push(stop);
        Ok(())
    }

    fn wait_until_connected(&self) -> Outcome<()> {
        let deadline = Instant::now() + STEP_TIMEOUT;
        while Instant::now() < deadline {
            let view = self.view()?;
            if view.status.instances.values().all(Option::is_some) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("the simulated agents did not connect".into())
    }

    /// The instances.
    pub(super) fn names(&self) -> &BTreeSet<InstanceId> {
        &self.names
    }

    /// Sends a directive that every agent answers, to all of these at once. Returns when each
    /// answer came, in the order they came.
    pub(super) fn ping(&self, names: &BTreeSet<InstanceId>) -> Outcome<Vec<Duration>> {
        let (sender, arrivals) = mpsc::channel();
        let set = |pongs| *self.pongs.lock() = pongs;
        set(Some(sender));
        let envelope = DirectiveEnvelope {
            token: Token {
                term: TERM,
                epoch: Epoch(0),
            },
            directive: Directive::QueryStatus,
        };
        let outgoing: Vec<_> = names
            .iter()
            .map(|name| (name.clone(), envelope.clone()))
            .collect();
        let sent = monotonic_ns();
        self.streams.send(&outgoing);
        let answers = (0..names.len()).map(|_| {
            let arrived = arrivals.recv_timeout(STEP_TIMEOUT)?;
            Ok(Duration::from_nanos(arrived.saturating_sub(sent)))
        });
        let answers = answers.collect();
        set(None);
        answers
    }

    /// Gives a command, waits until its deployment is over and returns the receipt.
    pub(super) fn perform(&self, command: Command) -> Outcome<Receipt> {
        let mut progress = self.progress.subscribe();
        let (answer, accepted) = oneshot::channel();
        let command = Box::new(command);
        self.inbox.send(Input::Command { command, answer })?;
        accepted.blocking_recv()??;
        let over = async {
            loop {
                if let DeploymentEvent::Finished { outcome } = progress.recv().await?.event {
                    return Outcome::Ok(outcome);
                }
            }
        };
        let ended = self
            .runtime
            .block_on(async { tokio::time::timeout(STEP_TIMEOUT, over).await });
        match ended?? {
            Ended::Promoted => {}
            other @ (Ended::Aborted { .. } | Ended::RolledBack { .. } | Ended::Stuck { .. }) => {
                return Err(format!("a cut-over failed: {other}").into());
            }
        }
        let view = self.view()?;
        let receipt = view.recent.last().ok_or("a deployment left no receipt")?;
        Ok(Receipt::clone(receipt))
    }

    fn view(&self) -> Outcome<Arc<FleetView>> {
        let view = self.view.read();
        view.ok_or_else(|| "the coordinator has ended".into())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.agents.clear();
        // If the loop has ended, it needs no message.
        let _ = self.inbox.send(Input::Stop);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Events of the link go to the coordinator, and their time to the measurement.
fn receive(told: mpsc::Sender<Input>, pongs: Pongs) -> impl Fn(LinkEvent) + Send + Sync {
    move |event| {
        let event = match event {
            // The benchmark reads no receipts.
            LinkEvent::Observed(..) => return,
            LinkEvent::Connected(agent) => CoordinatorEvent::Connected(agent),
            LinkEvent::Disconnected(agent) => CoordinatorEvent::Disconnected(agent),
            LinkEvent::Reported(from, envelope) => {
                if matches!(envelope.report, Report::Status(_))
                    && let Some(pongs) = &*pongs.lock()
                {
                    // An answer without a waiting caller is ignored.
                    let _ = pongs.send(monotonic_ns());
                }
                CoordinatorEvent::Reported {
                    from,
                    envelope: *envelope,
                }
            }
        };
        // When the shell has ended the fleet is ending.
        let _ = told.send(Input::Event(event));
    }
}
