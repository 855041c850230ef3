//! What a leader and its followers, predecessors that still have connections, say to each other.

use greenlight_admin::{AdminClient, AdminError, ServiceSettings};
use greenlight_gate::{CountsByCutOver, ReplicateRequest};
use hyper::Method;
use serde::{Deserialize, Serialize};

/// `GET /v1/counts`: what a follower has counted. It answers `POST /v1/replicate` with it too, when
/// nothing more reaches a color that is not open.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CountsAnswer {
    pub(crate) services: CountsByCutOver,
}

/// `POST /v1/final-counts`: a follower has nothing left and ends; these are its final counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FinalCountsRequest {
    /// The name of its socket.
    pub(crate) follower: String,
    pub(crate) services: CountsByCutOver,
}

/// Replicates the routing to a follower; returns when nothing more reaches a color that is not open.
pub(super) async fn replicate(
    follower: &AdminClient,
    request: &ReplicateRequest<ServiceSettings>,
) -> Result<CountsAnswer, AdminError> {
    let question = Some(request);
    follower.call(Method::POST, "/v1/replicate", question).await
}

/// Asks a follower what it has counted.
pub(super) async fn counts(follower: &AdminClient) -> Result<CountsAnswer, AdminError> {
    follower.call(Method::GET, "/v1/counts", None::<&()>).await
}

/// Reports to the leader the final counts of this process, which has nothing left.
pub(crate) async fn report_final_counts(
    leader: &AdminClient,
    request: &FinalCountsRequest,
) -> Result<(), AdminError> {
    let question = Some(request);
    leader
        .call(Method::POST, "/v1/final-counts", question)
        .await
}
