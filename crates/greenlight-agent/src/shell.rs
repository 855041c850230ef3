//! The agent's loop: take one event, carry out its effects in order, take the next.

use super::event::ShellEvent;
use super::peers::Peers;
use super::readings::ReadingLog;
use super::requests::RequestHandler;
use super::slots::{Slots, Work};
use super::telemetry::observe;
use crate::addresses::Addresses;
use crate::examine::MachinePaths;
use crate::front::{Acted, Front, FrontError};
use crate::runtime::{Images, Runtime};
use crate::secret_store::SecretStore;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use greenlight_link::peer::{self, Readiness};
use greenlight_link::{ServerLink, ServerLinkEvent, Telemetry};
use greenlight_protocol::{
    Agent, AgentEffect, AgentEvent, AgentRecord, AgentTimer, Alignment, Epoch, GateAction,
    InstanceId, InstanceStatus, ParticipationView, PeerAnswer, Report, ReportEnvelope, Token,
};
use greenlight_shell::clock;
use greenlight_shell::failpoint;
use greenlight_shell::journal::{Journal, JournalError};
use greenlight_shell::timers::Timers;
use rustls::ClientConfig;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};

/// How often the front is asked whether it is still the same process.
const FRONT_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What an agent needs to run.
pub struct AgentOptions {
    pub name: InstanceId,
    /// Where it keeps its journal.
    pub journal: PathBuf,
    /// How it reaches the server.
    pub server: ServerLink,
    /// Where its peers answer.
    pub peers: BTreeMap<InstanceId, SocketAddr>,
    /// Its credentials, for asking peers.
    pub tls: Arc<ClientConfig>,
    /// What runs releases.
    pub runtime: Arc<dyn Runtime>,
    /// What knows images.
    pub images: Arc<dyn Images>,
    /// Where the secrets of releases are.
    pub secrets: SecretStore,
    /// Where it is reached.
    pub addresses: Addresses,
    /// Where its parts are on this machine.
    pub machine: MachinePaths,
    /// What receives user traffic.
    pub front: Arc<dyn Front>,
    /// What its cut-overs are worth.
    pub alignment: Alignment,
}

/// The loop's own state.
pub struct AgentShell {
    name: InstanceId,
    agent: Agent,
    journal: Journal,
    front: Arc<dyn Front>,
    alignment: Alignment,
    slots: Slots,
    peers: Peers,
    readings: ReadingLog,
    timers: Timers<AgentTimer>,
    events: UnboundedSender<ShellEvent>,
    inbox: UnboundedReceiver<ShellEvent>,
    reports: UnboundedSender<(tokio::time::Instant, ReportEnvelope)>,
    telemetry: UnboundedSender<(tokio::time::Instant, Telemetry)>,
    asked: BTreeMap<(InstanceId, Epoch), Vec<oneshot::Sender<PeerAnswer>>>,
    /// How long the last record took to become durable; part of what `Armed` reports.
    sync: Duration,
    /// The status that was last reported to the server.
    told: Option<InstanceStatus>,
    pending: Vec<AgentEffect>,
    /// The front's responses. They are handled before events that arrived meanwhile: a
    /// directive that was repeated meanwhile must not ask it again.
    answers: VecDeque<AgentEvent>,
}

