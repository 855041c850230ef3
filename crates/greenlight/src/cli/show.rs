//! The commands that only look: `status`, `history`, `receipt`, `logs`.

use super::args::{History as HistoryArgs, Logs, ReceiptArgs, ReceiptVerb, Status};
use super::fleet::connect;
use super::verify::verify_receipt;
use super::{Exit, Failure, Output, print, print_json};
use greenlight_link::ApiError;
use greenlight_link::api::{FleetStatus, History, LogsAnswer};
use greenlight_link::printable::one_line;
use greenlight_link::receipt::Receipt;
use greenlight_protocol::message::Healthy;
use greenlight_protocol::{Alignment, Color, InstanceStatus, ParticipationView, ServiceName};
use greenlight_shell::clock::utc;
use serde::Deserialize as _;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// `greenlight status`.
pub(super) async fn status(args: &Status, output: Output) -> Result<Exit, Failure> {
    let status: FleetStatus = connect(&args.fleet, &args.file)?.get("/v1/status").await?;
    match output {
        Output::Json => print_json(&status)?,
        Output::Text => print(&render_status(&status))?,
    }
    Ok(Exit::Done)
}

/// `greenlight history`.
pub(super) async fn history(args: &HistoryArgs, output: Output) -> Result<Exit, Failure> {
    let api = connect(&args.fleet, &args.file)?;
    let mut history: History = api.get("/v1/deployments").await?;
    let surplus = history.deployments.len().saturating_sub(args.limit);
    history.deployments.drain(..surplus);
    match output {
        Output::Json => print_json(&history)?,
        Output::Text => print(&render_history(&history))?,
    }
    Ok(Exit::Done)
}

/// `greenlight receipt`.
pub(super) async fn receipt(args: &ReceiptArgs, output: Output) -> Result<Exit, Failure> {
    if let Some(ReceiptVerb::Verify(args)) = &args.verb {
        return verify_receipt(args, output);
    }
    let api = connect(&args.fleet, &args.file)?;
    let path = format!("/v1/deployments/{}", args.deployment);
    let document: Value = api.get(&path).await?;
    show_receipt(&document, output)?;
    Ok(Exit::Done)
}

/// Shows a receipt's document. As JSON it is printed as the server wrote it: its seal is over every
/// part, also over those that this version does not know.
pub(super) fn show_receipt(document: &Value, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => print_json(document),
        Output::Text => {
            let receipt = Receipt::deserialize(document).map_err(ApiError::Unreadable)?;
            print(&receipt.render())
        }
    }
}

/// `greenlight logs`.
pub(super) async fn logs(args: &Logs, output: Output) -> Result<Exit, Failure> {
    let api = connect(&args.fleet, &args.file)?;
    let mut path = format!("/v1/logs?lines={}", args.lines);
    if let Some(instance) = &args.instance {
        write!(path, "&instance={instance}").expect("a string takes all");
    }
    if let Some(service) = &args.service {
        write!(path, "&service={service}").expect("a string takes all");
    }
    let answer: LogsAnswer = api.get(&path).await?;
    match output {
        Output::Json => print_json(&answer)?,
        Output::Text => print(&render_logs(&answer))?,
    }
    Ok(Exit::Done)
}

