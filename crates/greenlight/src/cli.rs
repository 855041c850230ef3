//! The command line: parse, ask or run, print, and say by the exit code how it went.

mod actions;
mod args;
mod attach;
mod deploy;
mod doctor;
#[cfg(test)]
mod example;
mod failure;
mod fleet;
mod generate;
mod init;
mod interrupt;
mod join;
mod plan;
pub mod progress;
mod releases;
mod setup;
mod show;
mod up;
mod verify;

pub use args::{Cli, Verb};
pub use failure::Failure;

use crate::demo::{self, Barrier, DemoOptions};
use crate::roles::{run_agent, run_proxy, run_server};
use actions::Job;
use clap::Parser as _;
use interrupt::until_told_to_end;
use progress::Display;
use serde::Serialize;
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How a command ended, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done as asked; for a deployment: promoted.
    Done,
    /// Failed, with the old release serving.
    Failed,
    /// The command or its configuration makes no sense.
    Usage,
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
            Exit::Usage => 2,
            Exit::Refused => 3,
            Exit::Unknown => 4,
        })
    }
}

/// What a command prints on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Text for people.
    Text,
    /// One JSON document.
    Json,
}

/// Prints a document on standard output.
pub fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document).expect("plain data serialises");
    print(&format!("{text}\n"))
}

/// Prints on standard output. A reader that has closed it is no error; but a reader
/// must not take half a document for a whole one.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout();
    let printed = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match printed {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let error = format!("standard output cannot be written: {error}");
            Err(Failure::new(Exit::Unknown, error)
                .help("what the command had to do is done; `greenlight status` shows the fleet"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return answer_unparsed(&error),
    };
    let output = match cli.json {
        true => Output::Json,
        false => Output::Text,
    };
    // A role writes its log to standard error; a command writes its messages there.
    let long_running = matches!(
        cli.verb,
        Verb::Server(_) | Verb::Agent(_) | Verb::Proxy(_) | Verb::SampleApp
    );
    let default = match long_running {
        true => Level::INFO,
        false => Level::WARN,
    };
    let levels = std::env::var("GREENLIGHT_LOG").ok();
    let wanted = levels.map(|levels| levels.parse::<Targets>());
    let (wanted, unusable) = match wanted {
        Some(Ok(wanted)) => (Some(wanted), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    let talk = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(talk)
        .with(wanted.unwrap_or_else(|| Targets::new().with_default(default)))
        .init();
    if let Some(error) = unusable {
        tracing::warn!(%error, "`GREENLIGHT_LOG` is not used; write it as `info,greenlight_link=debug`");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => {
            let done = runtime.block_on(run(cli.verb, output));
            // Tasks that never end must not keep the process alive.
            runtime.shutdown_background();
            done
        }
        Err(error) => Err(Failure::new(Exit::Failed, error)),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.show(output);
            // What a command started is not what the job is about.
            if let Some(job) = Job::current().filter(|_| !long_running) {
                job.report_failure(&failure);
            }
            failure.exit().into()
        }
    }
}

/// Prints why the arguments are wrong, or the help or version that they ask for.
fn answer_unparsed(error: &clap::Error) -> ExitCode {
    // A reader that has closed standard error is no error.
    let _ = error.print();
    let json = std::env::args_os().any(|argument| argument == "--json");
    if error.use_stderr() && json {
        Failure::from(error).print_json();
    }
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

async fn run(verb: Verb, output: Output) -> Result<Exit, Failure> {
    match verb {
        Verb::Init(args) => init::init(&args, output),
        Verb::Schema => generate::schema(),
        Verb::Completions(args) => generate::completions(&args),
        Verb::Man(args) => generate::man(&args),
        Verb::Up(args) => up::up(&args, output).await,
        Verb::Setup(args) => setup::setup(&args, output).await,
        Verb::Token(args) => join::token(&args, output).await,
        Verb::Join(args) => join::join(&args, output).await,
        Verb::Attach(args::Attach::Nginx(args)) => attach::nginx(&args, output).await,
        Verb::Plan(args) => plan::plan(&args, output).await,
        Verb::Deploy(args) => until_told_to_end(deploy::deploy(&args, output)).await,
        Verb::Prepare(args) => until_told_to_end(deploy::prepare(&args, output)).await,
        Verb::Promote(args) => until_told_to_end(deploy::promote(&args, output)).await,
        Verb::Abort(args) => until_told_to_end(deploy::abort(&args, output)).await,
        Verb::Rollback(args) => until_told_to_end(deploy::rollback(&args, output)).await,
        Verb::Remove(args) => until_told_to_end(deploy::remove(&args, output)).await,
        Verb::Status(args) => show::status(&args, output).await,
        Verb::History(args) => show::history(&args, output).await,
        Verb::Receipt(args) => show::receipt(&args, output).await,
        Verb::Logs(args) => show::logs(&args, output).await,
        Verb::Doctor(args) => doctor::doctor(&args, output).await,
        Verb::Demo(demo) => run_demo(&demo, output).await,
        Verb::SampleApp => finish(crate::sample::run().await),
        Verb::Server(server) => finish(run_server(server.role()?).await),
        Verb::Agent(agent) => finish(run_agent(agent.into()).await),
        Verb::Proxy(proxy) => finish(run_proxy(proxy.into()).await),
    }
}

async fn run_demo(demo: &args::Demo, output: Output) -> Result<Exit, Failure> {
    let options = DemoOptions {
        injected_delay: demo.injected_delay,
        front: demo.front,
        runtime: demo.runtime,
        barrier: match demo.without_barrier {
            true => Barrier::None,
            false => Barrier::Fleet,
        },
        keep: demo.keep.clone(),
    };
    let report = demo::run(&options, Box::new(Display::talkative())).await;
    let report = report.map_err(|error| Failure::new(Exit::Failed, error))?;
    match output {
        Output::Json => print_json(&report)?,
        Output::Text => print(&format!("\n{}\n", report.render()))?,
    }
    Ok(match report.held_up {
        true => Exit::Done,
        false => Exit::Failed,
    })
}

fn finish<E: std::fmt::Display>(result: Result<(), E>) -> Result<Exit, Failure> {
    result.map_err(|error| Failure::new(Exit::Failed, error))?;
    Ok(Exit::Done)
}
