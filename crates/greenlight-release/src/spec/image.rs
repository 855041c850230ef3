//! How a release runs in a container, in Docker's words.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A container's image and settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSpec {
    /// The image as people write it, with its tag: `ghcr.io/acme/shop:1.4`.
    pub image: String,
    /// What the name stood for when the release was made: a manifest's digest, `sha256:…`, for
    /// an image of a registry, or the image's own id for one that is only on the instances.
    /// A name alone could stand for another image on every instance.
    pub pinned: Option<Pin>,
    /// What replaces the image's own command; `${PORT}` and `${VERSION}` are replaced.
    pub cmd: Option<Vec<String>>,
    /// The port that the application listens on inside its container.
    pub app_port: u16,
    /// The user that it runs as, `user` or `user:group`; the image's if none.
    pub user: Option<String>,
    /// Binds and named volumes, as in `docker run --volume`.
    pub volumes: Vec<String>,
    /// The user's own labels.
    pub labels: BTreeMap<String, String>,
    /// Networks it joins; the first is its own, the default bridge if none.
    pub networks: Vec<String>,
    /// The most memory it may use.
    pub memory: Option<Memory>,
    /// How much of the processors it may use.
    pub cpus: Option<Cpus>,
    /// Where its output goes; as the daemon is configured if none.
    pub logging: Option<LogOptions>,
    /// What Docker does when it ends.
    pub restart: Restart,
    /// A command that is run once in a deployment, in a container of its own.
    pub before_switch: Option<Vec<String>>,
    /// How many releases' images are kept on an instance.
    pub retain: u32,
}

impl ImageSpec {
    /// An image with no settings of its own.
    pub fn plain(image: &str, app_port: u16) -> Self {
        Self {
            image: image.to_owned(),
            pinned: None,
            cmd: None,
            app_port,
            user: None,
            volumes: Vec::new(),
            labels: BTreeMap::new(),
            networks: Vec::new(),
            memory: None,
            cpus: None,
            logging: None,
            restart: Restart::No,
            before_switch: None,
            retain: 1,
        }
    }

    /// The reference that Docker gets: exactly the image that the release was made of.
    pub fn reference(&self) -> String {
        match &self.pinned {
            Some(Pin::Manifest(digest)) => format!("{}@{digest}", repository(&self.image)),
            Some(Pin::Local(_)) | None => self.image.clone(),
        }
    }
}

impl fmt::Display for ImageSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.image)?;
        match &self.pinned {
            Some(Pin::Manifest(digest) | Pin::Local(digest)) if !self.image.contains('@') => {
                // Enough to tell two apart.
                let short: String = digest.chars().take("sha256:".len() + 12).collect();
                write!(f, " ({short})")
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// What an image's name stood for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pin {
    /// The digest of a manifest in its registry.
    Manifest(String),
    /// The id of an image that no registry is known to have.
    Local(String),
}

/// An image's name without tag and digest.
pub fn repository(image: &str) -> &str {
    let named = image.split_once('@').map_or(image, |(named, _)| named);
    match named.rsplit_once(':') {
        // A colon before a slash belongs to the registry's port.
        Some((repository, tag)) if !tag.contains('/') => repository,
        Some(_) | None => named,
    }
}

/// Whether a name contains a tag or a digest.
pub fn is_specific(image: &str) -> bool {
    image.len() > repository(image).len()
}

/// The registry that a name is about, as credentials name it.
pub fn registry(image: &str) -> &str {
    match repository(image).split_once('/') {
        // Docker's rule: a first part with a dot or a port, or `localhost`, is a host.
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        Some(_) | None => DOCKER_HUB,
    }
}

/// What Docker's own registry is called in credentials.
pub const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// An amount of memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Memory(pub u64);

/// A share of the processors, in billionths of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cpus(pub u64);

/// Where a container's output goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOptions {
    /// The log driver; the daemon's own if none.
    pub driver: Option<String>,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
}

/// What Docker does when the application ends. The agent starts a live application again in any
/// case, after a check; Docker does it also while no agent runs, and without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    #[default]
    No,
    /// Starts it again unless it ended well; at most so often, if a number is given.
    OnFailure(Option<u32>),
    /// Starts it again, also after a restart of the daemon.
    UnlessStopped,
    /// The same. A container that was stopped by hand comes back with the daemon.
    Always,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_docker_does_it() {
        for (image, repository_, registry_, specific) in [
            ("nginx", "nginx", DOCKER_HUB, false),
            ("nginx:1.27", "nginx", DOCKER_HUB, true),
            ("acme/shop", "acme/shop", DOCKER_HUB, false),
            ("ghcr.io/acme/shop", "ghcr.io/acme/shop", "ghcr.io", false),
            (
                "localhost:5000/shop",
                "localhost:5000/shop",
                "localhost:5000",
                false,
            ),
            (
                "localhost:5000/shop:2",
                "localhost:5000/shop",
                "localhost:5000",
                true,
            ),
            ("ghcr.io/a/b@sha256:0a", "ghcr.io/a/b", "ghcr.io", true),
            ("ghcr.io/a/b:1@sha256:0a", "ghcr.io/a/b", "ghcr.io", true),
        ] {
            assert_eq!(repository(image), repository_, "{image}");
            assert_eq!(registry(image), registry_, "{image}");
            assert_eq!(is_specific(image), specific, "{image}");
        }
    }
}
