//! Which images releases used here, so that only those are ever pruned.

use greenlight_protocol::ServiceName;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// An image that a release used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Used {
    /// The service of the release.
    pub(super) service: ServiceName,
    pub(super) digest: String,
    /// What Docker was asked for.
    pub(super) reference: String,
    /// What that was.
    pub(super) id: String,
    /// How many releases' images the release wants kept, its own included.
    pub(super) retain: u32,
}

/// The images that releases used here, the latest use last.
#[derive(Debug)]
pub(super) struct Recorded {
    path: PathBuf,
    used: Vec<Used>,
}

impl Recorded {
    /// Reads the file. One that cannot be read costs nothing but that old images stay.
    pub(super) fn open(path: PathBuf) -> Self {
        let used = std::fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self { path, used }
    }

    /// Records a use.
    pub(super) fn note(&mut self, used: Used) {
        self.used.retain(|known| !known.is_same(&used));
        self.used.push(used);
        self.keep();
    }

    /// What is beyond the last releases of a service, oldest first, and used by no release kept.
    pub(super) fn surplus(&self, service: &ServiceName) -> Vec<Used> {
        let own = || self.used.iter().filter(|used| used.service == *service);
        let retain = own().next_back().map_or(0, |latest| latest.retain);
        let retain = usize::try_from(retain).unwrap_or(usize::MAX);
        let count = own().count();
        let surplus = own().take(count.saturating_sub(retain));
        let kept: Vec<_> = own()
            .skip(count.saturating_sub(retain))
            .chain(self.used.iter().filter(|used| used.service != *service))
            .collect();
        surplus
            .filter(|used| kept.iter().all(|kept| kept.id != used.id))
            .cloned()
            .collect()
    }

    /// Forgets an image that is gone.
    pub(super) fn forget(&mut self, used: &Used) {
        self.used.retain(|known| !known.is_same(used));
        self.keep();
    }

    fn keep(&self) {
        let next = self.path.with_extension("next");
        let kept = serde_json::to_vec(&self.used)
            .map_err(std::io::Error::other)
            .and_then(|bytes| std::fs::write(&next, bytes))
            .and_then(|()| std::fs::rename(&next, &self.path));
        if let Err(error) = kept {
            tracing::warn!(%error, "the images in use could not be recorded");
        }
    }
}

impl Used {
    fn is_same(&self, other: &Self) -> bool {
        self.service == other.service && self.digest == other.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_releases_are_kept_and_what_is_older_is_surplus() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut recorded = Recorded::open(dir.path().join("images.json"));
        for number in 1..=5 {
            recorded.note(used("shop", number, number));
        }

        let surplus = recorded.surplus(&"shop".into());

        assert_eq!(surplus, [used("shop", 1, 1), used("shop", 2, 2)]);
        assert_eq!(
            Recorded::open(dir.path().join("images.json")).used,
            recorded.used
        );
    }

    #[test]
    fn an_image_that_a_kept_release_or_another_service_uses_is_no_surplus() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut recorded = Recorded::open(dir.path().join("images.json"));
        recorded.note(used("blog", 1, 2));
        for (release, image) in [(1, 1), (2, 2), (3, 1), (4, 4), (5, 5)] {
            recorded.note(used("shop", release, image));
        }

        assert!(recorded.surplus(&"shop".into()).is_empty());
    }

    #[test]
    fn a_release_that_is_used_again_counts_as_the_latest() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut recorded = Recorded::open(dir.path().join("images.json"));
        for release in [1, 2, 3, 4, 1] {
            recorded.note(used("shop", release, release));
        }

        assert_eq!(recorded.surplus(&"shop".into()), [used("shop", 2, 2)]);
        recorded.forget(&used("shop", 2, 2));
        assert!(recorded.surplus(&"shop".into()).is_empty());
    }

    fn used(service: &str, release: u32, image: u32) -> Used {
        Used {
            service: service.into(),
            digest: format!("release {release}"),
            reference: format!("{service}:{image}"),
            id: format!("sha256:{image}"),
            retain: 3,
        }
    }
}
