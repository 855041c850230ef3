//! Connections that leave HTTP: tunnelled once the application has agreed, counted until the end.

use crate::gate::{Claim, Kind};
use crate::thread::ThreadContext;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::rc::Rc;
use tokio::io::copy_bidirectional;

/// Tunnels between client and application after the application's `101`. Nothing that a client
/// sends early reaches the application: hyper hands both sides over only now.
pub(crate) fn tunnel(
    thread: &Rc<ThreadContext>,
    client: OnUpgrade,
    application: OnUpgrade,
    mut claim: Claim,
) {
    let guard = thread.connection_guard();
    claim.reclassify(Kind::Upgrade);
    tokio::task::spawn_local(async move {
        if let (Ok(client), Ok(application)) = (client.await, application.await) {
            let mut client = TokioIo::new(client);
            let mut application = TokioIo::new(application);
            // Either side may end the tunnel in any way.
            let _ = copy_bidirectional(&mut client, &mut application).await;
        }
        drop(claim);
        drop(guard);
    });
}
