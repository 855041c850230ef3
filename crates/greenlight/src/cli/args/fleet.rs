//! Where a command finds its configuration and its fleet.

use clap::Args;
use std::path::PathBuf;

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct FileArg {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", default_value = greenlight_config::DEFAULT_FILE)]
    pub file: PathBuf,
}

/// Where the fleet is.
#[derive(Debug, Args)]
pub struct FleetArg {
    /// The folder with the fleet's address and credentials; `.greenlight/operator` beside the
    /// configuration unless given.
    #[arg(long, value_name = "DIR", env = "GREENLIGHT_FLEET")]
    pub fleet: Option<PathBuf>,
}