impl AgentShell {
    /// Recovers the agent from its journal and starts what runs beside the loop.
    pub fn recover(options: AgentOptions) -> Result<Self, JournalError> {
        let journal = Journal::open(&options.journal)?;
        let records: Vec<AgentRecord> = journal.load()?;
        let (agent, pending) = Agent::recover(options.name.clone(), &records);
        let (events, inbox) = unbounded_channel();
        let (reports, outgoing) = unbounded_channel();
        tokio::spawn(options.server.clone().report(outgoing));
        let (telemetry, observed) = unbounded_channel();
        tokio::spawn(options.server.clone().send_telemetry(observed));
        let (received, mut arriving) = unbounded_channel();
        tokio::spawn(options.server.clone().listen(received));
        let arrived = events.clone();
        let handler = RequestHandler {
            server: options.server.clone(),
            runtime: options.runtime.clone(),
            images: options.images.clone(),
            secrets: options.secrets.clone(),
            addresses: options.addresses.clone(),
            machine: options.machine,
        };
        tokio::spawn(async move {
            while let Some(event) = arriving.recv().await {
                let event = match event {
                    ServerLinkEvent::Requested(asked) => {
                        tokio::spawn(handler.clone().answer(*asked));
                        continue;
                    }
                    ServerLinkEvent::Connected => AgentEvent::Connected,
                    ServerLinkEvent::Directed(envelope) => AgentEvent::Directed(*envelope),
                };
                if arrived.send(ShellEvent::Protocol(event)).is_err() {
                    return;
                }
            }
        });
        let front = options.front.clone();
        let work = Work::new(
            options.name.clone(),
            options.runtime,
            options.images,
            front,
            options.secrets,
            options.addresses,
        );
        let slots = Slots::new(work, events.clone());
        tokio::spawn(watch_front(options.front.clone(), events.clone()));
        Ok(Self {
            name: options.name,
            agent,
            journal,
            front: options.front,
            alignment: options.alignment,
            slots,
            peers: Peers {
                agents: options.peers,
                tls: options.tls,
            },
            readings: ReadingLog::new(clock::monotonic_ns()),
            timers: Timers::default(),
            events,
            inbox,
            reports,
            telemetry,
            asked: BTreeMap::new(),
            sync: Duration::ZERO,
            told: None,
            pending,
            answers: VecDeque::new(),
        })
    }

    /// What answers the peers' questions.
    pub fn peer(&self) -> Arc<dyn peer::Peer> {
        Arc::new(Inbox(self.events.clone()))
    }

    /// Asks whether the loop is responsive.
    pub fn ping(&self) -> impl FnMut() -> oneshot::Receiver<()> + Send + use<> {
        let events = self.events.clone();
        move || {
            let (answer, answered) = oneshot::channel();
            // The loop may be ending.
            let _ = events.send(ShellEvent::Ping(answer));
            answered
        }
    }

    /// Runs until the journal fails. Then the process must end, because what is not
    /// durable must not be acted on.
    pub async fn run(self) -> Result<(), JournalError> {
        let span = tracing::info_span!("instance", instance = %self.name);
        self.run_loop().instrument(span).await
    }

    async fn run_loop(mut self) -> Result<(), JournalError> {
        let pending = std::mem::take(&mut self.pending);
        self.carry_out(pending).await?;
        if let Some(answer) = self.answers.pop_front() {
            self.take(answer).await?;
        }
        self.slots.list_running();
        loop {
            for timer in self.timers.take_due() {
                self.take(AgentEvent::TimerFired(timer)).await?;
            }
            let wait = self.timers.next_in().unwrap_or(Duration::from_mins(1));
            let Ok(event) = tokio::time::timeout(wait, self.inbox.recv()).await else {
                continue;
            };
            match event {
                None => return Ok(()),
                Some(ShellEvent::Protocol(event)) => self.take(event).await?,
                Some(ShellEvent::DecisionQueried(peer, epoch, answer)) => {
                    let waiting = self.asked.entry((peer.clone(), epoch)).or_default();
                    waiting.push(answer);
                    self.take(AgentEvent::PeerAsked { peer, epoch }).await?;
                }
                Some(ShellEvent::ReadinessQueried(epoch, answer)) => {
                    if let Some(cut_over) = self.agent.ledger().under_way(epoch) {
                        let ledger = self.agent.ledger();
                        let new_releases = cut_over.new_releases();
                        let prepared =
                            new_releases.map(|(s, release)| (ledger.idle_slot(s), release.clone()));
                        self.slots.check_now(prepared.collect(), answer);
                    }
                }
                Some(ShellEvent::Found(running)) => {
                    for event in self.slots.adopt(running, self.agent.ledger()) {
                        self.take(event).await?;
                    }
                }
                Some(ShellEvent::Ping(answer)) => {
                    let _ = answer.send(());
                }
            }
        }
    }

    async fn take(&mut self, event: AgentEvent) -> Result<(), JournalError> {
        let mut next = Some(event);
        while let Some(event) = next {
            self.slots.note(&event);
            self.readings.note(&event, clock::monotonic_ns());
            let effects = self.agent.handle(event);
            self.carry_out(effects).await?;
            next = self.answers.pop_front();
        }
        self.tell_status();
        Ok(())
    }