fn render_status(status: &FleetStatus) -> String {
    let mut text = String::new();
    for (service, version) in &status.live {
        line(&mut text, &format!("{service} serves {version} everywhere"));
    }
    if status.live.is_empty() {
        let nothing = match status.epoch {
            0 => "nothing has been deployed yet",
            _ => "nothing is live",
        };
        line(&mut text, nothing);
    }
    if status.warm {
        line(&mut text, "the earlier release is kept warm for a rollback");
    }
    if status.retiring {
        line(&mut text, "an earlier release is being stopped");
    }
    line(&mut text, "");
    for (name, instance) in &status.instances {
        match instance {
            None => line(&mut text, &format!("  {name:<16} not connected")),
            Some(instance) => line(&mut text, &format!("  {name:<16} {}", stand(instance))),
        }
    }
    if let Some(deployment) = &status.deployment {
        let changes = changes(&deployment.releases, &deployment.removed);
        let head = format!(
            "deploying {} ({}): {}, asked by {} at {}",
            changes,
            deployment.deployment,
            deployment.phase,
            deployment.requested_by,
            utc(deployment.since_ms)
        );
        line(&mut text, "");
        line(&mut text, &head);
        let waiting: Vec<_> = deployment
            .waiting_for
            .iter()
            .map(|i| i.0.as_str())
            .collect();
        if !waiting.is_empty() {
            line(&mut text, &format!("  waiting for {}", waiting.join(", ")));
        }
    }
    text
}

fn stand(instance: &InstanceStatus) -> String {
    let live = instance.live.iter().map(|(service, live)| {
        let color = match live.color {
            Color::Blue => "blue",
            Color::Green => "green",
        };
        let health = match live.healthy {
            Healthy::Yes => "healthy",
            Healthy::No => "NOT HEALTHY",
        };
        format!("{service} {} ({color}, {health})", live.version)
    });
    let mut parts: Vec<_> = live.collect();
    match instance.participation {
        ParticipationView::Idle => {}
        ParticipationView::Preparing(epoch) => parts.push(format!("preparing cut-over {epoch}")),
        ParticipationView::Prepared(epoch) => parts.push(format!("prepared for cut-over {epoch}")),
        ParticipationView::Armed(epoch) => parts.push(format!("armed for cut-over {epoch}")),
    }
    if parts.is_empty() {
        parts.push("connected, nothing live".to_owned());
    }
    match instance.alignment {
        Alignment::Gated => {}
        Alignment::Aligned => parts.push("aligned, not gated: G1 does not apply".to_owned()),
    }
    parts.join("; ")
}

/// A short description of what a deployment changes.
fn changes(releases: &BTreeMap<ServiceName, String>, removed: &BTreeSet<ServiceName>) -> String {
    let releases = releases.iter().map(|(s, v)| format!("{s} {v}"));
    let removed = removed.iter().map(|s| format!("{s} removed"));
    releases.chain(removed).collect::<Vec<_>>().join(", ")
}

fn render_history(history: &History) -> String {
    if history.deployments.is_empty() {
        return "nothing has been deployed yet\n".to_owned();
    }
    let mut text = String::new();
    for receipt in history.deployments.iter().rev() {
        let changes = changes(&receipt.releases, &receipt.removed);
        let outcome = match &receipt.outcome {
            Some(outcome) => outcome.to_string(),
            None => "under way".to_owned(),
        };
        let row = format!(
            "{}  {}  {:<24} {} (by {})",
            utc(receipt.started_ms),
            receipt.deployment,
            changes,
            outcome.lines().next().unwrap_or_default(),
            receipt.requested_by
        );
        line(&mut text, &row);
    }
    text
}

fn render_logs(answer: &LogsAnswer) -> String {
    let mut text = String::new();
    for (instance, slots) in &answer.instances {
        let Some(slots) = slots else {
            line(&mut text, &format!("{instance}: not connected"));
            continue;
        };
        for log in slots {
            if log.left_out {
                let slot = format!("{instance} {}/{}", log.service, log.color);
                line(
                    &mut text,
                    &format!("{slot} | (earlier lines are left out: an answer is bounded)"),
                );
            }
            for written in &log.lines {
                let prefix = format!("{instance} {}/{}", log.service, log.color);
                line(&mut text, &format!("{prefix} | {written}"));
            }
        }
    }
    text
}

/// What others wrote must not look like another line, or move the cursor.
fn line(text: &mut String, add: &str) {
    let add = one_line(add.trim_end());
    writeln!(text, "{add}").expect("a string takes all");
}
