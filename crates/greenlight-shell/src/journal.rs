//! The durable list of records of one process: an embedded store with real fsync.
//!
//! A record is on disk when `append` returns. After a failed write nothing more is accepted: what
//! the disk holds is then unknown, and only a restart that reads it again can tell.
//!
//! One record can replace the first ones, so that the list does not grow without limit.

#[cfg(test)]
mod disk;
#[cfg(test)]
mod tests;

use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    TableDefinition,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cmp::Ordering;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
/// How records are written. It goes up with every change of their names or shapes, because a
/// journal of another format is refused and never converted:
///
/// - 1: the first one.
/// - 2: there may be a snapshot in place of the first records.
/// - 3: the records have the names of `docs/reference/glossary.md`.
const FORMAT: u64 = 3;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has it open.
    #[error("the journal `{path}` is in use; another greenlight runs on the same state")]
    InUse { path: PathBuf },
    /// It was written by a newer version.
    #[error("the journal `{path}` has format {found}, and this greenlight knows {FORMAT}; upgrade")]
    Newer {
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// It was written by an older version.
    #[error(
        "the journal `{path}` has format {found}, and this greenlight knows {FORMAT} only; let the \
         greenlight that wrote it finish its deployment, then move the state of server, agents and \
         proxies away and deploy again"
    )]
    Older {
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// The store failed.
    #[error("the journal `{path}` failed: {reason}; look at the disk, then restart")]
    Store {
        path: PathBuf,
        /// The store's error.
        reason: String,
    },
    /// An earlier write failed.
    #[error("the journal `{path}` takes nothing more, because an earlier write failed; restart")]
    Poisoned { path: PathBuf },
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
        match std::fs::metadata(path) {
            Ok(file) if file.len() > 0 => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(path, &error));
            }
            // Nothing was ever kept in an empty one.
            Ok(_) | Err(_) => Self::make(path)?,
        }
        // A new file is lost with its name, even if its content was synced. This is done every
        // time, because the process that made it may have been killed before this.
        sync_folder(path).map_err(|error| failed(path, &error))?;
        Self::in_database(Database::open(path), path)
    }

    /// Makes a new journal beside its place, so that there is none or a whole one: the store
    /// cannot open what was interrupted while it was made.
    fn make(path: &Path) -> Result<(), JournalError> {
        let next = path.with_extension("next");
        drop(Self::in_database(create(&next), path)?);
        std::fs::rename(&next, path).map_err(|error| failed(path, &error))
    }

    fn in_database(
        opened: Result<Database, DatabaseError>,
        path: &Path,
    ) -> Result<Self, JournalError> {
        let database = opened.map_err(|error| {
            if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
                let path = path.to_owned();
                return JournalError::InUse { path };
            }
            failed(path, &error)
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
                if format != FORMAT {
                    // Its other content is unknown here, and it stays unchanged.
                    return Ok((format, 0, 0));
                }
                let records = transaction.open_table(RECORDS)?;
                let last = records.last()?.map(|(key, _)| key.value());
                (format, last.map_or(1, |last| last + 1), records.len()?)
            };
            transaction.commit()?;
            Ok((format, next, count))
        };
        let (found, next, count) = write().map_err(|error| failed(path, &error))?;
        let path = path.to_owned();
        match found.cmp(&FORMAT) {
            Ordering::Greater => return Err(JournalError::Newer { path, found }),
            Ordering::Less => return Err(JournalError::Older { path, found }),
            Ordering::Equal => {}
        }
        Ok(Self {
            database,
            path,
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
        let all = read().map_err(|error| failed(&self.path, &error))?;
        all.iter()
            .map(|bytes| serde_json::from_slice(bytes).map_err(|error| failed(&self.path, &error)))
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

    /// Replaces the first `count` records by one. When this returns, that is on disk; if
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
        serde_json::to_vec(record).map_err(|error| failed(&self.path, &error))
    }

    fn poison(&mut self, error: &redb::Error) -> JournalError {
        self.poisoned = true;
        failed(&self.path, error)
    }
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> JournalError {
    JournalError::Store {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

/// A new database in the place of one that was not completed.
fn create(path: &Path) -> Result<Database, DatabaseError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error)?,
        Ok(()) | Err(_) => Database::create(path),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
