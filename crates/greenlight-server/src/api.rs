//! The operators' HTTP API: commands, status, history, receipts, and a stream of progress.

use super::doctor::examine_fleet;
use super::progress_log::ProgressLog;
use super::receipt_archive::ReceiptArchive;
use super::shell::Input;
use super::view::{FleetView, ViewReader};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::Stream;
use futures_util::future::join_all;
use greenlight_link::api::{
    ActRequest, CommandAnswer, DeployRequest, ErrorAnswer, History, LogsAnswer, NumberedEvent,
    PinAnswer, PinRequest, RollbackRequest,
};
use greenlight_link::doctor::DoctorRequest;
use greenlight_link::{
    AgentStreams, PinImage, ReadLogs, ReleaseSecrets, RequestError, SetAddresses, StoreSecrets,
};
use greenlight_protocol::coordinator::{self, Accepted, Command, DeploymentRequest, Refusal};
use greenlight_protocol::{DeploymentId, InstanceId, Plan, ServiceName, Strategy};
use greenlight_release::spec::{ServiceSpec, VersionError, check_version};
use greenlight_shell::clock::utc;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;
use tokio::sync::{broadcast, oneshot};

/// What every handler needs.
#[derive(Clone)]
pub(crate) struct Api {
    inbox: Sender<Input>,
    view: ViewReader,
    archive: ReceiptArchive,
    past: ProgressLog,
    progress: broadcast::Sender<NumberedEvent>,
    fleet: Arc<BTreeSet<InstanceId>>,
    streams: AgentStreams,
}

/// What the operators' routes are made of.
pub struct ApiParts {
    /// Takes commands to the coordinator.
    pub inbox: Sender<Input>,
    /// The state of the fleet.
    pub view: ViewReader,
    /// The receipts on disk.
    pub archive: ReceiptArchive,
    /// The progress so far.
    pub past: ProgressLog,
    /// The progress as it comes.
    pub progress: broadcast::Sender<NumberedEvent>,
    /// The instances.
    pub fleet: BTreeSet<InstanceId>,
    /// The agents.
    pub streams: AgentStreams,
}

/// `GET /v1/logs?…`.
#[derive(Deserialize)]
struct LogsQuery {
    lines: usize,
    instance: Option<InstanceId>,
    service: Option<ServiceName>,
}

/// How long agents may take to say what applications wrote.
const LOGS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long agents may take to keep secrets.
const STORE_SECRETS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an instance may take to choose its ports.
const SET_ADDRESSES_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an agent may take to ask a registry.
const PIN_TIMEOUT: Duration = Duration::from_secs(30);
/// The most that an operator may send at once, in bytes: a deployment with its secrets.
const MOST_FROM_OPERATOR: usize = 8 * 1024 * 1024;
/// More than this of each application is not sent.
const MOST_LINES: usize = 10_000;

/// The operators' routes. Who may call them is the link's business.
pub fn router(parts: ApiParts) -> Router {
    Router::new()
        .route("/v1/deployments", post(deploy).get(history))
        .route("/v1/deployments/{id}", get(receipt))
        .route("/v1/images", post(pin))
        .route("/v1/promote", post(promote))
        .route("/v1/abort", post(abort))
        .route("/v1/rollback", post(rollback))
        .route("/v1/status", get(status))
        .route("/v1/events", get(events))
        .route("/v1/logs", get(logs))
        .route("/v1/doctor", post(doctor))
        .layer(DefaultBodyLimit::max(MOST_FROM_OPERATOR))
        .with_state(Api {
            inbox: parts.inbox,
            view: parts.view,
            archive: parts.archive,
            past: parts.past,
            progress: parts.progress,
            fleet: Arc::new(parts.fleet),
            streams: parts.streams,
        })
}

