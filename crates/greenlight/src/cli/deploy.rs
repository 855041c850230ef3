//! The commands that change what the fleet serves, and the waiting for how they end.
//!
//! The server does the work; a command only asks and watches. Killing it changes nothing (G8).

use super::actions::{Job, OngoingState};
use super::args::{Act, Deploy, Remove, Rollback};
use super::fleet::{configuration, connect, membership_mismatch, orphans, requested_by, version};
use super::progress::Display;
use super::show::show_receipt;
use super::{Exit, Failure, Output, print_json, releases};
use greenlight_config::{Config, ConfigError};
use greenlight_link::api::{
    ActRequest, CommandAnswer, DeployRequest, DeploymentEvent, FleetStatus, NumberedEvent,
    PhaseName, RollbackRequest,
};
use greenlight_link::receipt::Receipt;
use greenlight_link::{ApiClient, ApiError, Follow};
use greenlight_protocol::coordinator::Promotion;
use greenlight_protocol::{DeploymentId, Outcome, Policy, ServiceName, Strategy};
use greenlight_shell::clock;
use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a server may be away before a command stops waiting for it.
const SERVER_AWAY_TIMEOUT: Duration = Duration::from_mins(1);
/// The pause before asking a server again that was away.
const PAUSE: Duration = Duration::from_millis(500);
/// A server that takes longer to answer is away.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// When a command has seen enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// The deployment is over.
    Finished,
    /// All instances are ready, or it is over.
    Ready,
}

/// How a followed deployment was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// It is over.
    Finished,
    /// It waits for `promote`.
    Ready,
}

/// What `--json` prints of a deployment that continues without the command.
#[derive(Serialize)]
struct Ongoing<'a> {
    deployment: &'a DeploymentId,
    attached: bool,
    state: OngoingState,
}

/// `greenlight deploy`.
pub(super) async fn deploy(args: &Deploy, output: Output) -> Result<Exit, Failure> {
    start(args, Promotion::Automatic, output).await
}

/// `greenlight prepare`.
pub(super) async fn prepare(args: &Deploy, output: Output) -> Result<Exit, Failure> {
    start(args, Promotion::Manual, output).await
}

async fn start(args: &Deploy, promotion: Promotion, output: Output) -> Result<Exit, Failure> {
    let config = configuration(&args.file)?;
    let version = version(args.version.as_deref(), &args.file.file)?;
    let api = connect(&args.fleet, &args.file)?;
    let status: FleetStatus = api.get("/v1/status").await?;
    if let Some(obstacle) = membership_mismatch(&config, &status).into_iter().next() {
        return Err(Failure::new(Exit::Refused, obstacle).help("nothing was changed"));
    }
    let made = releases::make(&config, &args.file.file, &version, &api).await?;
    let request = DeployRequest {
        requested_by: requested_by(),
        releases: made.releases,
        remove: [].into(),
        secrets: made.secrets,
        addresses: config.addresses(),
        strategy: config.strategy.clone(),
        policy: Some(config.policy.clone()),
        promotion,
    };
    let answer: CommandAnswer = api.post("/v1/deployments", &request).await?;
    let display = Display::suited();
    for service in orphans(&config, &status) {
        display.say(&format!(
            "note: `{service}` is live and not in the file; `greenlight remove {service}` stops it"
        ));
    }
    let verb = if answer.attached {
        "attached to"
    } else {
        "started"
    };
    display.say(&format!(
        "{verb} deployment {} of `{version}`",
        answer.deployment
    ));
    if args.detach {
        return leave(&answer, OngoingState::GoingOn, output);
    }
    begun(&answer);
    let until = match promotion {
        Promotion::Manual => Until::Ready,
        Promotion::Automatic => Until::Finished,
    };
    let (left, mut display) = follow(&api, &answer.deployment, until, display).await?;
    display.end();
    match left {
        Left::Ready => {
            eprintln!("all instances are ready; `greenlight promote` cuts over");
            leave(&answer, OngoingState::Ready, output)
        }
        Left::Finished => conclude(&api, &answer.deployment, Goal::Promoted, output).await,
    }
}

/// Reports the deployment's id at once, so that a CI job knows it even if the command is killed.
fn begun(answer: &CommandAnswer) {
    if let Some(job) = Job::current() {
        job.report_ongoing(&answer.deployment, OngoingState::Unknown);
    }
}

