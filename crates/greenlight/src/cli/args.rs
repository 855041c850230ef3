//! The arguments of the command line.

mod demo;
mod fleet;
mod roles;
mod values;

pub(super) use demo::Demo;
pub(super) use fleet::{FileArg, FleetArg};
pub(super) use roles::{Agent, Proxy, Server};
pub(super) use values::duration;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use values::at_least_one;

/// Zero-downtime deployment: the whole fleet cuts over together, or not at all.
#[derive(Debug, Parser)]
#[command(name = "greenlight", version, about, max_term_width = 100)]
pub struct Cli {
    /// Print one JSON document on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show the main job on this machine: two instances, load, five deployments, receipts.
    Demo(Demo),
    /// Write a `greenlight.yml` to begin with, or one made of a Compose or Kamal file.
    Init(Init),
    /// Run a whole fleet on this machine for a `greenlight.yml`, until interrupted.
    Up(Up),
    /// Install server, agents and proxies on the machines of a `greenlight.yml`, over `ssh`.
    Setup(super::setup::Setup),
    /// Make a token that lets one machine join the fleet, once.
    Token(super::join::TokenArgs),
    /// Join a fleet with a token: this machine makes its key, the server signs its certificate.
    Join(super::join::JoinArgs),
    /// Let something that is on this machine already pass its users to greenlight.
    #[command(subcommand)]
    Attach(Attach),
    /// Show what a deployment would do, and what prevents it. Changes nothing.
    Plan(PlanArgs),
    /// Bring a release to the whole fleet: prepare it everywhere, then cut over together.
    Deploy(Deploy),
    /// Start a release everywhere and check it; `promote` cuts over.
    Prepare(Deploy),
    /// Cut over to the release that was prepared.
    Promote(Act),
    /// Stop the deployment under way; the fleet ends on the old release.
    Abort(Act),
    /// Cut over to the release before the live one.
    Rollback(Rollback),
    /// Stop serving services that are live; a rollback brings them back.
    Remove(Remove),
    /// Show the state of the fleet.
    Status(Status),
    /// List the latest deployments.
    History(History),
    /// Show the evidence for one deployment.
    Receipt(ReceiptArgs),
    /// Show what the applications wrote.
    Logs(Logs),
    /// Look for what would spoil a deployment, on every instance and across them.
    Doctor(super::doctor::Doctor),
    /// Print the JSON schema of `greenlight.yml`, for editors.
    Schema,
    /// Print the completions for a shell.
    Completions(Completions),
    /// Write the manual pages.
    Man(Man),
    /// Run the coordinator.
    Server(Server),
    /// Run an instance's agent.
    Agent(Agent),
    /// Run the proxy that receives user traffic.
    Proxy(Proxy),
    /// Run the sample application of the demo.
    #[command(hide = true)]
    SampleApp,
}

/// `greenlight init`.
#[derive(Debug, Args)]
#[command(mut_arg("file", |file| file.help("The file to write")))]
pub struct Init {
    /// The file to write.
    #[command(flatten)]
    pub file: FileArg,
    /// The name of the service; that of the folder unless given.
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Make it of the file of another tool, and say what could not be carried over. Of several
    /// services of Compose `--service` chooses one.
    #[arg(long, value_name = "TOOL")]
    pub from: Option<greenlight_config::import::Source>,
    /// The other tool's file, if it is not where that tool looks for it.
    #[arg(long, value_name = "FILE", requires = "from")]
    pub input: Option<PathBuf>,
}

/// `greenlight completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    pub shell: clap_complete::Shell,
}

