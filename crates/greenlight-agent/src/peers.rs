//! Looking at peers before the barrier: is an instance ready for others, and not only for itself?
//!
//! Two things are asked of each peer, as anyone else would meet it. Its agent, over the network
//! and mutual TLS: does what you have prepared pass its check right now? And its front, on the
//! public address: do you take connections?

use futures_util::future::join_all;
use greenlight_link::peer::{self, CheckAnswer, ReadinessError};
use greenlight_protocol::{Epoch, InstanceId, Release, ServiceName};
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
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

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
    services: BTreeSet<ServiceName>,
}

/// Why an instance does not see a peer ready.
#[derive(Debug, thiserror::Error)]
enum PeerError {
    #[error("this agent does not know its address (`--peers`)")]
    Unknown,
    #[error("its agent cannot be reached: {0}")]
    NotAsked(#[from] ReadinessError),
    #[error("the check of its `{service}` says: {answer}")]
    Unhealthy {
        service: ServiceName,
        answer: String,
    },
    #[error("it has prepared no `{0}`")]
    NotPrepared(ServiceName),
    #[error("its front at {front} cannot be reached: {source}")]
    FrontUnreachable {
        front: String,
        source: std::io::Error,
    },
    #[error("its front at {0} cannot be reached: nobody answers")]
    FrontSilent(String),
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
        let expected = PeerExpectation {
            epoch,
            services: releases.into_keys().collect(),
        };
        let checks = peers.into_iter().map(async |peer| {
            let unseen = self.check(&peer, &expected).await.err()?;
            Some((peer, unseen.to_string()))
        });
        join_all(checks).await.into_iter().flatten().collect()
    }

    async fn check(&self, peer: &InstanceId, expected: &PeerExpectation) -> Result<(), PeerError> {
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
    ) -> Result<(), PeerError> {
        let Some(address) = self.agents.get(peer).copied() else {
            return Err(PeerError::Unknown);
        };
        let asked = peer::ask_readiness(address, peer, expected.epoch, self.tls.clone());
        let readiness = asked.await?;
        for service in &expected.services {
            match readiness.services.get(service) {
                Some(CheckAnswer::Healthy) => {}
                Some(CheckAnswer::Unhealthy(answer)) => {
                    return Err(PeerError::Unhealthy {
                        service: service.clone(),
                        answer: answer.clone(),
                    });
                }
                None => return Err(PeerError::NotPrepared(service.clone())),
            }
        }
        match readiness.front {
            Some(front) => knock(front).await,
            None => Ok(()),
        }
    }
}

/// Whether anything takes connections there. What it would answer does not matter: it may wait for
/// an application that this very deployment is to replace, and a first one has nothing to serve.
async fn knock(front: String) -> Result<(), PeerError> {
    match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&front)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(source)) => Err(PeerError::FrontUnreachable { front, source }),
        Err(_) => Err(PeerError::FrontSilent(front)),
    }
}
