//! Which service a request is for, and what is known of that service.
//!
//! Deliberately absent: what becomes of the request. That is the gate's and [`crate::forward`]'s.

mod route_table;
mod service;

pub(crate) use route_table::{RouteTable, SharedTable};
pub use service::SettingsError;
pub(crate) use service::{Service, WaitingPermit, check};
