//! The long-running roles, each as a process runs it: what is opened, started and served, and how
//! it ends.
//!
//! What a role does is its crate's: `greenlight-server`, `greenlight-agent`, `greenlight-proxy`.

mod agent;
mod listen;
mod proxy;
mod server;

pub use agent::{AgentFront, AgentRole, run_agent};
pub use proxy::{ProxyRole, run_proxy};
pub use server::{ServerRole, run_server};

type RoleResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;
