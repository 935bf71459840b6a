//! One connection, read and written as bytes, for clients and cells.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::DEADLINE;
use super::message::{Framing, Head, fields};

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub struct Wire {
    stream: Box<dyn Stream>,
    /// Received, not yet consumed.
    buffer: Vec<u8>,
    patience: Duration,
}

impl Wire {
    pub fn new(stream: impl Stream + 'static) -> Wire {
        Wire {
            stream: Box::new(stream),
            buffer: Vec::new(),
            patience: DEADLINE,
        }
    }

    /// Changes how long a single read or write may take.
    pub fn patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        timely("write", self.patience, write).await
    }

    /// Shuts down the sending side.
    pub async fn finish(&mut self) -> io::Result<()> {
        timely("shutdown", self.patience, self.stream.shutdown()).await
    }

    /// Reads more into the buffer; 0 is the end of the stream.
    pub async fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let read = timely("read", self.patience, self.stream.read(&mut chunk)).await?;
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(read)
    }

    /// Bytes received and not yet consumed.
    pub fn pending(&self) -> &[u8] {
        &self.buffer
    }

    /// Takes bytes up to and with the first `end`. `None`: the stream ended before any byte.
    pub async fn through(&mut self, end: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            let from = searched.min(self.buffer.len());
            if let Some(at) = find(&self.buffer[from..], end) {
                return Ok(Some(self.buffer.drain(..from + at + end.len()).collect()));
            }
            searched = self.buffer.len().saturating_sub(end.len() - 1);
            if self.fill().await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(self.cut("a line or head"))
                };
            }
        }
    }

    /// Takes exactly `count` bytes.
    pub async fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            if self.fill().await? == 0 {
                return Err(self.cut("a body of known length"));
            }
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// Takes everything up to the end of the stream.
    pub async fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill().await? > 0 {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Takes one message head. `None`: the stream ended before any byte.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        Ok(self
            .through(b"\r\n\r\n")
            .await?
            .map(|raw| Head::parse(&raw)))
    }

    /// Takes a body framed in `framing`, and its trailers. [`Framing::Unsaid`] is an empty one.
    pub async fn body(&mut self, framing: Framing) -> io::Result<(Vec<u8>, Vec<(String, String)>)> {
        match framing {
            Framing::Unsaid => Ok((Vec::new(), Vec::new())),
            Framing::Length(length) => {
                let length = usize::try_from(length).map_err(io::Error::other)?;
                Ok((self.exactly(length).await?, Vec::new()))
            }
            Framing::Chunked => {
                let mut body = Vec::new();
                loop {
                    let chunk = self.chunk().await?;
                    if chunk.is_empty() {
                        return Ok((body, self.trailers().await?));
                    }
                    body.extend_from_slice(&chunk);
                }
            }
        }
    }

    /// Takes one chunk; the last one is empty, and leaves the trailers unread.
    pub async fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = self.line().await?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16)
            .map_err(|_| io::Error::other(format!("not a chunk size: {line:?}")))?;
        if size == 0 {
            return Ok(Vec::new());
        }
        let chunk = self.exactly(size).await?;
        match self.exactly(2).await?.as_slice() {
            b"\r\n" => Ok(chunk),
            other => Err(io::Error::other(format!("a chunk ends in {other:?}"))),
        }
    }

    async fn trailers(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(fields(lines.iter().map(String::as_str)));
            }
            lines.push(line);
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        let line = self
            .through(b"\r\n")
            .await?
            .ok_or_else(|| self.cut("a line"))?;
        Ok(String::from_utf8_lossy(&line[..line.len() - 2]).into_owned())
    }

    fn cut(&self, what: &str) -> io::Error {
        let so_far = String::from_utf8_lossy(&self.buffer[..self.buffer.len().min(300)]);
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("cut off within {what}: {so_far:?}"),
        )
    }
}

async fn timely<T>(
    what: &str,
    patience: Duration,
    operation: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match tokio::time::timeout(patience, operation).await {
        Ok(result) => result,
        Err(_) => {
            let message = format!("a {what} took longer than {patience:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
