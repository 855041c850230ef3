//! The receipts on disk: one file each, sealed, and written by a thread of its own.
//!
//! The coordinator hands over what has changed and goes on. Of a receipt that changes faster than
//! the disk only the latest version is written. What is handed over and not yet on disk when the
//! process dies is lost: after a restart the journal says that the deployment was there and how it
//! ended, and the receipt says which evidence is missing.
//!
//! Deliberately absent: what is in a receipt.

use greenlight_link::api::DeploymentSummary;
use greenlight_link::receipt::{Receipt, ReceiptDocument, verify};
use greenlight_link::{Identity, PkiError};
use greenlight_shell::atomic_file::write_atomically;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many receipts are kept unless told otherwise.
pub const KEPT_RECEIPTS: usize = 200;
/// The latest receipts are read whole at a start, because what they tell may still go on.
pub(super) const RECENT: usize = 8;
/// The pause before a receipt that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The folder of the receipts. Clones are the same folder.
#[derive(Clone)]
pub struct ReceiptArchive {
    writer: Arc<Writer>,
}

/// Ends the thread with its last owner.
struct Writer {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    /// How many files are kept.
    keep: usize,
    /// Who signs.
    identity: Option<Arc<Identity>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By deployment: the latest version, which is not on disk yet.
    waiting: BTreeMap<String, Arc<Receipt>>,
    /// By deployment: its text, so that what is answered is what is written.
    sealed: BTreeMap<String, (Arc<Receipt>, Arc<str>)>,
    /// The deployment whose receipt could not be written last. Those after it are next.
    failed: Option<String>,
    /// Until then nothing is written, because the journal needs the disk.
    quiet_until: Option<Instant>,
    writing: bool,
    ended: bool,
}

/// What earlier processes have left.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// All but the latest, oldest first.
    pub(super) older: Vec<DeploymentSummary>,
    /// The latest, oldest first.
    pub(super) recent: Vec<Receipt>,
}

