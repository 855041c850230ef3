//! A command of a release that is run once, in a container of its own: database migrations.
//!
//! The container's name says which deployment it belongs to, and Docker lets a name exist once.
//! That is what "once" rests on: an agent that restarts finds the container, running or ended,
//! and waits for its end instead of starting another. It goes with the slot that it was run for.

use super::{DockerRuntime, container, daemon_error};
use crate::runtime::docker::tail;
use crate::runtime::{Container, Launch, RuntimeError};
use greenlight_release::spec::Artifact;
use std::time::Duration;

/// Lines of output that are shown.
const LINES_SHOWN: usize = 100;
/// How long a command that is over time has between SIGTERM and SIGKILL.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

impl DockerRuntime {
    pub(super) async fn run_job_container(
        &self,
        launch: Launch,
        name: &str,
        within: Duration,
    ) -> Result<Vec<String>, RuntimeError> {
        let doing = "running `before_switch`";
        let Artifact::Image(spec) = &launch.artifact else {
            return Err(RuntimeError::Unsuited(launch.slot));
        };
        let Some(command) = &spec.before_switch else {
            return Ok(Vec::new());
        };
        let failed = |reason: String| RuntimeError::Docker {
            doing: doing.to_owned(),
            reason,
        };
        let daemon = &self.inner.daemon;
        let plan = container::for_job(&launch, spec, &self.inner.mark, name, command);
        if daemon.inspect(&plan.name).await?.is_none() {
            self.create(&plan, spec).await?;
        }
        let inspected = daemon.inspect(&plan.name).await?;
        let state = inspected.as_ref().and_then(|found| found.state.as_ref());
        // It was created and never started if its start is at the beginning of time.
        let never = state.and_then(|state| state.started_at.as_deref());
        if never.is_none_or(|started| started.starts_with("0001-"))
            && let Err(error) = daemon.start(&plan.name).await
            && !daemon_error::is_missing(&error)
        {
            return Err(daemon.explain(doing, &error));
        }
        let inspected = daemon.inspect(&plan.name).await?;
        let inspected = inspected.ok_or_else(|| failed("its container was removed".to_owned()))?;
        let state = inspected.state.as_ref();
        let container = Container {
            id: inspected.id.clone().unwrap_or_default(),
            started_at: state
                .and_then(|state| state.started_at.clone())
                .unwrap_or_default(),
        };
        let id = container.id.clone();
        let Ok(end) = tokio::time::timeout(within, self.ended(container)).await else {
            self.stop_container(&id, STOP_TIMEOUT).await?;
            let lines = tail::lines(daemon, &id, LINES_SHOWN).await;
            let reason = format!("it did not end within {} s", within.as_secs());
            return Err(failed(with_output(&reason, &lines)));
        };
        let lines = tail::lines(daemon, &id, LINES_SHOWN).await;
        let inspected = daemon.inspect(&id).await?;
        let code = inspected.and_then(|found| found.state?.exit_code);
        match code {
            Some(0) => Ok(lines),
            Some(_) | None => Err(failed(with_output(&end, &lines))),
        }
    }
}

fn with_output(reason: &str, lines: &[String]) -> String {
    match lines.is_empty() {
        true => format!("{reason}; it wrote nothing"),
        false => format!("{reason}; it wrote: {}", lines.join(" | ")),
    }
}
