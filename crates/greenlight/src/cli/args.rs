//! What can be typed.

use clap::{Args, Parser, Subcommand};
use greenlight_proxy::ListenAddr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

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

/// `greenlight demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// How late the control messages of one instance are: a barrier shows its worth only when
    /// something is late.
    #[arg(long, default_value = "20ms", value_parser = duration)]
    pub late: Duration,
    /// Keep the fleet's files in this folder.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// `greenlight server`.
#[derive(Debug, Args)]
pub struct Server {
    /// Its folder.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Where agents and operators connect.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// An instance of the fleet; once for each.
    #[arg(long, value_name = "NAME", required = true)]
    pub instance: Vec<String>,
}

/// `greenlight agent`.
#[derive(Debug, Args)]
pub struct Agent {
    /// Its name.
    #[arg(long)]
    pub name: String,
    /// Its folder.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// The server.
    #[arg(long, value_name = "ADDRESS")]
    pub server: SocketAddr,
    /// Where its peers ask it.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Where its peers answer.
    #[arg(long, value_name = "NAME=ADDRESS", value_delimiter = ',', value_parser = peer)]
    pub peers: Vec<(String, SocketAddr)>,
    /// The proxy's admin socket.
    #[arg(long, value_name = "PATH")]
    pub proxy_admin: PathBuf,
    /// How late its control messages are made, for demonstrations and measurements.
    #[arg(long, default_value = "0ms", value_parser = duration, hide = true)]
    pub late: Duration,
}

/// `greenlight proxy`.
#[derive(Debug, Args)]
pub struct Proxy {
    /// Where users come in: `address:port` or `unix:/path`; once for each.
    #[arg(long, value_name = "ADDRESS", required = true)]
    pub listen: Vec<ListenAddr>,
    /// The admin socket.
    #[arg(long, value_name = "PATH")]
    pub admin: PathBuf,
    /// The file that keeps the routing.
    #[arg(long, value_name = "FILE")]
    pub state: PathBuf,
    /// A separate address for status, metrics and health.
    #[arg(long, value_name = "ADDRESS")]
    pub status: Option<SocketAddr>,
    /// Threads that serve users; one for each core unless given.
    #[arg(long)]
    pub threads: Option<usize>,
}

fn peer(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text.split_once('=').ok_or("it is not `NAME=ADDRESS`")?;
    let address = address
        .parse()
        .map_err(|_| format!("`{address}` is not an address"))?;
    Ok((name.to_owned(), address))
}

fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number
        .parse()
        .map_err(|_| "it does not begin with a number".to_owned())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_mins(number)),
        "h" => Ok(Duration::from_hours(number)),
        _ => Err(format!("`{unit}` is not a unit; use ms, s, m or h")),
    }
}
