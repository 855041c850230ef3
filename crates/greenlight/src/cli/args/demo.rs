//! The arguments of the demo.

use super::values::lateness;
use clap::Args;
use greenlight_release::front::FrontKind;
use greenlight_release::runtime::RuntimeKind;
use std::path::PathBuf;
use std::time::Duration;

/// `greenlight demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// How late the control messages of one instance are: a barrier shows its worth only when
    /// something is late. At most 1m.
    #[arg(long = "inject-delay", default_value = "20ms", value_parser = lateness)]
    pub injected_delay: Duration,
    /// What receives user traffic; the Nginx fronts start an Nginx of their own for each instance.
    #[arg(long, value_enum, default_value_t)]
    pub front: FrontKind,
    /// What runs the application; `docker` packs this program into an image of its own, and leaves
    /// neither image nor container behind.
    #[arg(long, value_enum, default_value_t)]
    pub runtime: RuntimeKind,
    /// Switch each instance on its own, as scripts do, and show what that leaves.
    #[arg(long)]
    pub without_barrier: bool,
    /// Keep the fleet's files in this folder.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}
