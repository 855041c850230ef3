//! Benchmarks against real peers and against physics, run by `make bench`. Not shipped.
//!
//! Each is a subcommand: it prints a table for people, writes a document to `target/bench`, and
//! says which of its bounds are met. Absolute figures mean little on a shared machine; what is
//! judged are ratios of things measured side by side in one run.
//!
//! Under the name `greenlight` this program is the product: the benchmarks start fleets and
//! proxies of the very build they belong to.

mod application;
mod child;
mod compare;
mod cpu_time;
mod hold;
mod machine;
mod memory;
mod proxy;
mod readiness;
mod report;
mod rig;
mod statistics;
mod window;

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What a benchmark leads to, or why it could not run.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A benchmark; returns whether its required bounds are met.
type Run = fn(&Setting) -> Outcome<bool>;

/// The name under which this program is the product.
const PRODUCT: &str = "greenlight";

/// Measure Greenlight.
#[derive(Debug, Parser)]
#[command(name = "greenlight-bench")]
struct Cli {
    #[command(subcommand)]
    benchmark: Benchmark,
    /// Exit with 1 if a required bound is missed.
    #[arg(long, global = true)]
    strict: bool,
    /// Rounds of each measurement; the benchmark's own choice unless given.
    #[arg(long, global = true, value_name = "N")]
    rounds: Option<usize>,
    /// Measure this `greenlight` instead of the build that the benchmarks belong to.
    #[arg(long, global = true, value_name = "FILE")]
    greenlight: Option<PathBuf>,
    /// Where the documents go.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "target/bench"
    )]
    results: PathBuf,
    /// Put the comparison's table and plot into the documentation in this folder.
    #[arg(long, global = true, value_name = "DIR")]
    write_docs: Option<PathBuf>,
}

/// The benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
enum Benchmark {
    /// CPU per request and throughput, against nginx and HAProxy.
    Proxy,
    /// How long requests wait at a cut-over, against round trip and disk write.
    Hold,
    /// Mixed versions over many cut-overs under load, against a flip without a hold.
    Window,
    /// From the new application's first answer to all switched, against polling and reloading.
    Readiness,
    /// The same deployment by recreating, rolling, scripts with blue and green, and Greenlight.
    Compare,
    /// All of them, one after the other.
    All,
}

/// The options of the benchmarks.
struct Setting {
    /// The product: this program under its name, or another build.
    greenlight: PathBuf,
    /// A folder for everything that does not outlast the run.
    scratch: PathBuf,
    /// Where documents go.
    results: PathBuf,
    rounds: Option<usize>,
    /// The documentation that is to show the comparison.
    write_docs: Option<PathBuf>,
}

/// The product's, because this program is the product when it is called so.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let called = std::env::args_os().next().map(PathBuf::from);
    if called.is_some_and(|path| path.file_name().is_some_and(|name| name == PRODUCT)) {
        return greenlight::cli::main();
    }
    let cli = Cli::parse();
    match run(&cli) {
        Ok(false) if cli.strict => ExitCode::from(1),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> Outcome<bool> {
    let scratch = tempfile::tempdir()?;
    let setting = Setting {
        greenlight: match &cli.greenlight {
            Some(other) => other.canonicalize()?,
            None => link_product(scratch.path())?,
        },
        scratch: scratch.path().to_owned(),
        results: cli.results.clone(),
        rounds: cli.rounds,
        write_docs: cli.write_docs.clone(),
    };
    let benchmarks: [(Benchmark, Run); 5] = [
        (Benchmark::Proxy, proxy::run),
        (Benchmark::Hold, hold::run),
        (Benchmark::Window, window::run),
        (Benchmark::Readiness, readiness::run),
        (Benchmark::Compare, compare::run),
    ];
    let mut met = true;
    for (benchmark, run) in benchmarks {
        if cli.benchmark == benchmark || cli.benchmark == Benchmark::All {
            // Each has a thread of its own, because some pin theirs to a core.
            let done = std::thread::scope(|scope| scope.spawn(|| run(&setting)).join());
            met &= done.map_err(|_| "the benchmark panicked")??;
        }
    }
    Ok(met)
}

fn link_product(scratch: &Path) -> Outcome<PathBuf> {
    let link = scratch.join(PRODUCT);
    std::os::unix::fs::symlink(std::env::current_exe()?, &link)?;
    Ok(link)
}
