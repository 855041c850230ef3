//! `greenlight demo`: the main job, on this machine, under load, with the receipts to prove it.

mod report;

pub use report::{DemoReport, DeploymentReport};

use crate::api::{CommandAnswer, DeployRequest, FleetStatus, Happening, RollbackRequest};
use crate::clock::monotonic_ns;
use crate::fleet::{FleetError, LocalFleet, LocalInstance, free_address};
use crate::health::HealthCheck;
use crate::link::{ApiClient, ApiError, Follow};
use crate::load::{Flip, Load, Segment};
use crate::receipt::Receipt;
use crate::spec::{PortPair, ServiceSpec};
use greenlight_protocol::coordinator::Promotion;
use greenlight_protocol::{InstanceId, Policy, ServiceName, Strategy};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Requests a second to each instance: enough to see a window of a few milliseconds.
const RATE: u32 = 400;
/// Every so many requests come over a new connection.
const FRESH: u64 = 10;
/// How long the load runs before and after each deployment.
const AROUND: Duration = Duration::from_millis(400);
/// How long the fleet may take to come up.
const COME_UP: Duration = Duration::from_secs(20);
const SERVICE: &str = "sample";

/// What the demo can be told.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// How late the control messages of the second instance are.
    pub late: Duration,
    /// Where to keep the state; a temporary folder if none.
    pub keep: Option<PathBuf>,
}

/// Why the demo could not run.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The fleet.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The server.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Files, addresses or threads.
    #[error("the demo cannot run: {0}")]
    Io(#[from] std::io::Error),
    /// The fleet did not come up.
    #[error("the fleet did not come up within {} s; its logs are in `{}`", COME_UP.as_secs(), .0.display())]
    NotUp(PathBuf),
}

/// Runs the demo. `say` is given a line for a person now and then.
pub async fn run(options: DemoOptions, say: impl Fn(&str) + Copy) -> Result<DemoReport, DemoError> {
    let dir = options.keep.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("greenlight-demo-{}", std::process::id()))
    });
    let mut instances = Vec::new();
    let mut ports = BTreeMap::new();
    for (name, late) in [("a", Duration::ZERO), ("b", options.late)] {
        let name = InstanceId::from(name);
        let pair = PortPair {
            blue: free_address()?.port(),
            green: free_address()?.port(),
        };
        ports.insert(name.clone(), pair);
        let listen = free_address()?;
        instances.push(LocalInstance { name, listen, late });
    }
    let fleet = LocalFleet::start(&dir, instances, None)?;
    let result = Demo::new(&fleet, ports)?.perform(&options, &dir, say).await;
    fleet.stop().await;
    if options.keep.is_none() && result.is_ok() {
        // A temporary folder that cannot be removed does no harm.
        let _ = std::fs::remove_dir_all(&dir);
    }
    result
}

struct Demo {
    api: ApiClient,
    ports: BTreeMap<InstanceId, PortPair>,
    targets: Vec<SocketAddr>,
}

/// A deployment as it was seen from here.
struct Seen {
    title: &'static str,
    from_ns: u64,
    until_ns: u64,
    receipt: Receipt,
}

impl Demo {
    fn new(fleet: &LocalFleet, ports: BTreeMap<InstanceId, PortPair>) -> Result<Self, DemoError> {
        Ok(Self {
            api: ApiClient::from_dir(&fleet.operator_dir())?,
            ports,
            targets: fleet.instances().iter().map(|i| i.listen).collect(),
        })
    }

    async fn perform(
        &self,
        options: &DemoOptions,
        dir: &std::path::Path,
        say: impl Fn(&str) + Copy,
    ) -> Result<DemoReport, DemoError> {
        self.wait_until_up(dir).await?;
        say("two instances are up; release v1 is put in place");
        self.deploy("first", "v1", &[], say).await?;
        let load = Load::start(self.targets.clone(), RATE, FRESH)?;
        say("load: GET through both public ports");
        let mut seen = Vec::new();
        say("\n(a) a good release");
        seen.push(self.deploy("a good release", "v2", &[], say).await?);
        say("\n(b) a release that fails its check on one instance");
        let fails = [("FAIL_CHECK_ON", "b")];
        let title = "fails its check on one instance";
        seen.push(self.deploy(title, "v3", &fails, say).await?);
        say("\n(c) a release that dies right after the cut-over");
        let dies = [("DIE_AFTER_MS", "200")];
        let title = "dies right after the cut-over";
        seen.push(self.deploy(title, "v4", &dies, say).await?);
        say("\n(d) another good release, and then back from it, warm");
        seen.push(self.deploy("another good release", "v5", &[], say).await?);
        seen.push(self.rollback("a warm rollback", say).await?);
        let samples = load.stop();
        let mut deployments = Vec::new();
        for seen in &seen {
            let segment = Segment {
                from_ns: seen.from_ns,
                until_ns: seen.until_ns,
            };
            let flips = flips(&seen.receipt);
            let window = crate::load::analyse(&samples, segment, &flips);
            deployments.push(DeploymentReport::new(seen.title, &seen.receipt, window));
        }
        Ok(DemoReport::new(options.late, deployments))
    }

