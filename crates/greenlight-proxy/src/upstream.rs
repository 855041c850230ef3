//! Connections to applications, and what is sent on them.

mod first_byte;
mod hyper_connection;
mod pool;
mod raw_connection;
mod upload;

pub(crate) use first_byte::FirstByteTracker;
pub(crate) use hyper_connection::HyperConnection;
pub(crate) use pool::{Connection, Pool};
pub(crate) use raw_connection::RawConnection;
pub(crate) use upload::{Failure, RequestBody, Upload};

use rustix::io::Errno;
use std::io;

/// Whether a connection could not be opened because this process, or the machine, has no
/// descriptor left. That is not the application's fault.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}