async fn deploy(State(api): State<Api>, Json(request): Json<DeployRequest>) -> Response {
    for release in request.releases.values() {
        if let Err(error) = check_version(&release.version) {
            let answer = ErrorAnswer {
                error: error.to_string(),
                help: VersionError::HELP.to_owned(),
            };
            return (StatusCode::BAD_REQUEST, Json(answer)).into_response();
        }
    }
    let plan = match Plan::compile(request.strategy.clone(), &api.fleet) {
        Ok(plan) => plan,
        Err(error) => return refuse(&Refusal::Plan(error), None),
    };
    if let Err(response) = api.deliver_secrets(&request, plan.instances()).await {
        return response;
    }
    if let Err(response) = api.set_addresses(&request, &plan.instances()).await {
        return response;
    }
    let policy = match request.policy {
        Some(policy) => policy,
        None => match api.view.read() {
            Some(view) => view.policy.clone(),
            None => return ending(),
        },
    };
    let new_releases = request.releases.into_iter();
    let new_releases = new_releases.map(|(service, release)| (service, Some(release)));
    let removed = request.remove.into_iter().map(|service| (service, None));
    let request = DeploymentRequest {
        deployment: new_id(),
        requested_by: request.requested_by,
        releases: new_releases.chain(removed).collect(),
        plan,
        policy,
        promotion: request.promotion,
    };
    api.command(Command::Deploy(Box::new(request))).await
}

/// The digest to which an image's name resolves, as seen from the first connected instance.
async fn pin(State(api): State<Api>, Json(request): Json<PinRequest>) -> Response {
    let Some(view) = api.view.read() else {
        return ending();
    };
    let mut instances = view.status.instances.iter();
    let Some((instance, _)) = instances.find(|(_, standing)| standing.is_some()) else {
        return conflict(
            "no instance is connected, so the image cannot be resolved".to_owned(),
            "start the agents, or look at their logs; nothing was changed",
        );
    };
    let request = PinImage {
        image: request.image,
        login: request.login,
    };
    let asked = api.streams.ask_one(instance.clone(), request, PIN_TIMEOUT);
    match asked.await {
        Ok(pin) => Json(PinAnswer { pin }).into_response(),
        Err(RequestError::Failed(reason)) => conflict(
            format!("instance `{instance}`: {reason}"),
            "nothing was changed",
        ),
        Err(RequestError::NoResponse | RequestError::Unreadable(_)) => conflict(
            format!("instance `{instance}` did not resolve the image"),
            "look at its agent's log; nothing was changed",
        ),
    }
}

async fn rollback(State(api): State<Api>, Json(request): Json<RollbackRequest>) -> Response {
    if let Some(version) = &request.version {
        match api.view.read() {
            Some(view) => {
                if let Some(problem) = cannot_go_back_to(version, &view) {
                    return problem;
                }
            }
            None => return ending(),
        }
    }
    let plan = match Plan::compile(Strategy::BlueGreen, &api.fleet) {
        Ok(plan) => plan,
        Err(error) => return refuse(&Refusal::Plan(error), None),
    };
    let request = coordinator::RollbackRequest {
        deployment: new_id(),
        requested_by: request.requested_by,
        plan,
        policy: request.policy,
    };
    api.command(Command::Rollback(Box::new(request))).await
}

/// A rollback goes to what was live before; another version is an ordinary deployment.
fn cannot_go_back_to(version: &str, view: &FleetView) -> Option<Response> {
    let before = &view.before;
    if before.values().any(|known| known == version) {
        return None;
    }
    let known: Vec<_> = before.values().map(|v| format!("`{v}`")).collect();
    let answer = ErrorAnswer {
        error: format!("`{version}` is not the release before the live one"),
        help: if known.is_empty() {
            "nothing was live before; deploy the version instead".to_owned()
        } else {
            format!(
                "a rollback goes to {}; deploy other versions",
                known.join(", ")
            )
        },
    };
    Some((StatusCode::CONFLICT, Json(answer)).into_response())
}