    /// Reports the instance's status to the server whenever it has changed. Not while a cut-over
    /// is at its barrier: nothing may delay what decides there.
    fn tell_status(&mut self) {
        let mut status = self.agent.status();
        status.alignment = self.alignment;
        if matches!(
            status.participation,
            ParticipationView::Prepared(_) | ParticipationView::Armed(_)
        ) || self.told.as_ref() == Some(&status)
        {
            return;
        }
        self.told = Some(status.clone());
        let token = Token {
            term: self.agent.term(),
            epoch: status.decided,
        };
        let report = Report::Status(status);
        let failpoint = failpoint::before(|| "tell status".to_owned());
        self.report(ReportEnvelope { token, report });
        failpoint.after_a_moment();
    }

    async fn carry_out(&mut self, effects: Vec<AgentEffect>) -> Result<(), JournalError> {
        for effect in effects {
            let failpoint = failpoint::before(|| name(&effect));
            self.carry_out_one(effect).await?;
            failpoint.after_a_moment();
        }
        Ok(())
    }

    async fn carry_out_one(&mut self, effect: AgentEffect) -> Result<(), JournalError> {
        match effect {
            AgentEffect::Persist(record) => {
                tracing::debug!(?record, "record");
                let began = Instant::now();
                self.journal.append(&record)?;
                self.sync = began.elapsed();
                if matches!(record, AgentRecord::Retired(_) | AgentRecord::Aborted(_)) {
                    self.slots.forget_old_secrets(self.agent.ledger());
                }
            }
            AgentEffect::Report(envelope) => self.report(envelope),
            AgentEffect::Gate(action) => self.gate(action).await,
            AgentEffect::Start {
                slot,
                incarnation,
                release,
                ready_within,
            } => self.slots.start(slot, incarnation, release, ready_within),
            AgentEffect::CheckPeers {
                epoch,
                peers,
                releases,
            } => {
                let (instance_peers, events) = (self.peers.clone(), self.events.clone());
                tokio::spawn(async move {
                    let unseen = instance_peers.check_all(epoch, peers, releases).await;
                    let checked = AgentEvent::PeersChecked { epoch, unseen };
                    // The loop may be ending.
                    let _ = events.send(ShellEvent::Protocol(checked));
                });
            }
            AgentEffect::BeforeSwitch {
                epoch,
                releases,
                within,
            } => self.slots.before_switch(epoch, releases, within),
            AgentEffect::Stop { slot, drain, stop } => self.slots.stop(slot, drain, stop),
            AgentEffect::AskPeer { peer, epoch } => self.ask(peer, epoch),
            AgentEffect::AnswerPeer {
                peer,
                epoch,
                answer,
            } => {
                for waiting in self.asked.remove(&(peer, epoch)).unwrap_or_default() {
                    // The peer may have given up.
                    let _ = waiting.send(answer);
                }
            }
            AgentEffect::SetTimer { timer, after } => self.timers.set(timer, after),
        }
        Ok(())
    }

    fn report(&self, mut envelope: ReportEnvelope) {
        if let Report::Armed { sync } = &mut envelope.report {
            *sync = self.sync;
        } else if let Report::Status(status) = &mut envelope.report {
            status.alignment = self.alignment;
        }
        // The sender task lives as long as the runtime does.
        let _ = self.reports.send((tokio::time::Instant::now(), envelope));
    }

