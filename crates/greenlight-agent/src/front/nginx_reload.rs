//! Nginx straight before the two slots, rewritten and reloaded at each cut-over: aligned with the
//! other instances, not gated.
//!
//! ```text
//!   define   the configuration with the service at its other slot passes `nginx -t`, on a copy
//!   hold     acknowledged at once, if Nginx serves what its file says: it cannot hold
//!   open     write, reload, until only new workers accept; or put the old file back and say so
//!   park     write, reload: Nginx itself answers 503, because it cannot keep requests
//!   drain    until no connection to the slot is left
//! ```
//!
//! What it cannot do, and so does not claim: G1, because old and new workers accept side by side
//! for about 100 ms; and all of G3, because a reload closes kept connections, also those that a
//! client is just using. G4 it keeps: a release that died gets nothing until its check passes.
//!
//! The file is the state, on disk as in the workers. A reload that Nginx silently refused leaves
//! no trace in the file either, so that its next start brings no surprise.

use super::{Acted, Front, FrontError, SlotAddresses};
use crate::nginx::{
    Copied, Include, Marker, Nginx, NginxError, NotReloaded, Target, Upstream, get, put, reload,
};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use greenlight_protocol::policy::Exclusive;
use greenlight_protocol::{
    AlignedEvidence, Alignment, DrainEvidence, Epoch, GateAction, GateEvidence, HoldEvidence,
    ServiceName, Slot, SwitchEvidence,
};
use greenlight_release::nginx::{Label, NginxPath};
use greenlight_release::ports::PortPair;
use greenlight_release::spec::ServiceSpec;
use greenlight_shell::clock::monotonic_ns;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// The pause between two counts of the connections of a slot.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// An Nginx that is reloaded.
#[derive(Clone, Debug)]
pub struct NginxReloadFront {
    nginx: Nginx,
    include: NginxPath,
    /// One change at a time.
    changing: Arc<Mutex<()>>,
}

impl NginxReloadFront {
    /// The Nginx that includes `include`, as `greenlight attach nginx` wrote it.
    pub fn new(nginx: Nginx, include: NginxPath) -> Self {
        Self {
            nginx,
            include,
            changing: Arc::default(),
        }
    }

    /// What the file says, which is also what the workers serve if nothing went wrong.
    fn written(&self) -> Result<Include, FrontError> {
        let path = self.include.as_path();
        let text = get(path)?.ok_or_else(|| {
            FrontError::Refused(format!(
                "`{}` is not there; run `greenlight attach nginx`",
                self.include
            ))
        })?;
        Include::read(&text)
            .map_err(|error| FrontError::Refused(format!("`{}`: {error}", self.include)))
    }

    async fn rehearse(&self, service: &ServiceName, ports: PortPair) -> Result<(), FrontError> {
        let _changing = self.changing.lock().await;
        let written = self.written()?;
        self.nginx.master()?;
        let marker = Marker::new(written.verify_port);
        marker.ask().await.map_err(refused)?;
        let label = Label::new(&service.0).map_err(refused)?;
        let there = match written.upstreams.get(&label) {
            Some(Upstream::Slots { blue, green, to })
                if (*blue, *green) == (ports.blue, ports.green) =>
            {
                *to
            }
            Some(Upstream::Slots { .. } | Upstream::Gate(_)) | None => {
                return Err(FrontError::Refused(format!(
                    "`{}` does not send `{service}` to ports {} and {}; run `greenlight attach \
                     nginx` again",
                    self.include, ports.blue, ports.green
                )));
            }
        };
        let other = match there {
            Target::Blue => Target::Green,
            Target::Green | Target::Parked => Target::Blue,
        };
        let text = directed(&written, &[(label, other)].into())?.render();
        match self.nginx.test_with(self.include.as_path(), &text).await? {
            Copied::Included => Ok(()),
            Copied::NotIncluded => Err(FrontError::Refused(format!(
                "`{}` does not include `{}`; run `greenlight attach nginx`",
                self.nginx.conf.display(),
                self.include
            ))),
        }
    }