async fn promote(State(api): State<Api>, Json(_): Json<ActRequest>) -> Response {
    api.command(Command::Promote).await
}

async fn abort(State(api): State<Api>, Json(request): Json<ActRequest>) -> Response {
    api.command(Command::Abort {
        requested_by: request.requested_by,
    })
    .await
}

async fn status(State(api): State<Api>) -> Response {
    match api.view.read() {
        Some(view) => Json(&view.status).into_response(),
        None => ending(),
    }
}

async fn history(State(api): State<Api>) -> Response {
    match api.view.read() {
        Some(view) => {
            let deployments = view.history();
            Json(History { deployments }).into_response()
        }
        None => ending(),
    }
}

async fn receipt(State(api): State<Api>, Path(id): Path<String>) -> Response {
    let Some(view) = api.view.read() else {
        return ending();
    };
    let is_it = |deployment: &str| id == "latest" || deployment == id;
    let mut recent = view.recent.iter().rev();
    let recent = recent.find(|receipt| is_it(&receipt.deployment)).cloned();
    let mut older = view.older.iter().rev();
    let older = older.find(|summary| is_it(&summary.deployment));
    let older = older.map(|summary| summary.deployment.clone());
    if recent.is_some() || older.is_some() {
        let archive = api.archive.clone();
        let read = tokio::task::spawn_blocking(move || match (recent, older) {
            (Some(receipt), _) => archive.sealed(&receipt).map(|text| text.to_string()),
            (None, id) => archive.read(&id.unwrap_or_default()),
        });
        return match read.await.map_err(std::io::Error::other).flatten() {
            Ok(document) => ([(CONTENT_TYPE, "application/json")], document).into_response(),
            Err(error) => {
                tracing::error!(%error, deployment = id, "a receipt cannot be read");
                let answer = ErrorAnswer {
                    error: format!("the receipt cannot be read: {error}"),
                    help: "look at the server's log and its folder `receipts`".to_owned(),
                };
                (StatusCode::INTERNAL_SERVER_ERROR, Json(answer)).into_response()
            }
        };
    }
    let (error, help) = match id.as_str() {
        "latest" => (
            "nothing has been deployed yet".to_owned(),
            "deploy a first release with `greenlight deploy`",
        ),
        _ => (
            format!("there is no deployment `{id}`"),
            "`greenlight history` lists the deployments that are known",
        ),
    };
    not_found(error, help.to_owned())
}

/// The last lines of the applications of all or one instance, and of all or one service.
async fn logs(State(api): State<Api>, Query(query): Query<LogsQuery>) -> Response {
    let Some(view) = api.view.read() else {
        return ending();
    };
    let status = &view.status;
    let deploying = status.deployment.iter().flat_map(|d| d.releases.keys());
    let history = view.history();
    let known = history.iter().flat_map(|its| its.releases.keys());
    let live = status.live.keys();
    let mut services: BTreeSet<_> = live.chain(deploying).chain(known).collect();
    if let Some(service) = &query.service {
        if !services.contains(service) {
            let known: Vec<_> = services.iter().map(|s| format!("`{s}`")).collect();
            return not_found(
                format!("there is no service `{service}`"),
                match known.is_empty() {
                    true => "nothing has been deployed yet".to_owned(),
                    false => format!("the fleet knows {}", known.join(", ")),
                },
            );
        }
        services.retain(|known| *known == service);
    }
    let agents = match query.instance {
        None => (*api.fleet).clone(),
        Some(instance) if api.fleet.contains(&instance) => [instance].into(),
        Some(instance) => {
            let known: Vec<_> = api.fleet.iter().map(|i| format!("`{i}`")).collect();
            return not_found(
                format!("there is no instance `{instance}`"),
                format!("the fleet has {}", known.join(", ")),
            );
        }
    };
    let request = ReadLogs {
        services: services.into_iter().cloned().collect(),
        lines: query.lines.min(MOST_LINES),
    };
    let responses = api.streams.ask(agents, request, LOGS_TIMEOUT).await;
    let instances = responses.into_iter();
    let instances = instances.map(|(instance, logs)| (instance, logs.ok()));
    Json(LogsAnswer {
        instances: instances.collect(),
    })
    .into_response()
}

