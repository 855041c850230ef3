//! Responses of agents that somebody waits for, by the number of their request.

use super::agent_request::RequestError;
use bytes::Bytes;
use greenlight_protocol::InstanceId;
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// Who waits for what. A response is kept as the bytes that came; who asked knows its type.
#[derive(Default)]
pub(super) struct PendingResponses {
    next: u64,
    senders: BTreeMap<u64, (InstanceId, oneshot::Sender<Bytes>)>,
}

impl PendingResponses {
    /// A number for a request to this agent, and where its response will come.
    pub(super) fn register(&mut self, agent: &InstanceId) -> (u64, oneshot::Receiver<Bytes>) {
        let (sender, receiver) = oneshot::channel();
        self.next += 1;
        self.senders.insert(self.next, (agent.clone(), sender));
        // Callers that stopped waiting are removed, so that the map cannot grow without limit.
        self.senders.retain(|_, (_, sender)| !sender.is_closed());
        (self.next, receiver)
    }

    /// A response came. Only the agent that was asked can respond.
    pub(super) fn received(&mut self, number: u64, from: &InstanceId, response: Bytes) {
        let asked = self.senders.get(&number).map(|(asked, _)| asked);
        if asked != Some(from) {
            return;
        }
        if let Some((_, sender)) = self.senders.remove(&number) {
            // Who asked may have given up.
            let _ = sender.send(response);
        }
    }
}

/// Waits for a response until the deadline.
pub(super) async fn response(
    pending: Option<oneshot::Receiver<Bytes>>,
    deadline: tokio::time::Instant,
) -> Result<Bytes, RequestError> {
    let pending = pending.ok_or(RequestError::NoResponse)?;
    match tokio::time::timeout_at(deadline, pending).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) | Err(_) => Err(RequestError::NoResponse),
    }
}
