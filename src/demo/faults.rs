//! Broken answers. No HTTP library sends them, so the connection is taken over from it.

use std::fmt::Write as _;
use std::io;
use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

/// Not HTTP: a status line begins with `HTTP/` (RFC 9112, section 4).
const GARBAGE: &[u8] = b"\x16\x03\x01 whatever this is, it is no HTTP\r\n\r\n\xff\xfe\x00";

/// The pause before an RST, so that the peer reads what was sent: an RST discards what is still in transit.
const BEFORE_RESET: Duration = Duration::from_millis(50);

/// How many pieces a second a dripping answer is sent in, if its rate allows.
const DRIPS_PER_SECOND: u32 = 10;

/// What is sent in place of a whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// FIN before the first byte of an answer.
    Close,
    /// RST before the first byte of an answer.
    Reset,
    /// FIN half-way through the body.
    Truncate,
    /// RST half-way through the body.
    Cut,
    /// Nothing, and the connection stays open.
    Hang,
    /// The whole answer, at this many bytes a second.
    Drip(NonZeroU32),
    /// Bytes that are not HTTP.
    Garbage,
}

/// An answer, and how sending it goes wrong.
#[derive(Debug)]
pub(super) struct FaultyAnswer {
    pub(super) fault: Fault,
    /// The correct answer.
    pub(super) answer: Response<Bytes>,
    /// Whether the request was HEAD, whose answer ends with its header (RFC 9110, section 9.3.2).
    pub(super) head_only: bool,
}

impl FaultyAnswer {
    /// Sends it, and closes the connection. Errors only mean that the peer closed it first.
    pub(super) async fn send(self, mut stream: TcpStream) -> io::Result<()> {
        let head = head(&self.answer);
        let body = match self.head_only {
            true => &[],
            false => self.answer.body().as_ref(),
        };
        let (half, _) = body.split_at(body.len() / 2);
        match self.fault {
            Fault::Close => {}
            Fault::Reset => return stream.set_zero_linger(),
            Fault::Truncate => stream.write_all(&[head.as_bytes(), half].concat()).await?,
            Fault::Cut => {
                stream.write_all(&[head.as_bytes(), half].concat()).await?;
                tokio::time::sleep(BEFORE_RESET).await;
                return stream.set_zero_linger();
            }
            // Until the peer closes the connection, or the cell stops.
            Fault::Hang => std::future::pending().await,
            Fault::Drip(rate) => drip(&mut stream, &[head.as_bytes(), body].concat(), rate).await?,
            Fault::Garbage => stream.write_all(GARBAGE).await?,
        }
        stream.shutdown().await
    }
}

fn head(answer: &Response<Bytes>) -> String {
    let (status, length) = (answer.status(), answer.body().len());
    let mut head = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in answer.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = write!(
        head,
        "content-length: {length}\r\nconnection: close\r\n\r\n"
    );
    head
}

async fn drip(stream: &mut TcpStream, bytes: &[u8], rate: NonZeroU32) -> io::Result<()> {
    let size = (rate.get() / DRIPS_PER_SECOND).max(1);
    let mut clock = tokio::time::interval(Duration::from_secs(1) * size / rate.get());
    // No burst after the peer did not read for a while.
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for drop in bytes.chunks(size as usize) {
        clock.tick().await;
        stream.write_all(drop).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_announces_the_whole_body() {
        let mut answer = Response::new(Bytes::from_static(b"0123456789"));
        answer
            .headers_mut()
            .insert("x-cell-name", "a".parse().expect("a value"));
        assert_eq!(
            head(&answer),
            "HTTP/1.1 200 OK\r\nx-cell-name: a\r\ncontent-length: 10\r\nconnection: close\r\n\r\n"
        );
    }
}
