//! A disk that holds one journal: what was not synced may be lost or torn, and it may be full.

use super::chance::Chance;

/// How a process ended, as its disk sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ending {
    /// The process ended: what it wrote is in the kernel's hands.
    Process,
    /// The power went: what was not synced is lost, torn, or there by luck.
    Power,
}

/// The disk would not take it. The process must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskFailed;

/// A journal on a disk.
#[derive(Debug)]
pub(crate) struct Disk<Record> {
    synced: Vec<Record>,
    unsynced: Vec<Record>,
    pub(crate) full: bool,
}

impl<Record> Default for Disk<Record> {
    fn default() -> Self {
        Self {
            synced: Vec::new(),
            unsynced: Vec::new(),
            full: false,
        }
    }
}

impl<Record: Clone> Disk<Record> {
    pub(crate) fn write(&mut self, record: Record) -> Result<(), DiskFailed> {
        if self.full {
            return Err(DiskFailed);
        }
        self.unsynced.push(record);
        Ok(())
    }

    /// Makes everything written durable; returns what has become so.
    pub(crate) fn sync(&mut self) -> Vec<Record> {
        let now_durable = std::mem::take(&mut self.unsynced);
        self.synced.extend(now_durable.iter().cloned());
        now_durable
    }

    /// A sync that fails: whether the disk has any of it, nobody knows.
    pub(crate) fn fail_to_sync(&mut self, chance: &mut Chance) {
        self.lose_some(chance);
    }

    pub(crate) fn end(&mut self, ending: Ending, chance: &mut Chance) {
        if ending == Ending::Power {
            self.lose_some(chance);
        }
    }

    /// A record that is torn fails its checksum, and with it ends what can be read: only the
    /// ones before it are left.
    fn lose_some(&mut self, chance: &mut Chance) {
        let left = chance.index(self.unsynced.len() + 1);
        self.unsynced.truncate(left);
    }

    /// Opening a journal syncs what is read from it, so that nothing is acted on that may be lost.
    pub(crate) fn open(&mut self) -> (Vec<Record>, Vec<Record>) {
        let now_durable = self.sync();
        (self.synced.clone(), now_durable)
    }
}
