//! What the commands so far mean for one service: its fence, its deadline, whether it is parked.
//!
//! Each service has its own, so that an undecided cut-over of one keeps no other one waiting.
//! What the gate does with requests is not here: that is its route.

use crate::admin::OnUncertain;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// By service.
pub(crate) type ServiceControls = BTreeMap<String, ServiceControl>;

/// What the commands so far mean for one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceControl {
    /// The highest epoch that was obeyed: older ones are fenced, also after a restart.
    pub(crate) epoch: u64,
    /// The highest epoch that was opened: a hold of it is late.
    pub(crate) opened: u64,
    /// Whether its requests wait until it is opened, without a deadline.
    pub(crate) parked: bool,
    /// The deadline in milliseconds of the hold that is on, and what happens then.
    pub(crate) deadline: Option<(u64, OnUncertain)>,
    /// Which hold, opening or expiry was the last. What an earlier one still waits for does
    /// nothing any more; after a restart nothing waits.
    #[serde(skip)]
    pub(crate) generation: u64,
}
