//! A client that sees exactly what happens on its connection.

use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) struct Client<S> {
    stream: S,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn closes(&self) -> bool {
        self.head.to_ascii_lowercase().contains("connection: close")
    }
}

impl Client<TcpStream> {
    pub(crate) async fn connect(to: SocketAddr) -> io::Result<Self> {
        Ok(Self::new(TcpStream::connect(to).await?))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream }
    }

    pub(crate) async fn get(&mut self, path: &str) -> io::Result<Response> {
        self.ask("GET", path, "").await
    }

    pub(crate) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
    ) -> io::Result<Response> {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: shop.example\r\n{headers}\r\n");
        self.stream.write_all(head.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await?);
        }
        let head = String::from_utf8(head).map_err(io::Error::other)?;
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("no status"))?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.parse::<usize>().ok())?
        });
        let has_body = method != "HEAD" && status != 101;
        let mut body = vec![0; length.filter(|_| has_body).unwrap_or(0)];
        self.stream.read_exact(&mut body).await?;
        let body = String::from_utf8(body).map_err(io::Error::other)?;
        Ok(Response { status, head, body })
    }

    /// Leaves HTTP for the application's echo.
    pub(crate) async fn upgrade(mut self) -> io::Result<S> {
        let headers = "connection: upgrade\r\nupgrade: echo\r\n";
        let response = self.ask("GET", "/echo", headers).await?;
        if response.status != 101 {
            return Err(io::Error::other(response.head));
        }
        Ok(self.stream)
    }
}

/// One message there and back.
pub(crate) async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.write_all(b"still there?").await?;
    let mut back = [0; 12];
    stream.read_exact(&mut back).await?;
    if &back != b"still there?" {
        return Err(io::Error::other("something else came back"));
    }
    Ok(())
}
