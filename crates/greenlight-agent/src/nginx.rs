//! The machine's Nginx: the files that Greenlight writes for it, their test, reload and check.
//!
//! ```text
//!   greenlight.yml ──▶ Include ──▶ text ──▶ `nginx -t` on a copy ──▶ file ──▶ reload
//!                        ▲                                             │
//!                        └────────── read back: the file is the state ─┘
//!   Marker ◀── 127.0.0.1, answered by the workers themselves: which generation serves?
//! ```
//!
//! Nothing that a person typed reaches a configuration as text: an [`Include`] is made of typed
//! values, each of which refuses what Nginx could take for syntax.
//!
//! Deliberately absent: editing other configuration. Users' servers, certificates and
//! logs are theirs; they include our file where they want it.

mod attach;
mod control;
mod dry_run;
mod error;
mod include;
mod marker;
mod private;
mod reload;

pub use attach::{AttachError, Attached, Attachment, FileChange};
pub use control::Nginx;
pub use dry_run::Copied;
pub use error::NginxError;
pub use include::{Include, IncludeError, Target, Upstream};
pub use marker::{Marker, MarkerError};
pub use private::PrivateNginx;
pub use reload::put;
pub use reload::{NotReloaded, ReloadEvidence};
pub(crate) use reload::{get, reload};
