//! The routing as it survives a restart: replaced atomically, synced, and checked when read.

#[cfg(test)]
pub(crate) mod bad_disk;
mod disk;

use disk::Disk;

use crate::error::{ProxyError, StateError};
use greenlight_admin::ServiceSettings;
use greenlight_gate::RoutingState;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The first line of every state file; a file that does not begin with it is not ours.
const MAGIC: &str = "greenlight-proxy routing 5";

/// What is kept.
pub(crate) type State = RoutingState<ServiceSettings>;

/// The file.
#[derive(Clone, Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    disk: Arc<dyn Disk>,
}

/// Whether what was replaced must outlive the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Synced {
    Yes,
    No,
}

impl StateFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self::on(path, Arc::new(disk::Real))
    }

    pub(crate) fn on(path: PathBuf, disk: Arc<dyn Disk>) -> Self {
        Self { path, disk }
    }

    /// Reads what was kept; nothing, if there is no file. A file that is there and cannot be
    /// used is an error: replacing it silently would answer every request with 404.
    pub(crate) fn load(&self) -> Result<State, ProxyError> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(self.unusable(StateError::NotText));
            }
            Err(source) => {
                let path = self.path.clone();
                return Err(ProxyError::Keep { path, source });
            }
        };
        let mut lines = text.splitn(3, '\n');
        if lines.next() != Some(MAGIC) {
            return Err(self.unusable(StateError::OtherVersion));
        }
        let (Some(sum), Some(body)) = (lines.next(), lines.next()) else {
            return Err(self.unusable(StateError::CutOff));
        };
        if sum != checksum(body) {
            return Err(self.unusable(StateError::Checksum));
        }
        serde_json::from_str(body).map_err(|error| self.unusable(error.into()))
    }

    /// Replaces what is kept. When this returns, it is on disk.
    pub(crate) fn store(&self, state: &State) -> Result<(), ProxyError> {
        self.replace(state, Synced::Yes)
    }

    /// Replaces what is kept. When this returns, it survives this process, though perhaps not
    /// the machine.
    pub(crate) fn store_unsynced(&self, state: &State) -> Result<(), ProxyError> {
        self.replace(state, Synced::No)
    }

    /// Whether a file could be written there. Leaves what is kept alone, and what another process
    /// may be about to put in its place.
    pub(crate) fn test_writing(&self) -> Result<(), ProxyError> {
        let beside = self.path.with_extension("test");
        let tested = self.disk.write(&beside, b"test\n");
        let tested = tested.and_then(|_| std::fs::remove_file(&beside));
        tested.map_err(|source| ProxyError::Keep {
            path: self.path.clone(),
            source,
        })
    }

    fn replace(&self, state: &State, synced: Synced) -> Result<(), ProxyError> {
        let body = serde_json::to_string(state).expect("plain data serialises");
        let text = format!("{MAGIC}\n{}\n{body}", checksum(&body));
        let replaced = self.replace_bytes(text.as_bytes(), synced);
        replaced.map_err(|source| ProxyError::Keep {
            path: self.path.clone(),
            source,
        })
    }

    fn replace_bytes(&self, bytes: &[u8], synced: Synced) -> io::Result<()> {
        let next = self.path.with_extension("next");
        let file = self.disk.write(&next, bytes)?;
        if synced == Synced::Yes {
            self.disk.sync(&file)?;
        }
        self.disk.rename(&next, &self.path)?;
        if synced == Synced::Yes {
            let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty());
            self.disk
                .sync(&File::open(folder.unwrap_or(Path::new(".")))?)?;
        }
        Ok(())
    }

    fn unusable(&self, source: StateError) -> ProxyError {
        let path = self.path.clone();
        ProxyError::State { path, source }
    }
}

