//! The command line: parse, ask or run, print, and say by the exit code how it went.

mod args;

pub use args::{Cli, Verb};

use crate::api::Happening;
use crate::demo::{self, DemoOptions};
use crate::fleet::{AgentRole, ProxyRole, ServerRole, run_agent, run_proxy, run_server};
use clap::Parser as _;
use greenlight_protocol::{InstanceId, Outcome};
use std::process::ExitCode;

/// How a command ended, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done as asked; for a deployment: promoted.
    Done,
    /// Failed, with the old release serving.
    Failed,
    /// Refused, because something else is under way or missing.
    Refused,
    /// The outcome is not known.
    Unknown,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Refused => 3,
            Exit::Unknown => 4,
        })
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("GREENLIGHT_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let talk = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    talk.init();
    let exit = match cli.verb {
        Verb::Proxy(proxy) => finish(run_proxy(ProxyRole {
            listen: proxy.listen,
            admin: proxy.admin,
            state: proxy.state,
            status: proxy.status,
            threads: proxy.threads,
        })),
        verb @ (Verb::Demo(_) | Verb::Server(_) | Verb::Agent(_) | Verb::SampleApp) => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build();
            match runtime {
                Ok(runtime) => {
                    let exit = runtime.block_on(run(verb, cli.json));
                    // Tasks that never end must not keep the process.
                    runtime.shutdown_background();
                    exit
                }
                Err(error) => finish(Err(error)),
            }
        }
    };
    exit.into()
}

async fn run(verb: Verb, json: bool) -> Exit {
    match verb {
        Verb::Demo(demo) => run_demo(&demo, json).await,
        Verb::SampleApp => finish(crate::sample::run().await),
        Verb::Server(server) => finish(
            run_server(ServerRole {
                state: server.state,
                listen: server.listen,
                instances: server.instance.into_iter().map(InstanceId).collect(),
            })
            .await,
        ),
        Verb::Agent(agent) => finish(
            run_agent(AgentRole {
                name: InstanceId(agent.name),
                state: agent.state,
                server: agent.server,
                listen: agent.listen,
                peers: agent
                    .peers
                    .into_iter()
                    .map(|p| (InstanceId(p.0), p.1))
                    .collect(),
                proxy_admin: agent.proxy_admin,
                late: agent.late,
            })
            .await,
        ),
        Verb::Proxy(_) => Exit::Refused,
    }
}

async fn run_demo(demo: &args::Demo, json: bool) -> Exit {
    let options = DemoOptions {
        late: demo.late,
        keep: demo.keep.clone(),
    };
    match demo::run(options, |line| eprintln!("{line}")).await {
        Ok(report) => {
            if json {
                let text = serde_json::to_string_pretty(&report).expect("plain data serialises");
                println!("{text}");
            } else {
                println!("\n{}", report.render());
            }
            if report.held_up {
                Exit::Done
            } else {
                Exit::Failed
            }
        }
        Err(error) => finish(Err(error)),
    }
}

fn finish<E: std::fmt::Display>(result: Result<(), E>) -> Exit {
    match result {
        Ok(()) => Exit::Done,
        Err(error) => {
            eprintln!("error: {error}");
            Exit::Failed
        }
    }
}

/// One line of progress for people.
pub fn line(what: &Happening) -> String {
    match what {
        Happening::Phase { epoch, phase } => format!("cut-over {epoch}: {phase}"),
        Happening::Instance {
            instance,
            report,
            reason: None,
        } => format!("  {instance}: {report}"),
        Happening::Instance {
            instance,
            report,
            reason: Some(reason),
        } => format!("  {instance}: {report}: {reason}"),
        Happening::Finished { outcome } => match outcome {
            Outcome::Promoted => "promoted".to_owned(),
            Outcome::Aborted { .. } | Outcome::RolledBack { .. } | Outcome::Stuck { .. } => {
                outcome.to_string()
            }
        },
    }
}
