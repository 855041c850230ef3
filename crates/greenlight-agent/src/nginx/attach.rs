//! `greenlight attach nginx`: the one time that Nginx is reloaded for a gate.
//!
//! Compare, show, write, test, reload, send a request through Nginx. If any step fails, the earlier
//! files are restored.

use super::control::Nginx;
use super::dry_run::Copied;
use super::error::NginxError;
use super::include::{Include, IncludeError, Target, Upstream};
use super::marker::{Marker, MarkerError};
use super::reload::{NotReloaded, get, put, reload, restore};
use greenlight_admin::{GATE_PATH, GATE_RESPONSE};
use greenlight_release::nginx::{Label, NginxPath};
use hyper::StatusCode;
use std::path::{Path, PathBuf};

/// What is to be attached to which Nginx.
#[derive(Clone, Debug)]
pub struct Attachment {
    pub nginx: Nginx,
    /// The file that its `http` block includes.
    pub include: NginxPath,
    /// What the file is to say; its generation is found.
    pub wanted: Include,
}

/// One file that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    pub path: PathBuf,
    /// What is there.
    pub before: Option<String>,
    /// What will be.
    pub after: String,
}

/// What attaching found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The services whose location is included by no server of Nginx's yet, with the files to
    /// include.
    pub missing: Vec<(Label, PathBuf)>,
}

/// Why nothing was attached. The earlier files are in place.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error(transparent)]
    Nginx(#[from] NginxError),
    /// It reloaded and kept the old configuration.
    #[error(transparent)]
    Kept(#[from] NotReloaded),
    #[error(transparent)]
    Marker(#[from] MarkerError),
    /// The file belongs to somebody else.
    #[error("`{path}` is not changed: {source}", path = .path.display())]
    NotOurs { path: PathBuf, source: IncludeError },
    /// Nginx does not read it.
    #[error(
        "`{conf}` does not include `{include}`; add `include {include};` to its `http` block, or \
         name a file that it includes", conf = .conf.display()
    )]
    NotIncluded { conf: PathBuf, include: NginxPath },
    /// The live release would lose its port.
    #[error(
        "`{service}` is live on port {port}, which is none of its ports any more; keep its `ports` \
         while it runs"
    )]
    PortMoved {
        service: Label,
        /// Where it is.
        port: u16,
    },
    /// There is no gate to attach to.
    #[error("no gate answers at `{socket}` ({source}); start it, or name it with `--socket`")]
    GateAway {
        socket: NginxPath,
        /// The system's error.
        source: std::io::Error,
    },
    /// Nginx does not reach the gate.
    #[error(
        "nginx does not reach the gate at `{socket}` (it answers {status}); is `greenlight proxy` \
         running there, and may nginx's workers connect to it (`--socket-group`)?"
    )]
    NoGate {
        /// The gate's socket.
        socket: NginxPath,
        /// What Nginx answers instead.
        status: u16,
    },
}

impl FileChange {
    /// The change as `diff -u` shows it.
    pub fn diff(&self) -> String {
        let before = self.before.as_deref().unwrap_or_default();
        let shown = self.path.display().to_string();
        let old = match self.before {
            Some(_) => &shown,
            None => "/dev/null",
        };
        let diff = similar::TextDiff::from_lines(before, &self.after);
        diff.unified_diff().header(old, &shown).to_string()
    }
}

impl Attachment {
    /// What would change; nothing, if all is as it should be.
    pub fn changes(&self) -> Result<Vec<FileChange>, AttachError> {
        let mut changes = Vec::new();
        let path = self.include.as_path();
        let before = get(path)?;
        let after = self.merged(before.as_deref())?;
        for service in after.upstreams.keys() {
            let path = self.location(service);
            let text = after.render_location(service);
            let before = get(&path)?;
            if before.as_ref().is_some_and(|b| !Include::is_location(b)) {
                let source = IncludeError::Foreign;
                return Err(AttachError::NotOurs { path, source });
            }
            if before.as_ref() != Some(&text) {
                changes.push(FileChange {
                    path,
                    before,
                    after: text,
                });
            }
        }
        let text = after.render();
        if before.as_ref() != Some(&text) {
            changes.push(FileChange {
                path: path.to_owned(),
                before,
                after: text,
            });
        }
        Ok(changes)
    }

