//! A closed loop of GET requests: each connection sends the next when it has its answer.
//!
//! It lives on one thread together with the application, so that the core beside the proxy's
//! has nothing to switch between.

use hdrhistogram::Histogram;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What an answer is read into at once.
const BUFFER: usize = 128 * 1024;

/// Load on one address, for as long as it is kept.
pub(super) struct Generator {
    seen: Rc<RefCell<Observed>>,
    _connections: JoinSet<()>,
}

/// What came of the requests since the last look.
pub(super) struct Observed {
    /// Good answers.
    pub(super) answers: u64,
    pub(super) failures: u64,
    /// How long good answers took, in nanoseconds.
    pub(super) latency: Histogram<u64>,
}

impl Observed {
    fn nothing() -> Self {
        Self {
            answers: 0,
            failures: 0,
            latency: Histogram::new(3).expect("three digits are allowed"),
        }
    }
}

impl Generator {
    /// Starts the load.
    pub(super) fn start(target: SocketAddr, connections: usize) -> Self {
        let seen = Rc::new(RefCell::new(Observed::nothing()));
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let seen = seen.clone();
            tasks.spawn_local(async move {
                loop {
                    // Only a failure ends a conversation; then another is begun.
                    let _ = send_requests(target, &seen).await;
                    seen.borrow_mut().failures += 1;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        }
        Self {
            seen,
            _connections: tasks,
        }
    }

    /// Takes what was seen since the last time.
    pub(super) fn take(&self) -> Observed {
        self.seen.replace(Observed::nothing())
    }
}

/// One request to see whether anyone answers.
pub(super) async fn ask(target: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(target).await?;
    let request = request(target);
    exchange(&mut stream, &request, &mut Vec::with_capacity(BUFFER)).await
}

async fn send_requests(target: SocketAddr, seen: &RefCell<Observed>) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let request = request(target);
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        let began = Instant::now();
        exchange(&mut stream, &request, &mut buffer).await?;
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut seen = seen.borrow_mut();
        seen.answers += 1;
        // The histogram grows with what it is given.
        let _ = seen.latency.record(took);
    }
}

fn request(target: SocketAddr) -> Vec<u8> {
    format!("GET /item/42 HTTP/1.1\r\nHost: {target}\r\nUser-Agent: greenlight-bench\r\nAccept: */*\r\n\r\n")
        .into_bytes()
}

async fn exchange(
    stream: &mut TcpStream,
    request: &[u8],
    buffer: &mut Vec<u8>,
) -> std::io::Result<()> {
    stream.write_all(request).await?;
    buffer.clear();
    let mut expected = None;
    while expected.is_none_or(|expected| buffer.len() < expected) {
        if stream.read_buf(buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if expected.is_none() {
            expected = length(buffer)?;
        }
    }
    Ok(())
}

/// The length of a good answer, head and body; `None` if its head is not complete yet.
fn length(answer: &[u8]) -> std::io::Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(answer).map_err(std::io::Error::other)? {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial => return Ok(None),
    };
    let is_length =
        |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case("content-length");
    let body = response.headers.iter().find(is_length);
    let body = body.and_then(|header| {
        std::str::from_utf8(header.value)
            .ok()?
            .parse::<usize>()
            .ok()
    });
    match (response.code, body) {
        (Some(200), Some(body)) => Ok(Some(head + body)),
        (code, _) => Err(std::io::Error::other(format!(
            "not a good answer: {code:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::length;

    #[test]
    fn an_answer_is_as_long_as_its_head_and_its_body() {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n";
        assert_eq!(length(head).expect("a good head"), Some(head.len() + 10));
        assert_eq!(length(&head[..20]).expect("the start of one"), None);
    }

    #[test]
    fn an_answer_that_is_not_200_or_has_no_length_is_a_failure() {
        assert!(length(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(length(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
