//! The durable list of records of one process: an embedded store with real fsync.
//!
//! A record is on disk when `append` returns. After a failed write nothing more is accepted: what
//! the disk holds is then unknown, and only a restart that reads it again can tell.
//!
//! One record can take the place of the first ones, so that the list does not grow for ever.

use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    TableDefinition,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
/// 2 may have a snapshot in place of its first records.
const FORMAT: u64 = 2;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has it open.
    #[error("the journal `{path}` is in use; another greenlight runs on the same state")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It was written by a newer version.
    #[error("the journal `{path}` has format {found}, and this greenlight knows {FORMAT}; upgrade")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// The store failed.
    #[error("the journal `{path}` failed: {reason}; look at the disk, then restart")]
    Store {
        /// The file.
        path: PathBuf,
        /// What the store said.
        reason: String,
    },
    /// An earlier write failed.
    #[error("the journal `{path}` takes nothing more, because an earlier write failed; restart")]
    Poisoned {
        /// The file.
        path: PathBuf,
    },
}

/// A list of records that grows at its end.
pub struct Journal {
    database: Database,
    path: PathBuf,
    next: u64,
    count: u64,
    poisoned: bool,
}

impl Journal {
    /// Opens the journal, or makes a new one.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let failed = |reason: String| JournalError::Store {
            path: path.to_owned(),
            reason,
        };
        let database = Database::create(path).map_err(|error| {
            if matches!(error, redb::DatabaseError::DatabaseAlreadyOpen) {
                let path = path.to_owned();
                return JournalError::InUse { path };
            }
            failed(error.to_string())
        })?;
        let write = || -> Result<(u64, u64, u64), redb::Error> {
            let transaction = database.begin_write()?;
            let (format, next, count) = {
                let mut about = transaction.open_table(ABOUT)?;
                let known = about.get("format")?.map(|value| value.value());
                if known.is_none() {
                    about.insert("format", FORMAT)?;
                }
                let format = known.unwrap_or(FORMAT);
                let records = transaction.open_table(RECORDS)?;
                let last = records.last()?.map(|(key, _)| key.value());
                (format, last.map_or(1, |last| last + 1), records.len()?)
            };
            transaction.commit()?;
            Ok((format, next, count))
        };
        let (found, next, count) = write().map_err(|error| failed(error.to_string()))?;
        if found > FORMAT {
            let path = path.to_owned();
            return Err(JournalError::Newer { path, found });
        }
        Ok(Self {
            database,
            path: path.to_owned(),
            next,
            count,
            poisoned: false,
        })
    }

    /// All records, oldest first.
    pub fn load<T: DeserializeOwned>(&self) -> Result<Vec<T>, JournalError> {
        let read = || -> Result<Vec<Vec<u8>>, redb::Error> {
            let transaction = self.database.begin_read()?;
            let records = transaction.open_table(RECORDS)?;
            let mut all = Vec::new();
            for entry in records.iter()? {
                all.push(entry?.1.value().to_vec());
            }
            Ok(all)
        };
        let all = read().map_err(|error| self.failed(&error))?;
        all.iter()
            .map(|bytes| serde_json::from_slice(bytes).map_err(|error| self.failed(&error)))
            .collect()
    }

    /// How many records there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds a record. When this returns, it is on disk. Returns its position, from 1.
    pub fn append<T: Serialize>(&mut self, record: &T) -> Result<u64, JournalError> {
        let bytes = self.bytes(record)?;
        let position = self.next;
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            transaction
                .open_table(RECORDS)?
                .insert(position, bytes.as_slice())?;
            transaction.commit()?;
            Ok(())
        };
        write().map_err(|error| self.poison(&error))?;
        self.next += 1;
        self.count += 1;
        Ok(position)
    }

    /// Puts one record in the place of the first `count`. When this returns, that is on disk; if
    /// it is interrupted, all of it or nothing is. The others keep their positions.
    pub fn replace_first<T: Serialize>(
        &mut self,
        count: usize,
        by: &T,
    ) -> Result<(), JournalError> {
        let bytes = self.bytes(by)?;
        let write = || -> Result<u64, redb::Error> {
            let transaction = self.database.begin_write()?;
            let left = {
                transaction.open_table(ABOUT)?.insert("format", FORMAT)?;
                let mut records = transaction.open_table(RECORDS)?;
                let mut last = None;
                for _ in 0..count {
                    last = records.pop_first()?.map(|(key, _)| key.value()).or(last);
                }
                if let Some(last) = last {
                    records.insert(last, bytes.as_slice())?;
                }
                records.len()?
            };
            transaction.commit()?;
            Ok(left)
        };
        self.count = write().map_err(|error| self.poison(&error))?;
        Ok(())
    }

    fn bytes<T: Serialize>(&self, record: &T) -> Result<Vec<u8>, JournalError> {
        if self.poisoned {
            let path = self.path.clone();
            return Err(JournalError::Poisoned { path });
        }
        serde_json::to_vec(record).map_err(|error| self.failed(&error))
    }

    fn poison(&mut self, error: &redb::Error) -> JournalError {
        self.poisoned = true;
        self.failed(error)
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> JournalError {
        JournalError::Store {
            path: self.path.clone(),
            reason: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_appended_is_there_after_a_restart() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path).expect("a new journal");
        assert_eq!(journal.append(&"one").expect("a good disk"), 1);
        assert_eq!(journal.append(&"two").expect("a good disk"), 2);
        drop(journal);
        let mut journal = Journal::open(&path).expect("the same journal");
        assert_eq!(
            journal.load::<String>().expect("two records"),
            ["one", "two"]
        );
        assert_eq!(journal.append(&"three").expect("a good disk"), 3);
    }

    #[test]
    fn a_record_takes_the_place_of_the_first_ones_and_the_others_keep_theirs() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path).expect("a new journal");
        for record in ["one", "two", "three"] {
            journal.append(&record).expect("a good disk");
        }
        journal.replace_first(2, &"both").expect("a good disk");
        assert_eq!(journal.count(), 2);
        drop(journal);
        let mut journal = Journal::open(&path).expect("the same journal");
        assert_eq!(
            journal.load::<String>().expect("two records"),
            ["both", "three"]
        );
        assert_eq!(journal.count(), 2);
        assert_eq!(journal.append(&"four").expect("a good disk"), 4);
    }

    #[test]
    fn a_journal_in_use_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("journal");
        let _first = Journal::open(&path).expect("a new journal");
        let error = Journal::open(&path)
            .err()
            .expect("it is in use")
            .to_string();
        assert!(error.contains("is in use"), "{error}");
        assert!(error.contains("journal"), "{error}");
    }
}
