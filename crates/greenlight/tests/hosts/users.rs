//! What users of the balancer see.

use crate::fleet::Fleet;
use futures_util::{SinkExt as _, StreamExt as _};
use greenlight::load::{Flip, Sample, Segment, Window, analyse};
use greenlight_link::receipt::Receipt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// A WebSocket through the balancer.
pub(crate) struct Socket {
    runtime: tokio::runtime::Runtime,
    stream: WebSocketStream<tokio::net::TcpStream>,
}

impl Socket {
    pub(crate) fn open(fleet: &Fleet) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let connection = fleet.connect();
        connection.set_nonblocking(true).expect("a socket");
        let opened = runtime.block_on(async {
            let stream = tokio::net::TcpStream::from_std(connection).expect("a socket");
            tokio_tungstenite::client_async("ws://shop.example/socket", stream).await
        });
        let (stream, _) = opened.expect("the application takes it");
        Self { runtime, stream }
    }

    /// Speaks, and returns which release echoes.
    pub(crate) fn echo(&mut self) -> String {
        let heard = self.runtime.block_on(async {
            let sent = self.stream.send(Message::text("hello")).await;
            sent.expect("the WebSocket is open");
            self.stream.next().await
        });
        let message = heard.expect("it is open").expect("it is open");
        let text = message.to_text().expect("it is text").to_owned();
        let (release, _) = text.split_once(' ').expect("a release and the echo");
        release.to_owned()
    }
}

/// The receipt of the latest deployment.
pub(crate) fn receipt(fleet: &Fleet) -> Receipt {
    serde_json::from_value(fleet.json(&["--json", "receipt"])).expect("a receipt")
}

/// What users saw of the latest deployment, from `v1` to another.
pub(crate) fn window(fleet: &Fleet, samples: &[Sample], new: &str) -> Window {
    let decided = receipt(fleet).cut_overs[0].committed_ns;
    let flip = Flip {
        old: ["v1".to_owned()].into(),
        new: new.to_owned(),
        decided_ns: decided.expect("it was committed"),
    };
    let all = Segment {
        from_ns: 0,
        until_ns: u64::MAX,
    };
    analyse(samples, all, &[flip])
}
