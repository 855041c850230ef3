//! What the orders so far mean for one service: its fence, its deadline, whether it is parked.
//!
//! Each service has its own, so that an undecided cut-over of one keeps no other one waiting.
//! What the gate does with requests is not here: that is its route.

use super::OnUncertain;
use super::answer::{Answer, conflict};
use super::server::Admin;
use crate::route_table::Service;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// By service.
pub(crate) type Standings = BTreeMap<String, Standing>;

/// What the orders so far mean for one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// The highest epoch that was obeyed: older ones are fenced, also after a restart.
    pub(crate) epoch: u64,
    /// The highest epoch that was opened: a hold of it is late.
    pub(crate) opened: u64,
    /// Whether only opening lets its requests go, and no deadline.
    pub(crate) parked: bool,
    /// The deadline in milliseconds of the hold that is on, and what happens then.
    pub(crate) deadline: Option<(u64, OnUncertain)>,
    /// Which hold, opening or expiry was the last. What an earlier one still waits for does
    /// nothing any more; after a restart nothing waits.
    #[serde(skip)]
    pub(crate) turn: u64,
}

impl Admin {
    /// Refuses an order as a whole if it is too old for any of its services.
    pub(super) fn fence(&self, services: &[Arc<Service>], epoch: u64) -> Answer<()> {
        for service in services {
            let name = &service.name;
            let last = self.standing(name).epoch;
            if epoch < last {
                let error = format!("cut-over {epoch} of `{name}` is older than {last}");
                return Err(conflict(error));
            }
        }
        Ok(())
    }

    /// The same for holds, which are late once their cut-over was opened.
    pub(super) fn fence_hold(&self, services: &[Arc<Service>], epoch: u64) -> Answer<()> {
        self.fence(services, epoch)?;
        for service in services {
            let name = &service.name;
            if epoch <= self.standing(name).opened {
                let error = format!("cut-over {epoch} of `{name}` was opened already");
                return Err(conflict(error));
            }
        }
        Ok(())
    }

    pub(super) fn standing(&self, name: &str) -> Standing {
        let standings = self.standings.borrow();
        standings.get(name).cloned().unwrap_or_default()
    }

    pub(super) fn change_standing(
        &self,
        services: &[Arc<Service>],
        change: impl Fn(&mut Standing),
    ) {
        let mut standings = self.standings.borrow_mut();
        for service in services {
            // One that was removed has no standing any more.
            if let Some(standing) = standings.get_mut(&service.name) {
                change(standing);
            }
        }
    }

    /// Starts a turn of these services, which ends what their earlier ones still waited for.
    pub(super) fn next_turn(&self, services: &[Arc<Service>]) -> u64 {
        let turn = *self.turn.borrow() + 1;
        self.change_standing(services, |standing| standing.turn = turn);
        self.turn.send_replace(turn);
        turn
    }

    pub(super) fn is_turn_of(&self, service: &Service, turn: u64) -> bool {
        self.standing(&service.name).turn == turn
    }

    /// The highest epoch that any service has obeyed.
    pub(super) fn epoch(&self) -> u64 {
        let standings = self.standings.borrow();
        standings.values().map(|s| s.epoch).max().unwrap_or(0)
    }
}
