//! What `doctor` asks of server and agents, and what they report.
//!
//! Deliberately absent: the examination of a machine, and conclusions about a whole fleet.

use greenlight_protocol::{InstanceId, ServiceName};
use greenlight_release::front::FrontKind;
use greenlight_release::nginx::ForwardHeaders;
use greenlight_release::ports::RequestedPorts;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `POST /v1/doctor`: by instance, what the file wants; empty without a file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DoctorRequest {
    pub expected: BTreeMap<InstanceId, Expected>,
}

/// The answer: what the server saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FleetReport {
    /// The server's version.
    pub version: String,
    /// The server's clock when it was asked, in milliseconds since 1970.
    pub received_ms: u64,
    /// Its clock when it answered.
    pub answered_ms: u64,
    /// Every instance that the server knows.
    pub instances: BTreeMap<InstanceId, InstanceReport>,
}

/// One instance as the server saw it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceReport {
    /// Its agent is not connected.
    Away,
    /// Its agent is connected and gave no answer.
    Silent,
    Answered {
        /// The server's clock when it asked, in milliseconds since 1970.
        asked_ms: u64,
        /// The server's clock when the answer came.
        heard_ms: u64,
        report: Box<MachineReport>,
    },
}

/// What the file wants of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// What receives user traffic.
    pub front: FrontKind,
    /// The public port.
    pub port: u16,
    /// What is deployed there.
    pub services: BTreeMap<ServiceName, ExpectedService>,
    /// The Nginx, if that is the front.
    pub nginx: Option<ExpectedNginx>,
}

/// One service there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedService {
    /// What the file says of the ports of its slots.
    pub ports: RequestedPorts,
    /// The image, if it runs in containers.
    pub image: Option<String>,
    /// The most memory one copy may use, in bytes.
    pub memory: Option<u64>,
}

/// The Nginx there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedNginx {
    pub binary: PathBuf,
    /// Its main configuration.
    pub conf: PathBuf,
    /// The file with its master's number.
    pub pid: PathBuf,
    /// Our file, which it includes.
    pub include: PathBuf,
    /// Where its workers say what they serve.
    pub verify_port: u16,
    /// Whether a load balancer is in front of it.
    pub forward_headers: ForwardHeaders,
}

impl Expected {
    /// Whether anything runs in containers.
    pub fn has_images(&self) -> bool {
        self.services.values().any(|s| s.image.is_some())
    }
}

/// What was found on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineReport {
    /// The version that examined it.
    pub version: String,
    /// The version of the proxy, if it reports one.
    pub proxy: Option<String>,
    /// The version of Docker, if it was asked and answered.
    pub docker: Option<String>,
    /// The machine's architecture.
    pub architecture: String,
    /// Its clock when the question came, in milliseconds since 1970.
    pub received_ms: u64,
    /// Its clock when the answer left.
    pub answered_ms: u64,
    pub findings: Vec<Finding>,
}

/// How bad a finding is; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A deployment may fail, or users may be hurt.
    Problem,
    /// Worth knowing.
    Note,
    /// Nothing to do.
    Ok,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Where; the whole fleet if none.
    pub instance: Option<InstanceId>,
    pub check: String,
    /// How bad it is.
    pub level: Level,
    /// The fact.
    pub found: String,
    /// What to do.
    pub todo: Option<String>,
}

impl Finding {
    /// Nothing to do about it.
    pub fn ok(check: &str, found: impl Into<String>) -> Self {
        Self::new(check, Level::Ok, found.into(), None)
    }

    /// Worth knowing, with what to do.
    pub fn note(check: &str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self::new(check, Level::Note, found.into(), Some(todo.into()))
    }

    /// It may make a deployment fail, with what to do.
    pub fn problem(check: &str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self::new(check, Level::Problem, found.into(), Some(todo.into()))
    }

    fn new(check: &str, level: Level, found: String, todo: Option<String>) -> Self {
        Self {
            instance: None,
            check: check.to_owned(),
            level,
            found,
            todo,
        }
    }
}