fn leave(answer: &CommandAnswer, state: OngoingState, output: Output) -> Result<Exit, Failure> {
    if let Some(job) = Job::current() {
        job.report_ongoing(&answer.deployment, state);
    }
    if output == Output::Json {
        print_json(&Ongoing {
            deployment: &answer.deployment,
            attached: answer.attached,
            state,
        })?;
    }
    Ok(Exit::Done)
}

/// `greenlight promote`.
pub(super) async fn promote(args: &Act, output: Output) -> Result<Exit, Failure> {
    act(args, "/v1/promote", Goal::Promoted, output).await
}

/// `greenlight abort`.
pub(super) async fn abort(args: &Act, output: Output) -> Result<Exit, Failure> {
    act(args, "/v1/abort", Goal::Back, output).await
}

async fn act(args: &Act, path: &str, goal: Goal, output: Output) -> Result<Exit, Failure> {
    let api = connect(&args.fleet, &args.file)?;
    let question = ActRequest {
        requested_by: requested_by(),
    };
    let answer: CommandAnswer = api.post(path, &question).await?;
    finish(&api, &answer, args.detach, goal, output).await
}

/// `greenlight rollback`.
pub(super) async fn rollback(args: &Rollback, output: Output) -> Result<Exit, Failure> {
    let api = connect(&args.act.fleet, &args.act.file)?;
    let request = RollbackRequest {
        requested_by: requested_by(),
        version: args.to.clone(),
        policy: policy_of(&args.act),
    };
    let answer: CommandAnswer = api.post("/v1/rollback", &request).await?;
    finish(&api, &answer, args.act.detach, Goal::Promoted, output).await
}

/// The timers and choices of the file; none if it is not there, or if it cannot be read: to go back
/// must not depend on a file that someone has just broken. Then the latest deployment's apply.
fn policy_of(act: &Act) -> Option<Policy> {
    match Config::load(&act.file.file) {
        Ok(config) => Some(config.policy),
        Err(ConfigError::Missing { .. }) => None,
        Err(error) => {
            let file = act.file.file.display();
            let place = error.line().map(|line| format!("line {line}: "));
            let place = place.unwrap_or_default();
            eprintln!(
                "warning: `{file}` cannot be used ({place}{error}), so the timers of the latest \
                 deployment apply"
            );
            None
        }
    }
}

/// `greenlight remove`.
pub(super) async fn remove(args: &Remove, output: Output) -> Result<Exit, Failure> {
    let api = connect(&args.act.fleet, &args.act.file)?;
    let request = DeployRequest {
        requested_by: requested_by(),
        releases: BTreeMap::new(),
        remove: args.services.iter().cloned().map(ServiceName).collect(),
        secrets: BTreeMap::new(),
        addresses: BTreeMap::new(),
        strategy: Strategy::BlueGreen,
        policy: policy_of(&args.act),
        promotion: Promotion::Automatic,
    };
    let answer: CommandAnswer = api.post("/v1/deployments", &request).await?;
    finish(&api, &answer, args.act.detach, Goal::Promoted, output).await
}

async fn finish(
    api: &ApiClient,
    answer: &CommandAnswer,
    detach: bool,
    goal: Goal,
    output: Output,
) -> Result<Exit, Failure> {
    if detach {
        return leave(answer, OngoingState::GoingOn, output);
    }
    begun(answer);
    let display = Display::suited();
    let (_, mut display) = follow(api, &answer.deployment, Until::Finished, display).await?;
    display.end();
    conclude(api, &answer.deployment, goal, output).await
}