    async fn wait_until_up(&self, dir: &std::path::Path) -> Result<(), DemoError> {
        let deadline = std::time::Instant::now() + COME_UP;
        while std::time::Instant::now() < deadline {
            let status: Result<FleetStatus, _> = self.api.get("/v1/status").await;
            if status.is_ok_and(|s| s.instances.values().all(Option::is_some)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(DemoError::NotUp(dir.join("run")))
    }

    async fn deploy(
        &self,
        title: &'static str,
        version: &str,
        env: &[(&str, &str)],
        say: impl Fn(&str) + Copy,
    ) -> Result<Seen, DemoError> {
        let program = std::env::current_exe()?.display().to_string();
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let spec = ServiceSpec {
            command: vec![program, "sample-app".to_owned()],
            env: env
                .chain([("STARTUP_MS".to_owned(), "200".to_owned())])
                .collect(),
            working_dir: None,
            health: HealthCheck::default(),
            hosts: Vec::new(),
            path_prefix: "/".to_owned(),
            request_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(5),
            ports: self.ports.clone(),
        };
        let request = DeployRequest {
            by: "the demo".to_owned(),
            releases: [(ServiceName::from(SERVICE), spec.seal(version))].into(),
            strategy: Strategy::BlueGreen,
            policy: policy(),
            promotion: Promotion::Automatic,
        };
        tokio::time::sleep(AROUND).await;
        let from_ns = monotonic_ns();
        let answer: CommandAnswer = self.api.post("/v1/deployments", &request).await?;
        self.finish(title, &answer, from_ns, say).await
    }

    async fn rollback(
        &self,
        title: &'static str,
        say: impl Fn(&str) + Copy,
    ) -> Result<Seen, DemoError> {
        let request = RollbackRequest {
            by: "the demo".to_owned(),
            version: None,
            policy: policy(),
        };
        tokio::time::sleep(AROUND).await;
        let from_ns = monotonic_ns();
        let answer: CommandAnswer = self.api.post("/v1/rollback", &request).await?;
        self.finish(title, &answer, from_ns, say).await
    }

    async fn finish(
        &self,
        title: &'static str,
        answer: &CommandAnswer,
        from_ns: u64,
        say: impl Fn(&str) + Copy,
    ) -> Result<Seen, DemoError> {
        let following = self.api.follow(|progress| {
            if progress.deployment != answer.deployment {
                return Follow::On;
            }
            say(&format!(
                "    {}",
                crate::cli::progress::line(&progress.what)
            ));
            match progress.what {
                Happening::Finished { .. } => Follow::Enough,
                Happening::Phase { .. } | Happening::Instance { .. } => Follow::On,
            }
        });
        following.await?;
        tokio::time::sleep(AROUND).await;
        let path = format!("/v1/deployments/{}", answer.deployment);
        Ok(Seen {
            title,
            from_ns,
            until_ns: monotonic_ns(),
            receipt: self.api.get(&path).await?,
        })
    }
}

/// The changes of release that a receipt tells of, in order.
fn flips(receipt: &Receipt) -> Vec<Flip> {
    let service = ServiceName::from(SERVICE);
    let name =
        |names: &BTreeMap<ServiceName, String>| names.get(&service).cloned().unwrap_or_default();
    let (new, old) = (name(&receipt.releases), name(&receipt.previous));
    let committed = receipt.cut_overs.iter().filter_map(|cut_over| {
        let decided_ns = cut_over.committed_ns?;
        let (old, new) = match cut_over.direction {
            greenlight_protocol::Direction::Forward => (old.clone(), new.clone()),
            greenlight_protocol::Direction::Back => (new.clone(), old.clone()),
        };
        Some(Flip {
            old,
            new,
            decided_ns,
        })
    });
    committed.collect()
}

/// Short enough for a minute, long enough to see something go wrong.
fn policy() -> Policy {
    Policy {
        prepare: Duration::from_secs(4),
        watch: Duration::from_secs(2),
        ..Policy::default()
    }
}
