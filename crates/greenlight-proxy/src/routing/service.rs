//! One service: its hosts, its path, where its two releases listen, and its gate.

use crate::address::{Address, AddressError};
use crate::gate::{Color, Gate};
use greenlight_admin::ServiceSettings;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// What is wrong with a service's settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Its paths do not begin where paths do.
    #[error("`path_prefix` is `{0}`; it must begin with `/`")]
    PathPrefix(String),
    /// Where a release listens is no address.
    #[error(transparent)]
    Address(#[from] AddressError),
}

/// Says what is wrong with settings.
pub(crate) fn check(settings: &ServiceSettings) -> Result<(), SettingsError> {
    if !settings.path_prefix.starts_with('/') {
        return Err(SettingsError::PathPrefix(settings.path_prefix.clone()));
    }
    settings.blue.parse::<Address>()?;
    settings.green.parse::<Address>()?;
    Ok(())
}

/// One service: its settings as parsed, and its gate, which outlives changes of the settings.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) settings: ServiceSettings,
    pub(crate) gate: Arc<Gate>,
    blue: Address,
    green: Address,
    /// Requests that wait for an application that is away, on all threads.
    waiting: AtomicUsize,
}

/// The permit of a request that waits for a service's application. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct WaitingPermit(Arc<Service>);

impl Drop for WaitingPermit {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

impl Service {
    pub(crate) fn new(
        name: String,
        settings: ServiceSettings,
        gate: Arc<Gate>,
    ) -> Result<Self, SettingsError> {
        check(&settings)?;
        Ok(Self {
            name,
            blue: settings.blue.parse()?,
            green: settings.green.parse()?,
            settings,
            gate,
            waiting: AtomicUsize::new(0),
        })
    }

    pub(crate) fn upstream(&self, color: Color) -> &Address {
        match color {
            Color::Blue => &self.blue,
            Color::Green => &self.green,
        }
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.settings.request_timeout_ms)
    }

    /// A permit to wait for the application; `None` if `most` are taken.
    pub(crate) fn waiting_permit(self: &Arc<Self>, most: usize) -> Option<WaitingPermit> {
        let permit = WaitingPermit(self.clone());
        (self.waiting.fetch_add(1, SeqCst) < most).then_some(permit)
    }

    /// How well a request fits: hosts beat no hosts, exact beats wildcard, longer prefixes beat
    /// shorter ones. `None` if it does not fit.
    pub(super) fn fits(&self, host: &str, path: &str) -> Option<(u8, usize)> {
        let host_rank = self.host_rank(host)?;
        let prefix = self.settings.path_prefix.trim_end_matches('/');
        let rest = path.strip_prefix(prefix)?;
        let whole_segment = prefix.is_empty() || rest.is_empty() || rest.starts_with(['/', '?']);
        whole_segment.then_some((host_rank, prefix.len()))
    }

    fn host_rank(&self, host: &str) -> Option<u8> {
        if self.settings.hosts.is_empty() {
            return Some(0);
        }
        let mut best = None;
        for pattern in &self.settings.hosts {
            let rank = match pattern.strip_prefix("*.") {
                Some(domain) => host
                    .len()
                    .checked_sub(domain.len() + 1)
                    .filter(|dot| {
                        host.as_bytes()[*dot] == b'.'
                            && host[dot + 1..].eq_ignore_ascii_case(domain)
                    })
                    .map(|_| 1),
                None => host.eq_ignore_ascii_case(pattern).then_some(2),
            };
            best = best.max(rank);
        }
        best
    }
}
