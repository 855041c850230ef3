//! A disk that holds one journal: what was not synced may be lost or torn, and it may be full.
//!
//! What is being written is bytes: of each record its length, a checksum and its text. Of a torn
//! one only the beginning has come to the disk; behind it there is nothing, or what was there
//! before. As in the real store the checksum tells, and what it does not vouch for is rolled back.

use super::rng::Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::hash::{DefaultHasher, Hasher};

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

/// What a journal holds when it is opened.
#[derive(Debug)]
pub(crate) struct Opened<Record> {
    pub(crate) records: Vec<Record>,
    /// Those of them that were not known to be durable.
    pub(crate) found: Vec<Record>,
    /// Whether a part of a record was there too.
    pub(crate) torn: bool,
}

/// A journal on a disk.
#[derive(Debug)]
pub(crate) struct Disk<Record> {
    synced: Vec<Record>,
    /// What was written since, or what is left of it.
    unsynced: Vec<u8>,
    /// The bytes of the record before: where a later one is torn, these may still be there.
    before: Vec<u8>,
    pub(crate) full: bool,
}

impl<Record> Default for Disk<Record> {
    fn default() -> Self {
        Self {
            synced: Vec::new(),
            unsynced: Vec::new(),
            before: Vec::new(),
            full: false,
        }
    }
}

impl<Record: Clone + Serialize + DeserializeOwned> Disk<Record> {
    pub(crate) fn write(&mut self, record: &Record) -> Result<(), DiskFailed> {
        if self.full {
            return Err(DiskFailed);
        }
        let written = texts(self.synced.len(), &self.unsynced, vouches).0.len();
        let number = self.synced.len() + written;
        self.unsynced.extend(frame(number, record));
        Ok(())
    }

    /// Makes everything written durable; returns what has become so.
    pub(crate) fn sync(&mut self) -> Vec<Record> {
        let (now_durable, _) = self.read();
        self.synced.extend(now_durable.iter().cloned());
        self.before = std::mem::take(&mut self.unsynced);
        now_durable
    }

    /// A sync that fails: whether the disk has any of it, nobody knows.
    pub(crate) fn fail_to_sync(&mut self, rng: &mut Rng) {
        self.lose_some(rng);
    }

    pub(crate) fn end(&mut self, ending: Ending, rng: &mut Rng) {
        if ending == Ending::Power {
            self.lose_some(rng);
        }
    }

    fn lose_some(&mut self, rng: &mut Rng) {
        let length = self.unsynced.len();
        let left = match rng.below(3) {
            0 => 0,
            1 => rng.index(length + 1),
            _ => length,
        };
        let behind = rng.pick(&[Vec::new(), vec![0; length], self.before.clone()]);
        tear(&mut self.unsynced, left, &behind);
    }

    /// Opening a journal syncs what is read from it, so that nothing is acted on that may be lost;
    /// what is torn is cut off, so that it does not stand before what is written next.
    pub(crate) fn open(&mut self) -> Opened<Record> {
        let (found, torn) = self.read();
        self.unsynced.clear();
        self.synced.extend(found.iter().cloned());
        Opened {
            records: self.synced.clone(),
            found,
            torn,
        }
    }

    /// What was written and is whole, and whether a part of something is behind it.
    fn read(&self) -> (Vec<Record>, bool) {
        let (texts, torn) = texts(self.synced.len(), &self.unsynced, vouches);
        let records = texts.into_iter().map(|text| {
            let record = serde_json::from_slice(text);
            record.expect("the checksum vouches for it")
        });
        (records.collect(), torn)
    }
}

/// Bytes of the length and of the checksum.
const WORD: usize = size_of::<u64>();

/// A record as it is written to its place in the journal.
fn frame(number: usize, record: &impl Serialize) -> Vec<u8> {
    let text = serde_json::to_vec(record).expect("a record can be written");
    let length = u64::try_from(text.len()).expect("usize has 64 bits or fewer");
    let checksum = checksum(number, &text);
    [&length.to_le_bytes()[..], &checksum.to_le_bytes(), &text].concat()
}

/// The texts of the records from this number on, up to the first that nothing vouches for; and
/// whether there is one.
fn texts(
    mut number: usize,
    mut bytes: &[u8],
    vouches: impl Fn(u64, usize, &[u8]) -> bool,
) -> (Vec<&[u8]>, bool) {
    let mut texts = Vec::new();
    while let Some((checksum, text, rest)) = first(bytes)
        && vouches(checksum, number, text)
    {
        texts.push(text);
        number += 1;
        bytes = rest;
    }
    (texts, !bytes.is_empty())
}

/// The first record's checksum and text, and what is behind it.
fn first(bytes: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<WORD>()?;
    let (checksum, rest) = rest.split_first_chunk::<WORD>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (text, rest) = rest.split_at_checked(length)?;
    Some((u64::from_le_bytes(*checksum), text, rest))
}

fn vouches(known: u64, number: usize, text: &[u8]) -> bool {
    known == checksum(number, text)
}

fn checksum(number: usize, text: &[u8]) -> u64 {
    // Its keys are fixed, unlike those of a map's.
    let mut hasher = DefaultHasher::new();
    hasher.write_usize(number);
    hasher.write(text);
    hasher.finish()
}

/// Only so many bytes of it have come to the disk.
fn tear(bytes: &mut Vec<u8>, left: usize, behind: &[u8]) {
    let length = bytes.len().min(behind.len());
    bytes.truncate(left);
    bytes.extend(behind.get(left..length).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenlight_protocol::{AgentRecord, Epoch};

    #[test]
    fn a_record_is_noticed_to_be_torn_wherever_it_is() {
        for torn in torn_records() {
            let (texts, _) = texts(1, &torn, vouches);
            assert!(texts.is_empty(), "{torn:?} was read");
        }
    }

    #[test]
    fn without_a_checksum_torn_records_would_be_believed() {
        let believed = torn_records().into_iter().filter(|torn| {
            let (texts, _) = texts(1, torn, |_, _, _| true);
            let record = texts.first().map(|text| serde_json::from_slice(text));
            matches!(record, Some(Ok(AgentRecord::Armed(_))))
        });
        assert_ne!(believed.count(), 0);
    }

    #[test]
    fn what_is_written_behind_a_torn_record_is_not_lost() {
        let armed = |epoch| AgentRecord::Armed(Epoch(epoch));
        for left in 1..frame(1, &armed(2)).len() {
            let mut disk = Disk::default();
            disk.write(&armed(1)).expect("it has room");
            disk.sync();
            disk.write(&armed(2)).expect("it has room");
            tear(&mut disk.unsynced, left, &[]);

            let opened = disk.open();
            disk.write(&armed(3)).expect("it has room");
            disk.sync();

            assert!(opened.torn);
            assert_eq!(opened.records, [armed(1)]);
            assert_eq!(disk.open().records, [armed(1), armed(3)]);
        }
    }

    /// One record, torn everywhere and with anything behind; never whole by luck.
    fn torn_records() -> Vec<Vec<u8>> {
        let before = frame(0, &AgentRecord::Armed(Epoch(1111)));
        let whole = frame(1, &AgentRecord::Armed(Epoch(2222)));
        let mut all = Vec::new();
        for behind in [Vec::new(), vec![0; whole.len()], before] {
            for left in 0..whole.len() {
                let mut torn = whole.clone();
                tear(&mut torn, left, &behind);
                all.push(torn);
            }
        }
        all.retain(|torn| *torn != whole);
        all
    }
}
