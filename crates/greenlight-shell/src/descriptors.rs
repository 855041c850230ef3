//! How many descriptors a role may have open.
//!
//! The soft limit that a process starts with is for programs that use `select` (1024, usually);
//! the hard one is what its machine allows it. The proxy takes two for each request and the server
//! one for each agent, so both go up to the hard limit. The agent does not: it needs few, and the
//! applications that it starts would inherit what is not meant for them.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of this process to its hard one, and logs it.
pub fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => tracing::info!(limit = limit.current, before, "descriptors"),
        Err(error) => tracing::warn!(%error, limit = before, "descriptors cannot be raised"),
    }
}
