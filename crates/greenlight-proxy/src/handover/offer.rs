//! The predecessor's end of the exchange.

use super::wire::Wire;
use super::{Accepted, Hello, Offer, Offered, Ready, Sockets, VERSION};
use greenlight_admin::ServiceSettings;
use greenlight_gate::HandoverState;
use serde::Serialize;
use std::io;
use std::os::unix::net::UnixStream;

/// The successor, as the predecessor sees it.
pub(crate) struct Successor {
    wire: Wire,
}

impl Successor {
    /// `read` is what came on the connection already.
    pub(crate) fn new(stream: UnixStream, read: Vec<u8>) -> io::Result<Self> {
        let wire = Wire::new(stream, read)?;
        Ok(Self { wire })
    }

    /// Offers everything; returns when the successor is ready. Blocks.
    pub(crate) fn offer(
        mut self,
        sockets: &Sockets,
        state: &HandoverState<ServiceSettings>,
    ) -> io::Result<Self> {
        let hello: Hello = self.wire.receive()?;
        if hello.version != VERSION {
            let theirs = hello.version;
            let reason = format!("it speaks version {theirs} of the handover, not {VERSION}");
            self.wire.send(&Offer::Refused(reason.clone()))?;
            return Err(io::Error::other(reason));
        }
        let each = sockets.each();
        let (sockets, descriptors): (Vec<_>, Vec<_>) = each.into_iter().unzip();
        self.wire.send(&OfferRef::Given { state, sockets })?;
        for descriptor in descriptors {
            self.wire.send_descriptor(descriptor)?;
        }
        let Ready = self.wire.receive()?;
        Ok(self)
    }

    /// The successor leads from the moment that this succeeds.
    pub(crate) fn confirm(mut self) -> io::Result<()> {
        self.wire.send(&Accepted)
    }
}

/// [`Offer`] on the wire.
#[derive(Serialize)]
enum OfferRef<'a> {
    Given {
        state: &'a HandoverState<ServiceSettings>,
        sockets: Vec<Offered>,
    },
}