impl ReceiptArchive {
    /// Opens the folder and starts the thread that writes to it. Of the receipts the latest `keep`
    /// stay; each is signed with `identity`, if there is one.
    pub fn open(dir: PathBuf, keep: usize, identity: Option<Arc<Identity>>) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let shared = Arc::new(Shared {
            dir,
            keep: keep.max(1),
            identity,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let its = shared.clone();
        std::thread::Builder::new()
            .name("receipts".to_owned())
            .spawn(move || its.run())?;
        let writer = Arc::new(Writer { shared });
        Ok(Self { writer })
    }

    /// How many receipts stay.
    pub(super) fn keep(&self) -> usize {
        self.writer.shared.keep
    }

    /// What earlier processes have left. A file that cannot be read, or whose seal is not good, is
    /// put aside and not written over: it is evidence, of what happened to it.
    pub(super) fn stored(&self) -> Stored {
        let shared = &self.writer.shared;
        let ids = shared.ids();
        let recent_from = ids.len().saturating_sub(RECENT);
        let mut stored = Stored::default();
        for (number, id) in ids.iter().enumerate() {
            let path = shared.path(id);
            let read = match number < recent_from {
                true => read_summary(&path).map(|summary| stored.older.push(summary)),
                false => shared
                    .read_whole(&path)
                    .map(|receipt| stored.recent.push(receipt)),
            };
            if let Err(error) = read {
                put_aside(&path, &error);
            }
        }
        stored
    }

    /// Writes a receipt soon. Does not wait for the disk.
    pub(super) fn write(&self, receipt: Arc<Receipt>) {
        let shared = &self.writer.shared;
        let id = receipt.deployment.clone();
        shared.state.lock().waiting.insert(id, receipt);
        shared.changed.notify_all();
    }

    /// The document of a receipt: what is on disk or will be, if it does not change until then.
    pub(super) fn sealed(&self, receipt: &Arc<Receipt>) -> io::Result<Arc<str>> {
        self.writer.shared.sealed(receipt).map_err(io::Error::other)
    }

    /// The document of a receipt that is on disk, or will be soon.
    pub(super) fn read(&self, deployment: &str) -> io::Result<String> {
        let shared = &self.writer.shared;
        let (waiting, sealed) = {
            let state = shared.state.lock();
            let sealed = state.sealed.get(deployment).map(|(_, text)| text.clone());
            (state.waiting.get(deployment).cloned(), sealed)
        };
        match (waiting, sealed) {
            (Some(receipt), _) => self.sealed(&receipt).map(|text| text.to_string()),
            (None, Some(text)) => Ok(text.to_string()),
            (None, None) => fs::read_to_string(shared.path(deployment)),
        }
    }

    /// Begins no write until then, so that none delays the journal's. `None` ends the quiet.
    pub(super) fn be_quiet(&self, until: Option<Instant>) {
        let shared = &self.writer.shared;
        shared.state.lock().quiet_until = until;
        shared.changed.notify_all();
    }

    /// Waits until everything that was handed over is on disk; gives up after `timeout`. It ends
    /// the quiet: the process is about to end.
    pub fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        self.be_quiet(None);
        let shared = &self.writer.shared;
        let mut state = shared.state.lock();
        while state.writing || !state.waiting.is_empty() {
            if shared.changed.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.state.lock().ended = true;
        self.shared.changed.notify_all();
    }
}

impl State {
    /// The oldest that waits; after one that could not be written, the oldest of those behind it,
    /// so that it does not keep them from the disk.
    fn take_next(&mut self) -> Option<Arc<Receipt>> {
        let behind = self.failed.take().and_then(|failed| {
            let behind = (Bound::Excluded(failed), Bound::Unbounded);
            let (id, _) = self.waiting.range(behind).next()?;
            Some(id.clone())
        });
        match behind {
            Some(id) => self.waiting.remove(&id),
            None => self.waiting.pop_first().map(|(_, receipt)| receipt),
        }
    }
}

impl Shared {
    fn run(&self) {
        while let Some(receipt) = self.next() {
            let written = self.write(&receipt);
            let mut state = self.state.lock();
            state.writing = false;
            if let Err(error) = written {
                tracing::warn!(%error, deployment = receipt.deployment, "a receipt cannot be written");
                // A later version is as good.
                let id = receipt.deployment.clone();
                state.waiting.entry(id.clone()).or_insert(receipt);
                state.failed = Some(id);
                drop(state);
                std::thread::sleep(RETRY);
            }
            self.changed.notify_all();
        }
    }

    /// The receipt to be written next; none when the archive is no longer used.
    fn next(&self) -> Option<Arc<Receipt>> {
        let mut state = self.state.lock();
        loop {
            let quiet_until = state.quiet_until.filter(|_| !state.ended);
            if let Some(until) = quiet_until.filter(|until| Instant::now() < *until) {
                self.changed.wait_until(&mut state, until);
                continue;
            }
            if let Some(receipt) = state.take_next() {
                state.writing = true;
                return Some(receipt);
            }
            if state.ended {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }

    fn write(&self, receipt: &Arc<Receipt>) -> io::Result<()> {
        let text = self.sealed(receipt).map_err(io::Error::other)?;
        let path = self.path(&receipt.deployment);
        write_atomically(&path, 0o600, text.as_bytes())?;
        let ids = self.ids();
        for id in &ids[..ids.len().saturating_sub(self.keep)] {
            // The receipt is on disk all the same.
            if let Err(error) = fs::remove_file(self.path(id)) {
                tracing::warn!(%error, deployment = id, "an old receipt cannot be removed");
            }
        }
        Ok(())
    }

    fn sealed(&self, receipt: &Arc<Receipt>) -> Result<Arc<str>, PkiError> {
        let known = |state: &State| {
            let (its, text) = state.sealed.get(&receipt.deployment)?;
            Arc::ptr_eq(its, receipt).then(|| text.clone())
        };
        if let Some(text) = known(&self.state.lock()) {
            return Ok(text);
        }
        let signer = self.identity.as_ref().map(|identity| identity.signer());
        let text: Arc<str> = ReceiptDocument::write(receipt, signer.as_ref())?.into();
        let mut state = self.state.lock();
        // The other of two threads may have been quicker; its signature is as good.
        if let Some(text) = known(&state) {
            return Ok(text);
        }
        let sealed = (receipt.clone(), text.clone());
        state.sealed.insert(receipt.deployment.clone(), sealed);
        while state.sealed.len() > RECENT {
            state.sealed.pop_first();
        }
        Ok(text)
    }

    /// The deployments with a file. Their ids begin with the time, so they are in order.
    fn ids(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let ids = names.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned()));
        let mut ids: Vec<_> = ids.filter(|id| !id.starts_with('.')).collect();
        ids.sort();
        ids
    }

