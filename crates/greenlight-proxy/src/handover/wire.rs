//! Frames of JSON, and descriptors between them, on a unix stream. Blocking, with a time limit.
//!
//! Each descriptor comes with one byte of its own, so that their number is not bounded by what
//! one message may carry, and so that a frame is never read together with a descriptor, which
//! would lose it.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long the other side may take for one message: it has only its threads to start.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest frame.
const MAX_FRAME: u32 = 64 * 1024 * 1024;

pub(super) struct Wire {
    stream: UnixStream,
    /// What was read already, by who had the connection before.
    read: io::Cursor<Vec<u8>>,
}

impl Wire {
    pub(super) fn new(stream: UnixStream, read: Vec<u8>) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(MESSAGE_TIMEOUT))?;
        stream.set_write_timeout(Some(MESSAGE_TIMEOUT))?;
        Ok(Self {
            stream,
            read: io::Cursor::new(read),
        })
    }

    /// From now on the other side may take as long as it needs; its end is noticed all the same.
    pub(super) fn wait_without_limit(&mut self) -> io::Result<()> {
        self.stream.set_read_timeout(None)
    }

    #[cfg(test)]
    pub(super) fn break_off(&self) {
        let both = std::net::Shutdown::Both;
        self.stream.shutdown(both).expect("it is connected");
    }

    pub(super) fn send<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let body = serde_json::to_vec(message).map_err(io::Error::other)?;
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        let mut frame = length.to_be_bytes().to_vec();
        frame.extend(body);
        self.stream.write_all(&frame)
    }

    pub(super) fn receive<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut length = [0; 4];
        self.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > MAX_FRAME {
            return Err(io::Error::other(
                "the other side does not speak this protocol",
            ));
        }
        let mut body = vec![0; length as usize];
        self.read_exact(&mut body)?;
        serde_json::from_slice(&body).map_err(io::Error::other)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let from_before = self.read.read(buffer)?;
        self.stream.read_exact(&mut buffer[from_before..])
    }

    pub(super) fn send_descriptor(&mut self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let rights = [descriptor];
        if !ancillary.push(SendAncillaryMessage::ScmRights(&rights)) {
            return Err(io::Error::other("no room for a descriptor"));
        }
        sendmsg(
            &self.stream,
            &[IoSlice::new(b"d")],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }

    pub(super) fn receive_descriptor(&mut self) -> io::Result<OwnedFd> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut into = [IoSliceMut::new(&mut byte)];
        recvmsg(
            &self.stream,
            &mut into,
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let mut first = None;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                first = first.or(descriptors.into_iter().next());
            }
        }
        first.ok_or_else(|| io::Error::other("a descriptor did not come"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn frames_and_descriptors_arrive_in_order_whatever_was_read_before() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut sender = Wire::new(ours, Vec::new()).expect("a wire");
        let (kept, passed) = UnixStream::pair().expect("a pair");
        sender.send(&"first").expect("room");
        sender.send_descriptor(passed.as_fd()).expect("room");
        sender.send(&"second").expect("room");
        drop(passed);

        let mut head = [0; 3];
        (&theirs).read_exact(&mut head).expect("three bytes");
        let mut receiver = Wire::new(theirs, head.to_vec()).expect("a wire");
        assert_eq!(receiver.receive::<String>().expect("a frame"), "first");
        let mut passed = UnixStream::from(receiver.receive_descriptor().expect("a descriptor"));
        assert_eq!(receiver.receive::<String>().expect("a frame"), "second");

        passed.write_all(b"alive").expect("the pair is whole");
        drop(passed);
        let mut text = String::new();
        (&kept)
            .read_to_string(&mut text)
            .expect("the pair is whole");
        assert_eq!(text, "alive");
    }
}
