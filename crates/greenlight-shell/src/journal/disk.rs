//! A disk for the tests: it records all operations, can fail to sync, and can lose its power.
//!
//! What was not synced may be there, be lost, or be torn, in any order: that is all that a real
//! disk promises.

use parking_lot::{Mutex, MutexGuard};
use redb::StorageBackend;
use std::io;
use std::sync::Arc;

/// The disk. Its clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<DiskState>>);

#[derive(Debug, Default)]
struct DiskState {
    now: Vec<u8>,
    told: Vec<Told>,
    fails_to_sync: bool,
}

/// The operations that the disk got and has done.
#[derive(Clone, Debug)]
pub(super) enum Told {
    SetLen(usize),
    Write(usize, Vec<u8>),
    Sync,
}

/// What has become of something that was written.
#[derive(Clone, Copy)]
enum Fate {
    Kept,
    Lost,
    FirstHalf,
    SecondHalf,
}

impl Disk {
    /// A disk with this on it.
    pub(super) fn with(image: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.state().now = image;
        disk
    }

    /// What is on it, as long as it has power.
    pub(super) fn image(&self) -> Vec<u8> {
        self.state().now.clone()
    }

    pub(super) fn told(&self) -> Vec<Told> {
        self.state().told.clone()
    }

    pub(super) fn fail_to_sync(&self, fails: bool) {
        self.state().fails_to_sync = fails;
    }

    fn state(&self) -> MutexGuard<'_, DiskState> {
        self.0.lock()
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let offset = place(offset)?;
        let there = state.now.get(offset..offset + out.len());
        out.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state().obey(Told::SetLen(place(len)?));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.fails_to_sync {
            return Err(io::Error::other("the disk is broken"));
        }
        state.obey(Told::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.state()
            .obey(Told::Write(place(offset)?, data.to_vec()));
        Ok(())
    }
}

impl DiskState {
    fn obey(&mut self, told: Told) {
        told.apply(&mut self.now, Fate::Kept);
        self.told.push(told);
    }
}

impl Told {
    fn apply(&self, image: &mut Vec<u8>, fate: Fate) {
        match (self, fate) {
            (Self::Sync, _) | (_, Fate::Lost) => {}
            (Self::SetLen(len), _) => image.resize(*len, 0),
            (Self::Write(offset, data), fate) => {
                let half = data.len() / 2;
                let (from, until) = match fate {
                    Fate::FirstHalf => (0, half),
                    Fate::SecondHalf => (half, data.len()),
                    Fate::Kept | Fate::Lost => (0, data.len()),
                };
                if image.len() < offset + until {
                    image.resize(offset + until, 0);
                }
                image[offset + from..offset + until].copy_from_slice(&data[from..until]);
            }
        }
    }
}

/// What a disk may have after its power was lost right after the last of `unsynced`: that one with
/// any of those before it, and all of them with one that is torn.
pub(super) fn after_power_loss(synced: &[u8], unsynced: &[Told]) -> Vec<Vec<u8>> {
    let image = |fate: &dyn Fn(usize) -> Fate| {
        let mut image = synced.to_vec();
        for (at, told) in unsynced.iter().enumerate() {
            told.apply(&mut image, fate(at));
        }
        image
    };
    let before = unsynced.len().saturating_sub(1);
    let mut images = Vec::new();
    for lost in 0..1_u32 << before {
        images.push(image(&|at| match lost >> at & 1 {
            0 => Fate::Kept,
            _ => Fate::Lost,
        }));
    }
    for one in 0..unsynced.len() {
        for half in [Fate::FirstHalf, Fate::SecondHalf] {
            images.push(image(&|at| if at == one { half } else { Fate::Kept }));
        }
    }
    images
}

/// What is on the disk for sure once `unsynced` is synced.
pub(super) fn after_sync(synced: &mut Vec<u8>, unsynced: &mut Vec<Told>) {
    for told in unsynced.drain(..) {
        told.apply(synced, Fate::Kept);
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}
