//! The operators' HTTP API: commands, status, history, receipts, and a stream of progress.

use super::shell::{Input, Snapshot};
use crate::api::{
    ActRequest, CommandAnswer, DeployRequest, ErrorAnswer, History, Progress, RollbackRequest,
};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::Stream;
use greenlight_protocol::coordinator::{
    Accepted, Command, Order, Promotion, Refusal, RollbackOrder,
};
use greenlight_protocol::{DeploymentId, InstanceId, Plan, Strategy};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use tokio::sync::{broadcast, oneshot};

/// What every handler needs.
#[derive(Clone)]
pub(crate) struct Api {
    inbox: Sender<Input>,
    progress: broadcast::Sender<Progress>,
    fleet: Arc<BTreeSet<InstanceId>>,
}

/// The operators' routes. Who may call them is the link's business.
pub fn router(
    inbox: Sender<Input>,
    progress: broadcast::Sender<Progress>,
    fleet: BTreeSet<InstanceId>,
) -> Router {
    let fleet = Arc::new(fleet);
    Router::new()
        .route("/v1/deployments", post(deploy).get(history))
        .route("/v1/deployments/{id}", get(receipt))
        .route("/v1/promote", post(promote))
        .route("/v1/abort", post(abort))
        .route("/v1/rollback", post(rollback))
        .route("/v1/status", get(status))
        .route("/v1/events", get(events))
        .with_state(Api {
            inbox,
            progress,
            fleet,
        })
}

async fn deploy(State(api): State<Api>, Json(request): Json<DeployRequest>) -> Response {
    let plan = match Plan::compile(request.strategy, &api.fleet) {
        Ok(plan) => plan,
        Err(error) => return refuse(&Refusal::Plan(error)),
    };
    let order = Order {
        deployment: new_id(),
        by: request.by,
        releases: request.releases,
        plan,
        policy: request.policy,
        promotion: request.promotion,
    };
    api.command(Command::Deploy(Box::new(order))).await
}

async fn rollback(State(api): State<Api>, Json(request): Json<RollbackRequest>) -> Response {
    if let Some(version) = &request.version {
        match api.look().await {
            Ok(snapshot) => {
                if let Some(problem) = cannot_go_back_to(version, &snapshot) {
                    return problem;
                }
            }
            Err(response) => return response,
        }
    }
    let plan = match Plan::compile(Strategy::BlueGreen, &api.fleet) {
        Ok(plan) => plan,
        Err(error) => return refuse(&Refusal::Plan(error)),
    };
    let order = Order {
        deployment: new_id(),
        by: request.by,
        releases: BTreeMap::new(),
        plan,
        policy: request.policy,
        promotion: Promotion::Automatic,
    };
    api.command(Command::Rollback(Box::new(RollbackOrder { order })))
        .await
}

/// A rollback goes to what was live before; another version is an ordinary deployment.
fn cannot_go_back_to(version: &str, snapshot: &Snapshot) -> Option<Response> {
    let before = &snapshot.before;
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
    api.command(Command::Abort { by: request.by }).await
}

async fn status(State(api): State<Api>) -> Response {
    match api.look().await {
        Ok(snapshot) => Json(snapshot.status).into_response(),
        Err(response) => response,
    }
}

async fn history(State(api): State<Api>) -> Response {
    match api.look().await {
        Ok(snapshot) => Json(History {
            deployments: snapshot.receipts,
        })
        .into_response(),
        Err(response) => response,
    }
}

async fn receipt(State(api): State<Api>, Path(id): Path<String>) -> Response {
    let snapshot = match api.look().await {
        Ok(snapshot) => snapshot,
        Err(response) => return response,
    };
    let mut receipts = snapshot.receipts.into_iter().rev();
    let found = receipts.find(|receipt| id == "latest" || receipt.deployment == id);
    if let Some(receipt) = found {
        return Json(receipt).into_response();
    }
    let answer = ErrorAnswer {
        error: format!("there is no deployment `{id}`"),
        help: "`greenlight history` lists the deployments that are known".to_owned(),
    };
    (StatusCode::NOT_FOUND, Json(answer)).into_response()
}

/// The latest deployment's progress so far, and then as it comes.
async fn events(
    State(api): State<Api>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Response> {
    // Subscribe first, so that nothing falls between the past and what comes.
    let mut coming = api.progress.subscribe();
    let past = api.look().await?.progress;
    let (sender, mut receiver) = tokio::sync::mpsc::channel(256);
    tokio::spawn(async move {
        let mut last = 0;
        for progress in past {
            last = progress.number;
            if sender.send(progress).await.is_err() {
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
            Ok(Err(refusal)) => refuse(&refusal),
            Err(_) => ending(),
        }
    }

    async fn look(&self) -> Result<Snapshot, Response> {
        let (answer, reply) = oneshot::channel();
        self.inbox.send(Input::Look(answer)).map_err(|_| ending())?;
        reply.await.map_err(|_| ending())
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

fn refuse(refusal: &Refusal) -> Response {
    let help = match refusal {
        Refusal::Busy { .. } => {
            "wait for it, or stop it with `greenlight abort`; `greenlight status` shows it"
        }
        Refusal::NotConnected(_) => {
            "start its agent, or look at the agent's log; nothing was changed"
        }
        Refusal::UnknownInstance(_) => "add it to `servers` and restart the server",
        Refusal::Plan(_) => "correct `strategy` or `servers`",
        Refusal::NoServices => "name at least one service",
        Refusal::NothingUnderWay => "`greenlight status` shows how the fleet stands",
        Refusal::NotReady(_) => "wait until it is ready; `greenlight status` shows it",
        Refusal::NoEarlierRelease(_) | Refusal::NeverDeployed => "deploy a version instead",
    };
    let answer = ErrorAnswer {
        error: refusal.to_string(),
        help: help.to_owned(),
    };
    (StatusCode::CONFLICT, Json(answer)).into_response()
}

fn ending() -> Response {
    let answer = ErrorAnswer {
        error: "the server is ending".to_owned(),
        help: "try again; a deployment under way goes on when it is back".to_owned(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(answer)).into_response()
}

fn new_id() -> DeploymentId {
    DeploymentId(uuid::Uuid::now_v7().to_string())
}