/// What every agent finds on its machine.
async fn doctor(State(api): State<Api>, Json(asked): Json<DoctorRequest>) -> Response {
    let Some(view) = api.view.read() else {
        return ending();
    };
    let instances = view.status.instances.iter();
    let connected = instances.map(|(name, standing)| (name.clone(), standing.is_some()));
    Json(examine_fleet(&api.streams, connected.collect(), asked).await).into_response()
}

fn conflict(error: String, help: &str) -> Response {
    let help = help.to_owned();
    (StatusCode::CONFLICT, Json(ErrorAnswer { error, help })).into_response()
}

fn not_found(error: String, help: String) -> Response {
    (StatusCode::NOT_FOUND, Json(ErrorAnswer { error, help })).into_response()
}

/// The latest deployment's progress so far, and then as it comes.
async fn events(
    State(api): State<Api>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Response> {
    // Subscribe first, so that nothing falls between the past and what comes.
    let mut coming = api.progress.subscribe();
    if api.view.read().is_none() {
        return Err(ending());
    }
    let past = api.past.read();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(256);
    tokio::spawn(async move {
        let mut last = 0;
        for progress in past {
            last = progress.number;
            if sender.send(Arc::unwrap_or_clone(progress)).await.is_err() {
                return;
            }
        }
        loop {
            match coming.recv().await {
                Ok(progress) if progress.number > last => {
                    if sender.send(progress).await.is_err() {
                        return;
                    }
                }
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    });
    let stream = futures_util::stream::poll_fn(move |context| {
        receiver.poll_recv(context).map(|next| {
            next.map(|progress| {
                let event = Event::default().id(progress.number.to_string());
                Ok(event.json_data(progress).expect("progress serialises"))
            })
        })
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}

impl Api {
    /// Stores the values of secrets on every instance before anything is decided: whatever fails
    /// later, an application finds them where it starts.
    async fn deliver_secrets(
        &self,
        request: &DeployRequest,
        instances: BTreeSet<InstanceId>,
    ) -> Result<(), Response> {
        let mut releases = BTreeMap::new();
        for (service, release) in &request.releases {
            let secrets = request.secrets.get(service).cloned().unwrap_or_default();
            let spec = ServiceSpec::from_release(release).map_err(|error| {
                conflict(
                    error.to_string(),
                    "use the same version of greenlight everywhere",
                )
            })?;
            if let Some(name) = spec
                .secrets
                .keys()
                .find(|name| !secrets.env.contains_key(*name))
            {
                let error = format!("the value of secret `{name}` of `{service}` was not sent");
                return Err(conflict(error, "deploy with `greenlight deploy`"));
            }
            if !secrets.is_empty() {
                let digest = release.digest.clone();
                releases.insert(service.clone(), ReleaseSecrets { digest, secrets });
            }
        }
        if releases.is_empty() {
            return Ok(());
        }
        let request = StoreSecrets { releases };
        let responses = self
            .streams
            .ask(instances, request, STORE_SECRETS_TIMEOUT)
            .await;
        for (instance, response) in responses {
            if let Err(error) = response {
                return Err(conflict(
                    format!("instance `{instance}` did not store the secrets: {error}"),
                    "start its agent, or look at the agent's log; nothing was changed",
                ));
            }
        }
        Ok(())
    }

    /// Tells every instance its ports before anything is decided. They count for slots that are
    /// filled anew: what is live stays on the port on which it was started. While another
    /// deployment is under way nobody is told: this one attaches to it or is refused. One that is
    /// not connected is not told either: the coordinator refuses the deployment for that.
    async fn set_addresses(
        &self,
        request: &DeployRequest,
        instances: &BTreeSet<InstanceId>,
    ) -> Result<(), Response> {
        let view = self.view.read().ok_or_else(ending)?;
        if view.status.deployment.is_some() {
            return Ok(());
        }
        let told = request.addresses.iter();
        let told = told.filter(|(instance, _)| instances.contains(*instance));
        let answers = join_all(told.map(async |(instance, requested)| {
            let requested = requested.clone();
            let request = SetAddresses { requested };
            let asked = self
                .streams
                .ask_one(instance.clone(), request, SET_ADDRESSES_TIMEOUT);
            (instance, asked.await)
        }));
        for (instance, answer) in answers.await {
            let is_connected = matches!(view.status.instances.get(instance), Some(Some(_)));
            match answer {
                Ok(_) => {}
                Err(RequestError::NoResponse) if !is_connected => {}
                Err(error) => {
                    return Err(conflict(
                        format!("instance `{instance}` has not taken its ports: {error}"),
                        "look at its agent's log; what is live keeps its ports",
                    ));
                }
            }
        }
        Ok(())
    }

    async fn command(&self, command: Command) -> Response {
        let (answer, reply) = oneshot::channel();
        let input = Input::Command {
            command: Box::new(command),
            answer,
        };
        if self.inbox.send(input).is_err() {
            return ending();
        }
        match reply.await {
            Ok(Ok(accepted)) => Json(accepted_answer(accepted)).into_response(),
            Ok(Err(refusal)) => self.refuse(&refusal),
            Err(_) => ending(),
        }
    }

    /// A refusal; if another deployment is under way, also since when.
    fn refuse(&self, refusal: &Refusal) -> Response {
        let Refusal::Busy { .. } = refusal else {
            return refuse(refusal, None);
        };
        let view = self.view.read();
        let busy = view.and_then(|view| Some(view.status.deployment.as_ref()?.since_ms));
        refuse(refusal, busy)
    }
}

fn accepted_answer(accepted: Accepted) -> CommandAnswer {
    let (deployment, attached) = match accepted {
        Accepted::Started(id) | Accepted::Done(id) => (id, false),
        Accepted::Attached(id) => (id, true),
    };
    CommandAnswer {
        deployment,
        attached,
    }
}

fn refuse(refusal: &Refusal, since_ms: Option<u64>) -> Response {
    let help = match refusal {
        Refusal::Busy { .. } => {
            "wait for it, or stop it with `greenlight abort`; `greenlight status` shows it"
        }
        Refusal::NotConnected(_) => {
            "start its agent, or look at the agent's log; what is live was not changed"
        }
        Refusal::UnknownInstance(_) => "add it to `servers` and restart the server",
        Refusal::Plan(_) => "correct `strategy` or `servers`",
        Refusal::NoServices => "name at least one service",
        Refusal::NotLive(_) => "`greenlight status` lists what is live",
        Refusal::NothingUnderWay => "`greenlight status` shows the state of the fleet",
        Refusal::NotReady(_) => "wait until it is ready; `greenlight status` shows it",
        Refusal::NoRollbackTarget(_) | Refusal::NeverDeployed => "deploy a version instead",
    };
    let since = since_ms.map(|ms| format!(" since {}", utc(ms)));
    let answer = ErrorAnswer {
        error: format!("{refusal}{}", since.unwrap_or_default()),
        help: help.to_owned(),
    };
    (StatusCode::CONFLICT, Json(answer)).into_response()
}

fn ending() -> Response {
    let answer = ErrorAnswer {
        error: "the server is stopping".to_owned(),
        help: "try again; a deployment under way continues when the server is back".to_owned(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(answer)).into_response()
}

fn new_id() -> DeploymentId {
    DeploymentId(uuid::Uuid::now_v7().to_string())
}
