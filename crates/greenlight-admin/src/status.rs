//! The present state of a proxy and of its services.

use crate::service_settings::ServiceSettings;
use greenlight_gate::{Color, InFlight};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusAnswer {
    pub pid: u32,
    /// Its version; empty if it does not say.
    #[serde(default)]
    pub version: String,
    /// When it started, in nanoseconds on the monotonic clock. Distinguishes one process from the
    /// next also where each has the same number, as in a container.
    pub started_at_ns: u64,
    /// Earlier processes that drain: they have handed over and still have connections.
    pub draining: usize,
    /// Descriptors that it may have open at once; `None` if it does not say, or has no bound.
    #[serde(default)]
    pub max_descriptors: Option<u64>,
    /// Where users come in.
    pub listening: Vec<String>,
    /// The highest epoch obeyed for any service.
    pub epoch: u64,
    pub services: BTreeMap<String, ServiceStatus>,
}

/// The present state of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// How it is routed.
    pub settings: ServiceSettings,
    /// `open`, `held`, `shed` or `closed`.
    pub state: String,
    /// The color that is served, or was until now.
    pub color: Option<Color>,
    /// The highest epoch obeyed; commands of older ones are refused.
    pub epoch: u64,
    /// The highest epoch opened; a hold of it is late and refused.
    pub opened: u64,
    /// Whether its requests wait until it is opened.
    pub parked: bool,
    /// The deadline of the hold that is on, in milliseconds from when that began.
    pub max_hold_ms: Option<u64>,
    pub blue: InFlight,
    pub green: InFlight,
    /// Requests ever admitted to blue.
    pub admitted_blue: u64,
    /// Requests ever admitted to green.
    pub admitted_green: u64,
}