    /// It cannot hold. It can say whether it is as it should be before the decision.
    async fn hold(&self, exclusive: Exclusive) -> Result<Acted, FrontError> {
        if exclusive == Exclusive::Yes {
            let text = "`exclusive` needs a gate, and `front: nginx_reload` has none; use \
                        `front: nginx`";
            return Err(FrontError::Refused(text.to_owned()));
        }
        let _changing = self.changing.lock().await;
        let written = self.written()?;
        self.nginx.master()?;
        let serves = Marker::new(written.verify_port)
            .ask()
            .await
            .map_err(refused)?;
        if serves != written.marker() {
            return Err(FrontError::Refused(format!(
                "nginx serves `{serves}` and its file says `{}`; reload it",
                written.marker()
            )));
        }
        Ok(Acted::Held(HoldEvidence {
            held_at_ns: monotonic_ns(),
            alignment: Alignment::Aligned,
            ..HoldEvidence::default()
        }))
    }

    /// Brings Nginx to these targets, or back to what it was.
    async fn direct(
        &self,
        targets: BTreeMap<Label, Target>,
    ) -> Result<Option<AlignedEvidence>, FrontError> {
        let _changing = self.changing.lock().await;
        let written = self.written()?;
        self.nginx.master()?;
        let marker = Marker::new(written.verify_port);
        let mut wanted = directed(&written, &targets)?;
        let serves = marker.ask().await;
        if wanted == written && serves.as_ref() == Ok(&written.marker()) {
            return Ok(None);
        }
        // A reload that came too late to be seen may have used the number after the file's.
        let served = serves.ok().and_then(|marker| generation(&marker));
        wanted.generation = written.generation.max(served.unwrap_or(0)) + 1;
        let path = self.include.as_path();
        put(path, &wanted.render())?;
        let verified = reload(&self.nginx, marker, &wanted.marker()).await;
        match verified {
            Ok(Ok(seen)) => {
                let now = monotonic_ns();
                let ago = |at: u64| now.saturating_sub(at) / 1000;
                // Nginx's own 503 is no answer of an old release.
                let served = |to: &Upstream| {
                    !matches!(
                        to,
                        Upstream::Gate(_)
                            | Upstream::Slots {
                                to: Target::Parked,
                                ..
                            }
                    )
                };
                let had_old = targets
                    .keys()
                    .any(|s| written.upstreams.get(s).is_some_and(served));
                Ok(Some(AlignedEvidence {
                    new_for_us: ago(seen.first_new_ns),
                    old_for_us: seen.last_old_ns.filter(|_| had_old).map(ago),
                }))
            }
            Ok(Err(silence)) => Err(self.undo(&written, silence).await),
            Err(error) => {
                put(path, &written.render())?;
                Err(error.into())
            }
        }
    }

    /// Nginx has not accepted the file: restores the old one, and tests the new one for the reason.
    async fn undo(&self, written: &Include, silence: NotReloaded) -> FrontError {
        let tested = self.nginx.test().await;
        let mut reason = silence.to_string();
        if let Err(error) = tested {
            reason = format!("{reason}: {error}");
        }
        let put_back = put(self.include.as_path(), &written.render());
        let told = match (put_back, silence.mixed) {
            (Ok(()), true) => self.nginx.reload(),
            (Ok(()), false) => Ok(()),
            (Err(error), _) => Err(error),
        };
        if let Err(error) = told {
            reason = format!("{reason}; and it could not be put back: {error}");
        }
        FrontError::NotSwitched(reason)
    }
}

