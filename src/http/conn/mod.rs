//! One client connection that speaks HTTP/1.x.
//!
//! [`ClientConn`] is here; how it reads, writes, keeps time and closes is one file each.

mod deadline;
mod downstream;
mod read;
mod stream;
mod write;

#[cfg(test)]
mod tests;

use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;

use pingora_core::protocols::SocketDigest;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use super::chunked::ChunkedBody;
use super::head::{BodyFraming, HeadScanner};
use super::lifecycle::CountGuard;

pub use deadline::ConnConfig;
use deadline::Timer;
pub use downstream::{Client, Deadlines, Downstream, Expiry, Fault, Transport};
pub use stream::ClientStream;

/// Bytes of a buffer: most request heads, and most answers with a small body.
const BUFFER: usize = 4096;

#[derive(Debug)]
enum Stage {
    /// Reading a request head into `input`.
    Head,
    /// Handing out a head; `left` bytes of it remain.
    HeadOut { left: usize, body: BodyFraming },
    /// Handing out a body of known length; `left` bytes of it remain.
    Sized { left: u64 },
    /// Handing out a chunked body.
    Chunked(ChunkedBody),
    /// The request is refused; the stand-in was not handed out yet.
    Refused,
    /// The request was handed out whole.
    Whole,
}

/// A client's connection, which frames its requests strictly.
///
/// A read gives the reader bytes of exactly one request: a head that passed
/// [`HeadScanner`], then its body, checked. Bytes that follow stay here until
/// [`ClientConn::request_finished`]. All deadlines of the exchange are kept here, because
/// this is the one place that sees every byte of both directions and is polled while the
/// proxy waits for the cell.
pub struct ClientConn {
    /// Taken only when dropped.
    stream: Option<Box<dyn ClientStream>>,
    digest: Option<Arc<SocketDigest>>,
    config: Arc<ConnConfig>,
    /// The request that is being read or answered.
    downstream: Arc<Downstream>,
    stage: Stage,
    scanner: HeadScanner,
    /// Bytes received and not handed out: `input[start..end]`. Empty between requests, so
    /// that an idle connection has no buffer.
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes written and not sent: `output[sent..]`.
    output: Vec<u8>,
    sent: usize,
    timer: Timer,
    /// Wakes the connection when draining begins; polled once, because the task and its
    /// waker stay the same.
    drain: Option<Pin<Box<OwnedNotified>>>,
    /// Last byte in either direction.
    active: Instant,
    /// When the head being read began; `None` between requests.
    head_began: Option<Instant>,
    /// The exchange is over; what is read next is a new request.
    finished: bool,
    /// The client sends no more.
    departed: bool,
    slot: Option<CountGuard>,
}

impl ClientConn {
    /// Takes over a connection to `client`; `slot` is held until it is closed.
    pub fn new(
        stream: Box<dyn ClientStream>,
        client: Client,
        config: Arc<ConnConfig>,
        slot: CountGuard,
    ) -> Self {
        let socket = stream.socket().map(AsRawFd::as_raw_fd);
        let now = Instant::now();
        ClientConn {
            digest: socket.map(|fd| Arc::new(SocketDigest::from_raw_fd(fd))),
            stream: Some(stream),
            downstream: Arc::new(Downstream::new(Arc::new(client), config.deadlines)),
            config,
            stage: Stage::Head,
            scanner: HeadScanner::default(),
            input: Vec::new(),
            start: 0,
            end: 0,
            output: Vec::new(),
            sent: 0,
            timer: Timer::default(),
            drain: None,
            active: now,
            head_began: Some(now),
            finished: false,
            departed: false,
            slot: Some(slot),
        }
    }

    /// The request that is being read or answered.
    pub fn downstream(&self) -> &Arc<Downstream> {
        &self.downstream
    }

    /// The exchange is over; what is read next is a new request.
    pub fn request_finished(&mut self) {
        self.finished = true;
    }
}
