//! Where an instance keeps the secret values of its releases: one file a release, for its user
//! only, written whole and synced before it counts.
//!
//! Values are here before the deployment is accepted, and go when no release needs them. An agent
//! that restarts, a rollback and a restart of the application all find them here; the server
//! keeps none.

use greenlight_protocol::{Release, ServiceName};
use greenlight_release::secret::Secrets;
use greenlight_release::spec::ServiceSpec;
use greenlight_shell::atomic_file::write_atomically;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How many releases of a service keep their secrets although nothing of them runs.
const RELEASES_KEPT: usize = 5;
/// How long secrets may wait for their deployment to begin.
const JUST_CAME: Duration = Duration::from_hours(1);

/// Why secrets cannot be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum SecretStoreError {
    /// A file cannot be used.
    #[error("the file `{path}` with secrets cannot be used: {source}")]
    File {
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The release's values are not here.
    #[error(
        "the values of {names} are not on this instance; it joined after release `{version}` was \
         deployed, or lost its files: deploy the release again"
    )]
    Missing {
        /// The secrets' names.
        names: String,
        /// The release's version.
        version: String,
    },
}

/// The secrets of an instance.
#[derive(Clone, Debug)]
pub struct SecretStore {
    dir: PathBuf,
}

impl SecretStore {
    /// Keeps secrets in `dir`, which is made when it is needed.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Stores the secrets of a release. When this returns, they are on disk.
    pub fn store(
        &self,
        service: &ServiceName,
        digest: &str,
        secrets: &Secrets,
    ) -> Result<(), SecretStoreError> {
        let path = self.path(service, digest);
        self.write(&path, secrets)
            .map_err(|source| SecretStoreError::File { path, source })
    }

