//! Faults that no HTTP library commits, on a connection taken away from it.

use std::fmt::Write as _;
use std::io;
use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

use super::misbehaviour::Fault;

/// A status line would have begun with `HTTP/` (RFC 9112, section 4).
const GARBAGE: &[u8] = b"\x16\x03\x01 whatever this is, it is no HTTP\r\n\r\n\xff\xfe\x00";

/// Between the last byte and an RST, so that the peer gets to see the byte: an RST drops what is still on
/// its way.
const BEFORE_RESET: Duration = Duration::from_millis(50);

/// How many times a second a dripping answer goes on, where its rate allows.
const DRIPS_PER_SECOND: u32 = 10;

/// A request that was read, and what is done to its caller.
#[derive(Debug)]
pub(super) struct Offence {
    pub(super) fault: Fault,
    /// The answer that a well cell would have given.
    pub(super) answer: Response<Bytes>,
    /// Whether the request was HEAD, whose answer ends with its header (RFC 9110, section 9.3.2).
    pub(super) head_only: bool,
}

impl Offence {
    /// Commits it and ends the connection. An error only says that the peer was gone first.
    pub(super) async fn commit(self, mut stream: TcpStream) -> io::Result<()> {
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
            // Left to whoever notices that the peer went away.
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
    // No burst after a peer that did not read for a while.
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