    /// Holds run beside the loop, because they may wait; the gate itself refuses a hold that
    /// comes after the opening of the same cut-over. Everything else is done in order.
    async fn gate(&mut self, action: GateAction) {
        let events = self.events.clone();
        let (span, acting) = (span_of(&action), self.front.act(action.clone()));
        if let GateAction::Hold { epoch, .. } = action {
            let holding = async move {
                let event = match acting.await {
                    Ok(Acted::Held(evidence)) => AgentEvent::GateHeld { epoch, evidence },
                    Ok(Acted::Opened(_) | Acted::Parked) => return,
                    Err(error) => AgentEvent::GateRefused {
                        epoch,
                        reason: error.to_string(),
                    },
                };
                tracing::debug!(?event, "the gate answered");
                // The loop may be ending.
                let _ = events.send(ShellEvent::Protocol(event));
            };
            tokio::spawn(holding.instrument(span));
            return;
        }
        let acted = acting.instrument(span.clone()).await;
        let _cut_over = span.entered();
        tracing::debug!(?acted, "the gate answered");
        match (acted, action) {
            (Ok(Acted::Opened(evidence)), GateAction::Open { epoch, colors }) => {
                let opened = AgentEvent::GateOpened {
                    epoch,
                    colors,
                    evidence,
                };
                self.answers.push_back(opened);
                let telemetry = self.telemetry.clone();
                let readings = self.readings.get(epoch);
                tokio::spawn(observe(self.front.clone(), epoch, readings, telemetry));
            }
            (Ok(Acted::Parked), GateAction::Park { services, .. }) => {
                let parked = AgentEvent::GateParked { services };
                self.answers.push_back(parked);
            }
            (Err(FrontError::NotSwitched(reason)), GateAction::Open { epoch, colors }) => {
                tracing::error!(reason, "the front did not change");
                let failed = AgentEvent::GateFailed {
                    epoch,
                    colors,
                    reason,
                };
                self.answers.push_back(failed);
            }
            (Ok(_), _) => {}
            // When the front answers again, the protocol gets an event and acts again.
            (Err(FrontError::Unreachable(error)), _) => {
                tracing::warn!(error, "the front cannot be reached");
            }
            (Err(FrontError::Refused(error) | FrontError::NotSwitched(error)), _) => {
                tracing::warn!(error, "the front refused");
            }
        }
    }

    fn ask(&self, peer: InstanceId, epoch: Epoch) {
        let Some(address) = self.peers.agents.get(&peer).copied() else {
            return;
        };
        let (tls, events) = (self.peers.tls.clone(), self.events.clone());
        tokio::spawn(async move {
            if let Some(answer) = peer::ask_decision(address, &peer, epoch, tls).await {
                let answered = AgentEvent::PeerAnswered { epoch, answer };
                let _ = events.send(ShellEvent::Protocol(answered));
            }
        });
    }
}

/// The way of the peers' questions into the loop.
struct Inbox(UnboundedSender<ShellEvent>);

impl peer::Peer for Inbox {
    fn decision(&self, peer: InstanceId, epoch: Epoch) -> BoxFuture<'static, Option<PeerAnswer>> {
        let (sender, answer) = oneshot::channel();
        let sent = self
            .0
            .send(ShellEvent::DecisionQueried(peer, epoch, sender));
        async move { sent.is_ok().then_some(answer.await.ok())? }.boxed()
    }

    fn readiness(&self, epoch: Epoch) -> BoxFuture<'static, Option<Readiness>> {
        let (sender, answer) = oneshot::channel();
        let sent = self.0.send(ShellEvent::ReadinessQueried(epoch, sender));
        async move { sent.is_ok().then_some(answer.await.ok())? }.boxed()
    }
}

/// Sends the protocol an event whenever another incarnation of the front answers.
async fn watch_front(front: Arc<dyn Front>, events: UnboundedSender<ShellEvent>) {
    let mut known = None;
    loop {
        match front.incarnation().await {
            Ok(incarnation) if known != Some(incarnation) => {
                known = Some(incarnation);
                let connected = ShellEvent::Protocol(AgentEvent::GateConnected);
                if events.send(connected).is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(_) => known = None,
        }
        tokio::time::sleep(FRONT_POLL_INTERVAL).await;
    }
}

/// What the lines of the log are about while the gate acts.
fn span_of(action: &GateAction) -> Span {
    let (GateAction::Hold { epoch, .. }
    | GateAction::Open { epoch, .. }
    | GateAction::Park { epoch, .. }) = action;
    tracing::info_span!("cut_over", epoch = epoch.0)
}

/// What a failpoint calls the effect.
fn name(effect: &AgentEffect) -> String {
    let variant = match effect {
        AgentEffect::Persist(record) => failpoint::variant(record),
        AgentEffect::Report(envelope) => failpoint::variant(&envelope.report),
        AgentEffect::Gate(action) => failpoint::variant(action),
        AgentEffect::SetTimer { timer, .. } => failpoint::variant(timer),
        AgentEffect::Start { .. }
        | AgentEffect::CheckPeers { .. }
        | AgentEffect::BeforeSwitch { .. }
        | AgentEffect::Stop { .. }
        | AgentEffect::AskPeer { .. }
        | AgentEffect::AnswerPeer { .. } => return failpoint::variant(effect),
    };
    format!("{} {variant}", failpoint::variant(effect))
}