    fn write(&self, path: &Path, secrets: &Secrets) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        write_atomically(path, 0o600, &serde_json::to_vec(secrets)?)
    }

    /// The secrets of a release, as its settings name them.
    pub fn of(
        &self,
        service: &ServiceName,
        release: &Release,
        spec: &ServiceSpec,
    ) -> Result<Secrets, SecretStoreError> {
        let path = self.path(service, &release.digest);
        let secrets = match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| SecretStoreError::File {
                    path,
                    source: error.into(),
                })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Secrets::default(),
            Err(source) => return Err(SecretStoreError::File { path, source }),
        };
        let missing = spec.secrets.keys();
        let missing = missing.filter(|name| !secrets.env.contains_key(*name));
        let names: Vec<_> = missing.map(|name| format!("`{name}`")).collect();
        match names.is_empty() {
            true => Ok(secrets),
            false => Err(SecretStoreError::Missing {
                names: names.join(", "),
                version: release.version.clone(),
            }),
        }
    }

    /// Removes the secrets of releases that are not `needed`, but for the latest of each service,
    /// to which a rollback may go, and those that came a moment ago, whose deployment is about to
    /// begin.
    pub fn forget_old(&self, needed: &BTreeSet<String>) {
        self.forget_older(needed, JUST_CAME, RELEASES_KEPT);
    }

    fn forget_older(&self, needed: &BTreeSet<String>, just_came: Duration, releases_kept: usize) {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return;
        };
        let mut by_service: BTreeMap<String, Vec<(SystemTime, PathBuf)>> = BTreeMap::new();
        for entry in entries.flatten() {
            let path = entry.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            // A service's name has no dot, and neither has a digest.
            let Some((service, digest)) = stem.and_then(|stem| stem.split_once('.')) else {
                continue;
            };
            let came = entry.metadata().and_then(|about| about.modified());
            let came = came.unwrap_or(SystemTime::UNIX_EPOCH);
            if !needed.contains(digest) {
                let known = by_service.entry(service.to_owned()).or_default();
                known.push((came, path));
            }
        }
        for mut known in by_service.into_values() {
            known.sort();
            known.truncate(known.len().saturating_sub(releases_kept));
            for (came, path) in known {
                if came.elapsed().is_ok_and(|age| age >= just_came)
                    && let Err(error) = fs::remove_file(&path)
                {
                    tracing::warn!(%error, path = %path.display(), "secrets are not removed");
                }
            }
        }
    }

    fn path(&self, service: &ServiceName, digest: &str) -> PathBuf {
        self.dir.join(format!("{service}.{digest}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use greenlight_link::FingerprintKey;
    use greenlight_release::health::HealthCheck;
    use greenlight_release::secret::SecretValue;
    use greenlight_release::spec::Artifact;
    use std::fs::File;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_is_kept_is_found_and_nobody_else_may_read_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = SecretStore::new(dir.path().join("secrets"));
        let (spec, release) = release("one");

        let stored = store.store(&"shop".into(), &release.digest, &secrets("one"));

        stored.expect("a good disk");
        let found = store.of(&"shop".into(), &release, &spec);
        assert_eq!(found.expect("kept"), secrets("one"));
        let mode = |path: &Path| {
            fs::metadata(path)
                .expect("it is there")
                .permissions()
                .mode()
        };
        let file = store.path(&"shop".into(), &release.digest);
        assert_eq!(mode(&file) & 0o777, 0o600);
        assert_eq!(mode(&dir.path().join("secrets")) & 0o777, 0o700);
    }

    #[test]
    fn a_release_whose_secrets_are_not_here_is_refused_by_their_names() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = SecretStore::new(dir.path());
        let (spec, release) = release("one");

        let error = store.of(&"shop".into(), &release, &spec);

        let error = error.expect_err("it is not here").to_string();
        assert!(
            error.contains("`TOKEN`") && error.contains("`one`"),
            "{error}"
        );
    }

    #[test]
    fn old_secrets_go_and_those_still_needed_or_lately_used_stay() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = SecretStore::new(dir.path());
        let long_ago = SystemTime::now() - Duration::from_hours(10);
        for (age, digest) in ["d1", "d2", "d3", "d4", "d5"].into_iter().enumerate() {
            let stored = store.store(&"shop".into(), digest, &secrets(digest));
            stored.expect("a good disk");
            let file = File::open(store.path(&"shop".into(), digest)).expect("it is there");
            let came = long_ago + Duration::from_mins(u64::try_from(age).expect("few"));
            file.set_modified(came).expect("the file is ours");
        }
        let just_came = store.store(&"blog".into(), "d6", &secrets("d6"));
        just_came.expect("a good disk");

        store.forget_older(&["d1".to_owned()].into(), Duration::from_hours(1), 2);

        let there = |service: &str, digest| store.path(&service.into(), digest).exists();
        assert!(there("shop", "d1"), "it is needed");
        assert!(!there("shop", "d2") && !there("shop", "d3"));
        assert!(
            there("shop", "d4") && there("shop", "d5"),
            "a rollback may want them"
        );
        store.forget_older(&BTreeSet::new(), Duration::from_hours(1), 0);
        assert!(there("blog", "d6"), "its deployment is about to begin");
        assert!(!there("shop", "d5"));
    }

    fn release(version: &str) -> (ServiceSpec, Release) {
        let key = FingerprintKey::generate().expect("randomness");
        let fingerprint = key.fingerprint("TOKEN", &SecretValue::new(version));
        let spec = ServiceSpec {
            artifact: Artifact::command(vec!["shop".to_owned()]),
            env: BTreeMap::new(),
            secrets: [("TOKEN".to_owned(), fingerprint)].into(),
            health: HealthCheck::default(),
            hosts: Vec::new(),
            path_prefix: "/".to_owned(),
            request_timeout: Duration::from_secs(1),
            stop_timeout: Duration::from_secs(1),
        };
        let release = spec.to_release(version);
        (spec, release)
    }

    fn secrets(value: &str) -> Secrets {
        Secrets {
            env: [("TOKEN".to_owned(), SecretValue::new(value))].into(),
            registry: None,
        }
    }
}
