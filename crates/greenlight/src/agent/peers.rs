//! Looking at peers before the barrier: is an instance ready for others, and not only for itself?
//!
//! Two things are asked of each peer, as anyone else would meet it. Its agent, over the network
//! and mutual TLS: does what you have prepared pass its check right now? And its front, on the
//! public address: do you take connections?

use crate::link::peer;
use futures_util::future::join_all;
use greenlight_protocol::{Epoch, InstanceId, Release, ServiceName};
use greenlight_release::spec::ServiceSpec;
use rustls::ClientConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// How long a peer may seem not to be ready; it may just be restarting.
const PEER_READY_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before looking again.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a front may take to accept.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// An instance's view of its peers.
#[derive(Clone)]
pub(super) struct Peers {
    /// Where their agents answer.
    pub(super) agents: BTreeMap<InstanceId, SocketAddr>,
    /// This agent's credentials.
    pub(super) tls: Arc<ClientConfig>,
}

/// What is checked.
struct PeerExpectation {
    epoch: Epoch,
    services: BTreeMap<ServiceName, ServiceSpec>,
}

impl Peers {
    /// Checks all of these until each is ready or its time is over. Returns those that were not
    /// ready, and why.
    pub(super) async fn check_all(
        &self,
        epoch: Epoch,
        peers: BTreeSet<InstanceId>,
        releases: BTreeMap<ServiceName, Release>,
    ) -> BTreeMap<InstanceId, String> {
        let services = releases.into_iter().filter_map(|(service, release)| {
            // This instance has prepared it, and so has read it.
            Some((service, ServiceSpec::from_release(&release).ok()?))
        });
        let expected = PeerExpectation {
            epoch,
            services: services.collect(),
        };
        let checks = peers.into_iter().map(async |peer| {
            let unseen = self.check(&peer, &expected).await.err()?;
            Some((peer, unseen))
        });
        join_all(checks).await.into_iter().flatten().collect()
    }

    async fn check(&self, peer: &InstanceId, expected: &PeerExpectation) -> Result<(), String> {
        let began = Instant::now();
        loop {
            match self.check_once(peer, expected).await {
                Ok(()) => return Ok(()),
                Err(reason) if began.elapsed() >= PEER_READY_TIMEOUT => return Err(reason),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn check_once(
        &self,
        peer: &InstanceId,
        expected: &PeerExpectation,
    ) -> Result<(), String> {
        let Some(address) = self.agents.get(peer).copied() else {
            return Err("this agent does not know its address (`--peers`)".to_owned());
        };
        let asked = peer::ask_readiness(address, peer, expected.epoch, self.tls.clone());
        let readiness = asked
            .await
            .map_err(|error| format!("its agent cannot be reached: {error}"))?;
        for service in expected.services.keys() {
            match readiness.get(service) {
                Some(Ok(_)) => {}
                Some(Err(answer)) => {
                    return Err(format!("the check of its `{service}` says: {answer}"));
                }
                None => return Err(format!("it has prepared no `{service}`")),
            }
        }
        let front = expected
            .services
            .values()
            .find_map(|spec| spec.fronts.get(peer));
        match front {
            Some(front) => knock(front).await,
            None => Ok(()),
        }
    }
}

/// Whether anything takes connections there. What it would answer does not matter: it may wait for
/// an application that this very deployment is to replace, and a first one has nothing to serve.
async fn knock(front: &str) -> Result<(), String> {
    let why = match tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(front)).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "nobody answers".to_owned(),
    };
    Err(format!("its front at {front} cannot be reached: {why}"))
}