/// Shows a deployment's progress until the command has seen enough. A server that is started
/// again in between is found again.
pub(super) async fn follow(
    api: &ApiClient,
    deployment: &DeploymentId,
    until: Until,
    mut display: Display,
) -> Result<(Left, Display), Failure> {
    let mut seen = 0;
    let mut away_since = None;
    loop {
        let mut left = None;
        let following = api.follow(|progress| {
            if progress.deployment != *deployment || progress.number <= seen {
                return Follow::On;
            }
            seen = progress.number;
            display.show(&progress);
            left = match &progress.event {
                DeploymentEvent::Finished { .. } => Some(Left::Finished),
                DeploymentEvent::Phase { phase, .. } if *phase == PhaseName::Ready => {
                    Some(Left::Ready)
                }
                DeploymentEvent::Phase { .. } | DeploymentEvent::Instance { .. } => None,
            };
            match (left, until) {
                (Some(Left::Finished), _) | (Some(Left::Ready), Until::Ready) => Follow::Enough,
                (Some(Left::Ready), Until::Finished) | (None, _) => Follow::On,
            }
        });
        let lost = tokio::select! {
            followed = following => followed.err(),
            () = over_or_away(api, deployment) => None,
        };
        match (left, until) {
            (Some(Left::Finished), _) => return Ok((Left::Finished, display)),
            (Some(Left::Ready), Until::Ready) => return Ok((Left::Ready, display)),
            (Some(Left::Ready), Until::Finished) | (None, _) => {}
        }
        match receipt::<Receipt>(api, deployment).await {
            Ok(receipt) => {
                if let Some(outcome) = receipt.outcome {
                    // It was over before the stream reported it, so the stream will not say how.
                    display.show(&NumberedEvent {
                        number: seen + 1,
                        at_ms: receipt.finished_ms.unwrap_or_else(clock::wall_ms),
                        deployment: deployment.clone(),
                        event: DeploymentEvent::Finished { outcome },
                    });
                    return Ok((Left::Finished, display));
                }
                away_since = None;
            }
            Err(error) => {
                let since = *away_since.get_or_insert_with(Instant::now);
                if since.elapsed() > SERVER_AWAY_TIMEOUT {
                    return Err(gave_up(&lost.unwrap_or(error)));
                }
            }
        }
        // Another server numbers its progress from the start.
        seen = 0;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Resolves when the stream of progress has nothing more to tell: the deployment is over, perhaps
/// since before a restart of the server, or the server does not answer.
async fn over_or_away(api: &ApiClient, deployment: &DeploymentId) {
    loop {
        tokio::time::sleep(PAUSE).await;
        match tokio::time::timeout(RESPONSE_TIMEOUT, receipt::<Receipt>(api, deployment)).await {
            Ok(Ok(receipt)) if receipt.outcome.is_none() => {}
            Ok(_) | Err(_) => return,
        }
    }
}

fn gave_up(reason: &ApiError) -> Failure {
    let error = format!(
        "the server has been away for {} s: {reason}",
        SERVER_AWAY_TIMEOUT.as_secs()
    );
    Failure::new(Exit::Unknown, error).help(
        "the deployment continues without this command; `greenlight deploy` with the same release \
         attaches to it",
    )
}

/// The outcome that makes the command a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Promoted,
    Back,
}

async fn conclude(
    api: &ApiClient,
    deployment: &DeploymentId,
    goal: Goal,
    output: Output,
) -> Result<Exit, Failure> {
    let document = receipt_in_the_end(api, deployment).await?;
    let receipt = Receipt::deserialize(&document).map_err(ApiError::Unreadable)?;
    let exit = match (&receipt.outcome, goal) {
        (Some(Outcome::Promoted), Goal::Promoted)
        | (Some(Outcome::Aborted { .. } | Outcome::RolledBack { .. }), Goal::Back) => Exit::Done,
        (Some(Outcome::Aborted { .. } | Outcome::RolledBack { .. }), Goal::Promoted)
        | (Some(Outcome::Promoted), Goal::Back) => Exit::Failed,
        (Some(Outcome::Stuck { .. }) | None, _) => Exit::Unknown,
    };
    if let Some(job) = Job::current() {
        job.report(&receipt, exit);
    }
    show_receipt(&document, output)?;
    Ok(exit)
}

/// The receipt's document, also if the server is started again just now.
async fn receipt_in_the_end(api: &ApiClient, deployment: &DeploymentId) -> Result<Value, Failure> {
    let began = Instant::now();
    loop {
        match receipt(api, deployment).await {
            Err(ApiError::Unreachable(error)) if began.elapsed() > SERVER_AWAY_TIMEOUT => {
                return Err(gave_up(&error.into()));
            }
            Err(ApiError::Unreachable(_)) => tokio::time::sleep(PAUSE).await,
            other => return Ok(other?),
        }
    }
}

async fn receipt<R: DeserializeOwned>(
    api: &ApiClient,
    deployment: &DeploymentId,
) -> Result<R, ApiError> {
    api.get(&format!("/v1/deployments/{deployment}")).await
}