    /// The desired include; what is live stays as it is.
    fn merged(&self, before: Option<&str>) -> Result<Include, AttachError> {
        let mut wanted = self.wanted.clone();
        let Some(text) = before else {
            wanted.generation = 1;
            return Ok(wanted);
        };
        let there = Include::read(text).map_err(|source| AttachError::NotOurs {
            path: self.include.as_path().to_owned(),
            source,
        })?;
        for (service, upstream) in &mut wanted.upstreams {
            let (Upstream::Slots { blue, green, to }, Some(before)) =
                (upstream, there.upstreams.get(service))
            else {
                continue;
            };
            let Upstream::Slots {
                blue: old_blue,
                green: old_green,
                to: live,
            } = before
            else {
                continue;
            };
            let moved = match live {
                Target::Blue => (old_blue != blue).then_some(*old_blue),
                Target::Green => (old_green != green).then_some(*old_green),
                Target::Parked => None,
            };
            if let Some(port) = moved {
                let service = service.clone();
                return Err(AttachError::PortMoved { service, port });
            }
            *to = *live;
        }
        wanted.generation = there.generation;
        if wanted != there {
            wanted.generation += 1;
        }
        Ok(wanted)
    }

    /// Writes the changes, tests them, reloads Nginx once, and sends a request through it.
    pub async fn carry_out(&self, changes: &[FileChange]) -> Result<Attached, AttachError> {
        for upstream in self.wanted.upstreams.values() {
            if let Upstream::Gate(socket) = upstream {
                find_gate(socket).await?;
            }
        }
        if let Err(error) = self.attempt(changes).await {
            self.undo(changes, &error).await?;
            return Err(error);
        }
        Ok(Attached {
            missing: self.missing()?,
        })
    }

    async fn attempt(&self, changes: &[FileChange]) -> Result<(), AttachError> {
        self.nginx.master()?;
        let main = self.include.as_path();
        let (include, locations): (Vec<_>, Vec<_>) =
            changes.iter().partition(|change| change.path == main);
        // The test needs the location if a server includes it already.
        for change in locations {
            put(&change.path, &change.after)?;
        }
        let text = match include.first() {
            Some(change) => change.after.clone(),
            None => get(main)?.unwrap_or_default(),
        };
        if self.nginx.test_with(main, &text).await? == Copied::NotIncluded {
            return Err(AttachError::NotIncluded {
                conf: self.nginx.conf.clone(),
                include: self.include.clone(),
            });
        }
        let wanted = Include::read(&text).map_err(|source| AttachError::NotOurs {
            path: main.to_owned(),
            source,
        })?;
        let marker = Marker::new(wanted.verify_port);
        // Also when a crash came between the writing and the reload.
        if !changes.is_empty() || marker.ask().await != Ok(wanted.marker()) {
            put(main, &text)?;
            self.nginx.test().await?;
            reload(&self.nginx, marker, &wanted.marker()).await??;
        }
        ask_through(&wanted, marker).await
    }

    /// Brings back the files, and Nginx to them if it may have read others.
    async fn undo(&self, changes: &[FileChange], error: &AttachError) -> Result<(), AttachError> {
        for change in changes.iter().rev() {
            restore(&change.path, change.before.as_deref())?;
        }
        match error {
            AttachError::Kept(_) | AttachError::NoGate { .. } | AttachError::Marker(_) => {}
            AttachError::Nginx(_)
            | AttachError::NotOurs { .. }
            | AttachError::NotIncluded { .. }
            | AttachError::PortMoved { .. }
            | AttachError::GateAway { .. } => return Ok(()),
        }
        let before = get(self.include.as_path())?;
        match before.as_deref().map(Include::read) {
            Some(Ok(before)) => {
                let marker = Marker::new(before.verify_port);
                reload(&self.nginx, marker, &before.marker()).await??;
            }
            Some(Err(_)) | None => self.nginx.reload()?,
        }
        Ok(())
    }

    /// The locations that nothing includes.
    fn missing(&self) -> Result<Vec<(Label, PathBuf)>, AttachError> {
        let services = self.wanted.upstreams.keys();
        let mut missing = Vec::new();
        for service in services {
            let path = self.location(service);
            if !self.nginx.reads(&path)? {
                missing.push((service.clone(), path));
            }
        }
        Ok(missing)
    }

    /// The file to include in the location of a service: beside the include.
    fn location(&self, service: &Label) -> PathBuf {
        let folder = self.include.as_path().parent().unwrap_or(Path::new("/"));
        folder.join(format!("greenlight_{service}.location"))
    }
}

/// Nginx must not be connected to a gate that does not exist.
async fn find_gate(socket: &NginxPath) -> Result<(), AttachError> {
    let found = tokio::net::UnixStream::connect(socket.as_path()).await;
    found.map(drop).map_err(|source| AttachError::GateAway {
        socket: socket.clone(),
        source,
    })
}

/// G3: Nginx counts as attached only after a request through it has reached each gate.
async fn ask_through(include: &Include, marker: Marker) -> Result<(), AttachError> {
    for (service, upstream) in &include.upstreams {
        let Upstream::Gate(socket) = upstream else {
            continue;
        };
        let path = format!("{GATE_PATH}/{service}");
        let (status, text) = marker.get(&path).await?;
        if status != StatusCode::OK || text != GATE_RESPONSE {
            return Err(AttachError::NoGate {
                socket: socket.clone(),
                status: status.as_u16(),
            });
        }
    }
    Ok(())
}