/// FNV-1a over the body: it only has to find torn and edited files.
fn checksum(body: &str) -> String {
    let hash = body.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::bad_disk::{BadDisk, Step};
    use super::*;
    use greenlight_gate::{Color, Deadline, Mode, OnUncertain, ServiceEvidence, ServiceState};

    #[test]
    fn what_is_stored_is_loaded_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = StateFile::new(dir.path().join("routing"));
        assert_eq!(file.load().expect("no file"), State::default());
        let state = example();
        file.store(&state).expect("a folder that can be written");
        assert_eq!(file.load().expect("a good file"), state);
    }

    #[test]
    fn it_is_written_and_synced_before_it_takes_the_place_and_the_folder_after() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().canonicalize().expect("it is there");
        let disk = Arc::new(BadDisk::default());
        let file = StateFile::on(folder.join("routing"), disk.clone());

        file.store(&example()).expect("a good disk");
        let next = folder.join("routing.next");
        let whole = [
            Step::Write(next.clone()),
            Step::Sync(next),
            Step::Rename(folder.join("routing")),
            Step::Sync(folder),
        ];
        assert_eq!(disk.take_steps(), whole);

        // A hold is not lengthened by the disk.
        file.store_unsynced(&example()).expect("a good disk");
        let unsynced = [whole[0].clone(), whole[2].clone()];
        assert_eq!(disk.take_steps(), unsynced);
    }

    #[test]
    fn to_test_whether_it_can_be_written_leaves_it_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = StateFile::new(dir.path().join("routing"));
        file.store(&example()).expect("a good disk");

        file.test_writing().expect("a good disk");

        assert_eq!(file.load().expect("a good file"), example());
        let names = std::fs::read_dir(dir.path()).expect("a folder");
        assert_eq!(names.count(), 1);
        let nowhere = StateFile::new(dir.path().join("nowhere").join("routing"));
        let error = nowhere.test_writing().expect_err("there is no folder");
        assert!(error.to_string().contains("cannot keep"), "{error}");
    }

    #[test]
    fn a_step_that_fails_is_the_last_and_before_the_rename_it_leaves_what_was_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = Arc::new(BadDisk::default());
        let file = StateFile::on(dir.path().join("routing"), disk.clone());
        file.store(&State::default()).expect("a good disk");
        disk.take_steps();

        for failing in 0..4 {
            disk.fail_at(failing);
            let error = file.store(&example()).expect_err("the disk is broken");
            assert!(error.to_string().contains("cannot keep"), "{error}");
            assert_eq!(disk.take_steps().len(), failing + 1);
            if failing < 3 {
                assert_eq!(file.load().expect("a good file"), State::default());
            }
        }
    }

    #[test]
    fn a_torn_or_foreign_file_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("routing");
        let file = StateFile::new(path.clone());
        file.store(&example())
            .expect("a folder that can be written");
        let whole = std::fs::read(&path).expect("a file");
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("a file");
            let error = file.load().expect_err("a torn file");
            assert!(error.to_string().contains("cannot be used"), "{error}");
            assert_eq!(std::fs::read(&path).expect("a file"), &whole[..cut]);
        }
        std::fs::write(&path, "server { listen 80; }").expect("a file");
        let error = file.load().expect_err("a foreign file").to_string();
        assert!(error.contains("was not written by this version"), "{error}");
    }

    #[test]
    fn times_of_before_the_machine_was_restarted_are_not_evidence() {
        let seen = &example().evidence(55)[&7]["shop"];
        assert_eq!((seen.held_at_ns, seen.opened_at_ns), (Some(50), None));
        assert!(seen.expired);
    }

    fn example() -> State {
        let settings = ServiceSettings {
            hosts: vec!["shop.example.com".to_owned()],
            path_prefix: "/".to_owned(),
            blue: "127.0.0.1:8080".to_owned(),
            green: "unix:/run/shop.sock".to_owned(),
            request_timeout_ms: 30_000,
        };
        let hold = Some(Deadline {
            max_hold_ms: 2000,
            on_uncertain: OnUncertain::Shed,
        });
        let served = Some(Color::Blue);
        let seen = ServiceEvidence {
            held_at_ns: Some(50),
            opened_at_ns: Some(60),
            expired: true,
            ..ServiceEvidence::default()
        };
        let shop = ServiceState {
            settings,
            mode: Mode::Parked { served, hold },
            epoch: 7,
            opened: 6,
            cut_over: 7,
            evidence: Some(seen),
        };
        State {
            services: [("shop".to_owned(), shop)].into(),
        }
    }
}
