//! Buffers whose memory is borrowed from the thread while there is something in them, so that a
//! connection that waits costs none.

use crate::socket::Socket;
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead as _, ReadBuf};

/// Memory for buffers of one size that is not in use.
pub(crate) struct Buffers {
    size: usize,
    /// Left free in front of what is read, for a head that grows.
    front: usize,
    /// Left free behind what is read, for the end of a chunk.
    back: usize,
    max_spare: usize,
    spare: RefCell<Vec<Box<[u8]>>>,
}

/// Bytes on their way.
pub(crate) struct Buffer {
    /// None while it is empty.
    memory: Option<Box<[u8]>>,
    start: usize,
    end: usize,
    home: Rc<Buffers>,
}

/// The buffers that a thread's connections share.
pub(crate) fn buffers() -> (Rc<Buffers>, Rc<Buffers>) {
    // A request, its small body included; larger ones are hyper's.
    let small = Buffers::new(16 * 1024, 0, 0, 256);
    // A response: few system calls bring a large one, and its head is rewritten in place.
    let large = Buffers::new(128 * 1024, 1024, 8, 32);
    (Rc::new(small), Rc::new(large))
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

    fn lend(&self) -> Box<[u8]> {
        let spare = self.spare.borrow_mut().pop();
        spare.unwrap_or_else(|| vec![0; self.size].into_boxed_slice())
    }

    fn take_back(&self, memory: Box<[u8]>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < self.max_spare {
            spare.push(memory);
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Buffer {
    pub(crate) fn new(home: &Rc<Buffers>) -> Self {
        Self {
            memory: None,
            start: home.front,
            end: home.front,
            home: home.clone(),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        let memory = self.memory.as_ref();
        memory.map_or(&[], |memory| &memory[self.start..self.end])
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let memory = self.memory.as_mut();
        memory.map_or(&mut [], |memory| &mut memory[self.start..self.end])
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether no more can be read into it.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.home.size - self.home.front - self.home.back
    }

    /// The first bytes are done with, and their room is for what is put in front of the rest.
    pub(crate) fn cut(&mut self, count: usize) {
        self.start += count;
    }

    /// The first bytes are done with.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        if self.is_empty() {
            self.clear();
        }
    }

    /// Adds bytes; `None` if there is no room for them.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Option<()> {
        self.room(bytes.len())?.copy_from_slice(bytes);
        Some(())
    }

    /// Adds a line of a head; `None` if there is no room for it.
    pub(crate) fn append_field(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        let room = self.room(name.len() + value.len() + 4)?;
        let (first, rest) = room.split_at_mut(name.len());
        first.copy_from_slice(name);
        let (colon, rest) = rest.split_at_mut(2);
        colon.copy_from_slice(b": ");
        let (second, end) = rest.split_at_mut(value.len());
        second.copy_from_slice(value);
        end.copy_from_slice(b"\r\n");
        Some(())
    }

    /// Puts bytes in front, into room that was left free or consumed.
    pub(crate) fn prepend(&mut self, bytes: &[u8]) {
        let start = self.start.checked_sub(bytes.len());
        let start = start.expect("heads grow by less than is left free in front");
        let memory = self.memory.get_or_insert_with(|| self.home.lend());
        memory[start..self.start].copy_from_slice(bytes);
        self.start = start;
    }

    /// Reads some more. Zero bytes are the end, or that it is full.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
    ) -> Poll<io::Result<usize>> {
        // Memory only once there is something to put into it.
        ready!(socket.poll_read_ready(cx))?;
        let (front, limit) = (self.home.front, self.home.size - self.home.back);
        let memory = self.memory.get_or_insert_with(|| self.home.lend());
        if self.start > front && (self.end >= limit || self.start == self.end) {
            memory.copy_within(self.start..self.end, front);
            self.end -= self.start - front;
            self.start = front;
        }
        let mut room = ReadBuf::new(&mut memory[self.end.min(limit)..limit]);
        let read = Pin::new(socket).poll_read(cx, &mut room);
        let count = room.filled().len();
        self.end += count;
        if self.is_empty() {
            self.clear();
        }
        read.map_ok(|()| count)
    }

    fn room(&mut self, length: usize) -> Option<&mut [u8]> {
        let memory = self.memory.get_or_insert_with(|| self.home.lend());
        let room = memory.get_mut(self.end..self.end + length)?;
        self.end += length;
        Some(room)
    }

    fn clear(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.home.take_back(memory);
        }
        self.start = self.home.front;
        self.end = self.home.front;
    }
}