impl Front for NginxReloadFront {
    fn define<'a>(
        &'a self,
        service: &'a ServiceName,
        _: &'a ServiceSpec,
        addresses: SlotAddresses,
    ) -> BoxFuture<'a, Result<(), FrontError>> {
        self.rehearse(service, addresses.ports).boxed()
    }

    fn act(&self, action: GateAction) -> BoxFuture<'static, Result<Acted, FrontError>> {
        let front = self.clone();
        async move {
            match action {
                GateAction::Hold { exclusive, .. } => front.hold(exclusive).await,
                GateAction::Open { colors, .. } => {
                    let targets = colors.into_iter().map(|(service, color)| {
                        let target = color.map_or(Target::Parked, Target::from);
                        Ok((label(&service)?, target))
                    });
                    let targets = targets.collect::<Result<_, FrontError>>()?;
                    let aligned = front.direct(targets).await?;
                    Ok(Acted::Opened(SwitchEvidence {
                        opened_at_ns: monotonic_ns(),
                        released: 0,
                        aligned: Some(aligned.unwrap_or_default()),
                    }))
                }
                GateAction::Park { services, .. } => {
                    let targets = services
                        .into_iter()
                        .map(|service| Ok((label(&service)?, Target::Parked)));
                    let targets = targets.collect::<Result<_, FrontError>>()?;
                    front.direct(targets).await?;
                    Ok(Acted::Parked)
                }
            }
        }
        .boxed()
    }

    fn drain(
        &self,
        slot: Slot,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<DrainEvidence, FrontError>> {
        let front = self.clone();
        async move {
            let label = label(&slot.service)?;
            let written = front.written()?;
            let Some(Upstream::Slots { blue, green, .. }) = written.upstreams.get(&label) else {
                return Ok(DrainEvidence::default());
            };
            let ports = PortPair {
                blue: *blue,
                green: *green,
            };
            let port = ports.of(slot.color);
            let deadline = Instant::now() + deadline;
            loop {
                let left = connections_to(port)?;
                if left == 0 || Instant::now() >= deadline {
                    // What they carry, Nginx alone knows.
                    return Ok(DrainEvidence {
                        requests: left,
                        ..DrainEvidence::default()
                    });
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        .boxed()
    }

    /// It counts nothing: what it saw travels with `Switched`.
    fn evidence(&self, _: Epoch) -> BoxFuture<'static, Result<GateEvidence, FrontError>> {
        async { Ok(GateEvidence::default()) }.boxed()
    }

    fn incarnation(&self) -> BoxFuture<'static, Result<u64, FrontError>> {
        let master = self.nginx.master();
        async move { Ok(master?.incarnation()) }.boxed()
    }
}

impl From<NginxError> for FrontError {
    fn from(error: NginxError) -> Self {
        match error {
            NginxError::NotRunning { .. } => Self::Unreachable(error.to_string()),
            NginxError::NotRun { .. }
            | NginxError::TestTooLong
            | NginxError::Refused(_)
            | NginxError::NotTold { .. }
            | NginxError::Files { .. } => Self::Refused(error.to_string()),
        }
    }
}

fn refused(error: impl std::fmt::Display) -> FrontError {
    FrontError::Refused(error.to_string())
}

fn label(service: &ServiceName) -> Result<Label, FrontError> {
    Label::new(&service.0).map_err(refused)
}

/// The include with some of its services elsewhere.
fn directed(include: &Include, targets: &BTreeMap<Label, Target>) -> Result<Include, FrontError> {
    let mut directed = include.clone();
    for (service, target) in targets {
        match directed.upstreams.get_mut(service) {
            Some(Upstream::Slots { to, .. }) => *to = *target,
            // A service that was removed, from the fleet and from the file.
            None if *target == Target::Parked => {}
            Some(Upstream::Gate(_)) | None => {
                return Err(FrontError::Refused(format!(
                    "nginx has no slots for `{service}`; run `greenlight attach nginx` again"
                )));
            }
        }
    }
    Ok(directed)
}

fn generation(marker: &str) -> Option<u64> {
    marker.split(' ').next()?.parse().ok()
}

/// Established connections of this machine to a loopback port.
fn connections_to(port: u16) -> Result<u64, FrontError> {
    const TABLE: &str = "/proc/net/tcp";
    let table = std::fs::read_to_string(TABLE)
        .map_err(|error| FrontError::Refused(format!("`{TABLE}`: {error}")))?;
    // Column 2 is the other side as `address:port`, column 3 the state; 01 is established.
    let remote = format!("0100007F:{port:04X}");
    let to_port = table.lines().filter(|line| {
        let mut columns = line.split_whitespace().skip(2);
        columns.next() == Some(remote.as_str()) && columns.next() == Some("01")
    });
    Ok(to_port.count() as u64)
}