    fn path(&self, deployment: &str) -> PathBuf {
        self.dir.join(format!("{deployment}.json"))
    }

    /// A receipt that will be continued, and sealed again. So a change that somebody made on this
    /// disk must not be sealed with it.
    fn read_whole(&self, path: &Path) -> io::Result<Receipt> {
        let text = fs::read_to_string(path)?;
        let authority = self
            .identity
            .as_ref()
            .map(|identity| identity.signer().authority);
        let verified = verify(&text, authority.as_deref()).map_err(io::Error::other)?;
        match verified.seal {
            Err(error) if self.identity.is_some() => Err(io::Error::other(error)),
            Ok(_) | Err(_) => Ok(verified.receipt),
        }
    }
}

fn read_summary(path: &Path) -> io::Result<DeploymentSummary> {
    let text = fs::read(path)?;
    serde_json::from_slice(&text).map_err(io::Error::other)
}

fn put_aside(path: &Path, error: &io::Error) {
    let aside = path.with_extension("damaged");
    tracing::warn!(%error, aside = %aside.display(), "a receipt cannot be used; put aside");
    if let Err(error) = fs::rename(path, &aside) {
        tracing::warn!(%error, "a receipt could not be put aside");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenlight_link::{Authority, Role};
    use std::collections::BTreeSet;

    const SOON: Duration = Duration::from_secs(30);

    #[test]
    fn each_receipt_has_a_file_and_the_oldest_files_go() {
        let dir = tempfile::tempdir().expect("a folder");
        let archive = open(dir.path(), 3, None);
        for number in 1..=5 {
            archive.write(receipt(number, "v1"));
            archive.write(receipt(number, "v2"));
            archive.flush(SOON);
        }

        assert_eq!(
            names(dir.path()),
            ["0000003.json", "0000004.json", "0000005.json"]
        );
        let stored = open(dir.path(), 3, None).stored();
        let versions = stored
            .recent
            .iter()
            .map(|its| its.releases[&"shop".into()].as_str());
        assert_eq!(versions.collect::<Vec<_>>(), ["v2"; 3]);
    }

    #[test]
    fn an_old_file_that_cannot_be_removed_is_no_failed_write() {
        let dir = tempfile::tempdir().expect("a folder");
        let archive = open(dir.path(), 1, None);
        // A folder is not removed as a file is.
        fs::create_dir(dir.path().join("receipts/0000000.json")).expect("it is ours");
        for number in 1..=2 {
            archive.write(receipt(number, "v1"));
        }

        archive.flush(SOON);

        assert!(archive.writer.shared.state.lock().waiting.is_empty());
        assert_eq!(names(dir.path()), ["0000000.json", "0000002.json"]);
    }

    #[test]
    fn a_receipt_that_cannot_be_written_does_not_keep_later_ones_from_the_disk() {
        let dir = tempfile::tempdir().expect("a folder");
        let archive = open(dir.path(), 9, None);
        // Where a folder with something in it stands, no file can be put.
        let taken = dir.path().join("receipts/0000001.json/taken");
        fs::create_dir_all(taken).expect("it is ours");
        archive.write(receipt(1, "v1"));
        archive.write(receipt(2, "v1"));
        archive.write(receipt(3, "v1"));

        let deadline = Instant::now() + SOON;
        let written = |number| dir.path().join(format!("receipts/000000{number}.json"));
        while !(written(2).exists() && written(3).exists()) {
            assert!(Instant::now() < deadline, "they were not written");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn while_requests_wait_at_gates_nothing_is_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let archive = open(dir.path(), 9, None);
        archive.be_quiet(Some(Instant::now() + SOON));
        archive.write(receipt(1, "v1"));
        // The thread wakes, and finds nothing that it may write.
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(names(dir.path()), [""; 0]);

        archive.be_quiet(None);
        let deadline = Instant::now() + SOON;
        while names(dir.path()) != ["0000001.json"] {
            assert!(Instant::now() < deadline, "it was not written");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn only_the_latest_are_read_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        let archive = open(dir.path(), 100, None);
        for number in 1..=RECENT + 2 {
            archive.write(receipt(number, "v1"));
        }
        archive.flush(SOON);

        let stored = archive.stored();
        assert_eq!((stored.older.len(), stored.recent.len()), (2, RECENT));
        assert_eq!(stored.older[0].deployment, "0000001");
        assert_eq!(stored.recent[0].deployment, "0000003");
    }

    #[test]
    fn what_is_answered_is_what_is_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let archive = open(dir.path(), 3, Some(server(&dir.path().join("authority"))));
        let receipt = receipt(1, "v1");
        archive.write(receipt.clone());
        let answered = archive.sealed(&receipt).expect("it has a key");
        archive.flush(SOON);
        let written = archive.read("0000001").expect("it is written");
        assert_eq!(*answered, *written);
        // And nothing about how it began and ended is lost.
        assert_eq!(archive.stored().recent, [Receipt::clone(&receipt)]);
    }

    #[test]
    fn what_cannot_be_read_or_was_changed_is_put_aside_and_not_written_over() {
        let dir = tempfile::tempdir().expect("a folder");
        let archive = open(dir.path(), 9, Some(server(&dir.path().join("authority"))));
        for number in 1..=3 {
            archive.write(receipt(number, "v1"));
        }
        archive.flush(SOON);
        let path = |number: usize| dir.path().join(format!("receipts/000000{number}.json"));
        fs::write(path(1), "{\"deployment\": \"torn").expect("it is ours");
        let text = fs::read_to_string(path(2)).expect("it is written");
        fs::write(path(2), text.replace("\"v1\"", "\"v7\"")).expect("it is ours");

        let stored = archive.stored();

        let left = stored.recent.iter().map(|its| its.deployment.as_str());
        assert_eq!(left.collect::<Vec<_>>(), ["0000003"]);
        for (number, kept) in [(1, "torn"), (2, "v7")] {
            let aside = fs::read_to_string(path(number).with_extension("damaged"));
            assert!(aside.expect("it is kept").contains(kept));
            assert!(!path(number).exists());
        }
    }

    fn open(dir: &Path, keep: usize, identity: Option<Arc<Identity>>) -> ReceiptArchive {
        ReceiptArchive::open(dir.join("receipts"), keep, identity).expect("a folder")
    }

    fn server(dir: &Path) -> Arc<Identity> {
        let authority = Authority::open(dir).expect("a folder");
        let credentials = authority.issue(&Role::Server).expect("credentials");
        Arc::new(Identity::new(&credentials).expect("they are whole"))
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir.join("receipts")).expect("it is there");
        let names = entries.map(|entry| entry.expect("it is there").file_name());
        let mut names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
        names.sort();
        names
    }

    fn receipt(number: usize, version: &str) -> Arc<Receipt> {
        Arc::new(Receipt {
            deployment: format!("{number:07}"),
            requested_by: "tester".to_owned(),
            releases: [("shop".into(), version.to_owned())].into(),
            removed: BTreeSet::new(),
            previous: BTreeMap::new(),
            started_ms: 1,
            finished_ms: None,
            outcome: None,
            cut_overs: Vec::new(),
        })
    }
}
