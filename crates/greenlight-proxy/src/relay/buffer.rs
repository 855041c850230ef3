//! Buffers that are borrowed from the thread while there is something in them, so that a
//! connection that waits costs none.

use crate::socket::Socket;
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead as _, ReadBuf};

/// Buffers of one size that are not in use.
pub(crate) struct Buffers {
    size: usize,
    /// Left free in front of what is read, for a head that grows.
    front: usize,
    /// Left free behind what is read, for the end of a chunk.
    back: usize,
    max_spare: usize,
    spare: RefCell<Vec<Box<[u8]>>>,
}

/// Bytes on their way. Goes back to where it came from when dropped.
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    home: Rc<Buffers>,
}

impl Buffers {
    pub(crate) fn new(size: usize, front: usize, back: usize, max_spare: usize) -> Self {
        Self {
            size,
            front,
            back,
            max_spare,
            spare: RefCell::default(),
        }
    }

    /// An empty buffer.
    pub(crate) fn take(self: &Rc<Self>) -> Buffer {
        let spare = self.spare.borrow_mut().pop();
        Buffer {
            bytes: spare.unwrap_or_else(|| vec![0; self.size].into_boxed_slice()),
            start: self.front,
            end: self.front,
            home: self.clone(),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut spare = self.home.spare.borrow_mut();
        if spare.len() < self.home.max_spare {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl Buffer {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first bytes are done with.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        if self.is_empty() {
            self.start = self.home.front;
            self.end = self.home.front;
        }
    }

    /// Adds bytes; `None` if there is no room for them.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Option<()> {
        let room = self.bytes.get_mut(self.end..self.end + bytes.len())?;
        room.copy_from_slice(bytes);
        self.end += bytes.len();
        Some(())
    }

    /// Adds a line of a head; `None` if there is no room for it.
    pub(crate) fn append_field(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        let length = name.len() + value.len() + 4;
        let room = self.bytes.get_mut(self.end..self.end + length)?;
        let (first, rest) = room.split_at_mut(name.len());
        first.copy_from_slice(name);
        let (colon, rest) = rest.split_at_mut(2);
        colon.copy_from_slice(b": ");
        let (second, end) = rest.split_at_mut(value.len());
        second.copy_from_slice(value);
        end.copy_from_slice(b"\r\n");
        self.end += length;
        Some(())
    }

    /// Puts bytes in front, into room that was left free or consumed.
    pub(crate) fn prepend(&mut self, bytes: &[u8]) {
        let start = self.start.checked_sub(bytes.len());
        let start = start.expect("heads grow by less than is left free in front");
        self.bytes[start..self.start].copy_from_slice(bytes);
        self.start = start;
    }

    /// Reads some more. Zero bytes are the end, or that there is no room.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
    ) -> Poll<io::Result<usize>> {
        let limit = self.home.size - self.home.back;
        if self.end >= limit && self.start > self.home.front {
            self.bytes
                .copy_within(self.start..self.end, self.home.front);
            self.end -= self.start - self.home.front;
            self.start = self.home.front;
        }
        let mut room = ReadBuf::new(&mut self.bytes[self.end.min(limit)..limit]);
        ready!(Pin::new(socket).poll_read(cx, &mut room))?;
        let count = room.filled().len();
        self.end += count;
        Poll::Ready(Ok(count))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.home.size - self.home.front - self.home.back
    }
}