/// `greenlight man`.
#[derive(Debug, Args)]
pub struct Man {
    /// The folder to write them to.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// `greenlight up`.
#[derive(Debug, Args)]
pub struct Up {
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    /// Keep the fleet's files in this folder; `.greenlight` beside the configuration unless given.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

/// `greenlight attach`.
#[derive(Debug, Subcommand)]
pub enum Attach {
    /// Nginx: write one file that it includes, test it, reload once, and ask through it.
    Nginx(AttachNginx),
}

/// `greenlight attach nginx`.
#[derive(Debug, Args)]
pub struct AttachNginx {
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    /// The instance that this machine is; needed if there are several.
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// The gate's socket; that of `greenlight up` unless given.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Write another file than `proxy.nginx.include`.
    #[arg(long, value_name = "FILE")]
    pub include: Option<PathBuf>,
    /// Another main configuration than `proxy.nginx.conf`.
    #[arg(long, value_name = "FILE")]
    pub nginx_conf: Option<PathBuf>,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Only show what would change.
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
}

/// `greenlight plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    #[command(flatten)]
    pub fleet: FleetArg,
    /// The release's version; the commit that is checked out unless given.
    #[arg(long)]
    pub version: Option<String>,
}

/// `greenlight deploy` and `greenlight prepare`.
#[derive(Debug, Args)]
pub struct Deploy {
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    #[command(flatten)]
    pub fleet: FleetArg,
    /// The release's version; the commit that is checked out unless given.
    #[arg(long)]
    pub version: Option<String>,
    /// Do not wait for the end.
    #[arg(long)]
    pub detach: bool,
}

/// `greenlight promote` and `greenlight abort`.
#[derive(Debug, Args)]
pub struct Act {
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    #[command(flatten)]
    pub fleet: FleetArg,
    /// Do not wait for the end.
    #[arg(long)]
    pub detach: bool,
}

/// `greenlight rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// What every command that acts takes.
    #[command(flatten)]
    pub act: Act,
    /// Only go back if this is the release before the live one.
    #[arg(long, value_name = "VERSION")]
    pub to: Option<String>,
}

/// `greenlight remove`.
#[derive(Debug, Args)]
pub struct Remove {
    /// The services.
    #[arg(required = true, value_name = "SERVICE")]
    pub services: Vec<String>,
    /// What every command that acts takes.
    #[command(flatten)]
    pub act: Act,
}

/// `greenlight status`.
#[derive(Debug, Args)]
pub struct Status {
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    #[command(flatten)]
    pub fleet: FleetArg,
}

/// `greenlight history`.
#[derive(Debug, Args)]
pub struct History {
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    #[command(flatten)]
    pub fleet: FleetArg,
    /// Show at most so many.
    #[arg(long, short = 'n', default_value_t = 20, value_parser = at_least_one())]
    pub limit: usize,
}

/// `greenlight receipt`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ReceiptArgs {
    /// What else to do with a receipt.
    #[command(subcommand)]
    pub verb: Option<ReceiptVerb>,
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    #[command(flatten)]
    pub fleet: FleetArg,
    /// The deployment.
    #[arg(default_value = "latest")]
    pub deployment: String,
}

/// What else to do with a receipt.
#[derive(Debug, Subcommand)]
pub enum ReceiptVerb {
    /// Judge every claim of a receipt again, from its file alone: no server is asked.
    Verify(VerifyArgs),
}

/// `greenlight receipt verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// What `greenlight receipt --json` printed, or the file that the server keeps; `-` reads
    /// standard input.
    #[arg(value_name = "FILE")]
    pub receipt: PathBuf,
    /// The certificate of the fleet's authority, `ca.pem`: a server of that fleet must have signed.
    #[arg(long, value_name = "FILE")]
    pub authority: Option<PathBuf>,
    /// Do not compare the authority: anybody can make one, and sign what they like with it.
    #[arg(long, conflicts_with = "authority")]
    pub any_authority: bool,
}

/// `greenlight logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// The configuration.
    #[command(flatten)]
    pub file: FileArg,
    #[command(flatten)]
    pub fleet: FleetArg,
    /// Only this service.
    pub service: Option<String>,
    /// Only this instance.
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// The last so many lines of each application.
    #[arg(long, short = 'n', default_value_t = 50)]
    pub lines: usize,
}
