//! One end of a connection, byte by byte. Nothing here waits for ever: what does not come fails
//! the test.

use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Far longer than anything takes, so that only a missing event fails a test.
const EVENT_TIMEOUT: Duration = Duration::from_mins(2);

/// Waits for what must happen.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    let happened = timeout(EVENT_TIMEOUT, event).await;
    happened.unwrap_or_else(|_| panic!("{what} did not happen"))
}

pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// One end of a connection.
pub(crate) struct Wire {
    stream: Box<dyn Duplex>,
    buffer: Vec<u8>,
}

/// The first line and the fields of a message.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) line: String,
    fields: Vec<(String, String)>,
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: String,
}

impl Head {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).expect("a head is text");
        let mut lines = text.split("\r\n").filter(|line| !line.is_empty());
        let line = lines.next().expect("a first line").to_owned();
        let fields = lines
            .map(|line| {
                let (name, value) = line.split_once(": ").expect("a field");
                (name.to_owned(), value.to_owned())
            })
            .collect();
        Self { line, fields }
    }

    /// The value of a field; fails if it is there more than once.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(n, _)| n == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "`{name}` twice in {self:?}");
        value
    }

    pub(crate) fn status(&self) -> u16 {
        let code = self.line.split(' ').nth(1).expect("a status");
        code.parse().expect("a number")
    }
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text")
    }
}

impl Wire {
    pub(crate) fn new(stream: impl Duplex + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            buffer: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = self.try_send(bytes).await;
        sent.expect("the other end reads");
    }

    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        soon("a write", self.stream.write_all(bytes.as_ref())).await
    }

    /// The next message's head.
    pub(crate) async fn head(&mut self) -> Head {
        let head = self.try_head().await;
        head.expect("a head comes before the end")
    }

    /// The next message's head; `None` if the connection ends before it begins.
    pub(crate) async fn try_head(&mut self) -> Option<Head> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Some(Head::parse(&head));
            }
            if !self.more().await {
                assert!(self.buffer.is_empty(), "cut off: {:?}", self.text());
                return None;
            }
        }
    }

    /// The next bytes.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.more().await, "cut off: {:?}", self.text());
        }
        self.buffer.drain(..count).collect()
    }

    /// The next bytes are these.
    pub(crate) async fn expect(&mut self, text: &str) {
        let bytes = self.take(text.len()).await;
        assert_eq!(String::from_utf8_lossy(&bytes), text);
    }

    /// A whole response to a request that was no `HEAD`.
    pub(crate) async fn response(&mut self) -> Response {
        let head = self.head().await;
        let mut trailers = String::new();
        let body = if head.get("transfer-encoding") == Some("chunked") {
            let (body, fields) = self.chunks().await;
            trailers = fields;
            body
        } else if let Some(length) = head.get("content-length") {
            let length = length.parse().expect("a length");
            self.take(length).await
        } else if matches!(head.status(), 204 | 304) {
            Vec::new()
        } else {
            self.rest().await
        };
        Response {
            head,
            body,
            trailers,
        }
    }

    /// A chunked body and the trailers after it.
    pub(crate) async fn chunks(&mut self) -> (Vec<u8>, String) {
        let mut body = Vec::new();
        loop {
            let size = self.line().await;
            let size = usize::from_str_radix(&size, 16).expect("a size");
            if size == 0 {
                break;
            }
            body.extend(self.take(size).await);
            self.expect("\r\n").await;
        }
        let mut trailers = String::new();
        loop {
            let line = self.line().await;
            if line.is_empty() {
                return (body, trailers);
            }
            trailers += &line;
        }
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return String::from_utf8_lossy(&line[..end]).into_owned();
            }
            assert!(self.more().await, "cut off: {:?}", self.text());
        }
    }

    /// Everything until the other end closes or resets.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    /// The connection ends here, with nothing more.
    pub(crate) async fn end(&mut self) {
        let rest = self.rest().await;
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    /// Whether nothing is there to be read now.
    pub(crate) async fn is_silent(&mut self) -> bool {
        let more = timeout(
            Duration::from_millis(50),
            self.stream.read_buf(&mut self.buffer),
        );
        more.await.is_err() && self.buffer.is_empty()
    }

    /// Says that nothing more will be written.
    pub(crate) async fn finish(&mut self) {
        let finished = soon("a shutdown", self.stream.shutdown()).await;
        finished.expect("the connection is there");
    }

    async fn more(&mut self) -> bool {
        let read = soon("a read", self.stream.read_buf(&mut self.buffer)).await;
        read.is_ok_and(|count| count > 0)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }
}
