//! One client connection as the proxy library sees it.
//!
//! [`ClientConn`] and what the filters may ask and tell it are here; how it
//! reads, writes, keeps time and closes is one file each.

mod announce;
mod buffers;
mod close;
mod deadline;
mod origin;
mod read;
mod stream;
mod write;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use pingora_core::protocols::SocketDigest;
use tokio::net::TcpStream;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use super::chunked::ChunkedBody;
use super::head::{BodyFraming, HeadScanner, Refusal};
use super::timer::Timer;
use crate::http::CountGuard;

use announce::Announced;
use deadline::OwnDeadlines;
pub use deadline::{ConnConfig, Deadlines, Expiry};
pub use origin::OriginFields;

// What the filters told of the exchange, as bits.
const RESPONDING: u8 = 1;
const TUNNEL: u8 = 2;
const FINISHED: u8 = 4;
/// The client waits for the cell's 100 before it sends its body.
const EXPECTING: u8 = 8;
const RESET: u8 = 16;

#[derive(Debug)]
enum Stage {
    /// Reading a request head into `input`.
    Head,
    /// Handing out a head of which so many bytes are left.
    HeadOut { left: usize, body: BodyFraming },
    /// Handing out a body of known length.
    Sized { left: u64 },
    /// Handing out a chunked body.
    Chunked(ChunkedBody),
    /// The request is refused; the stand-in was not handed out yet.
    Refused,
    /// The request was handed out whole.
    Whole,
}

/// A client's TCP connection that frames requests strictly.
///
/// Reads give the proxy library exactly one request: a head that passed
/// [`HeadScanner`], perhaps with fields of ours, then the bytes of its body, checked.
/// Bytes that follow stay here until the response is finished. All deadlines of the
/// exchange live here, because this is the one place that sees every byte of both
/// directions and is polled while the proxy waits for the cell.
pub struct ClientConn {
    /// Taken only when dropped.
    tcp: Option<TcpStream>,
    peer: SocketAddr,
    /// The client's address, as `X-Forwarded-For` has it.
    peer_header: HeaderValue,
    digest: Arc<SocketDigest>,
    config: Arc<ConnConfig>,
    stage: Stage,
    scanner: HeadScanner,
    /// Bytes received or added to them, and not handed out: `input[start..end]`.
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes written and not sent: `output[sent..]`.
    output: Vec<u8>,
    sent: usize,
    announced: Announced,
    timer: Timer,
    /// Wakes the connection when draining begins; polled once, for the task and
    /// so its waker stay the same.
    drain: Option<Pin<Box<OwnedNotified>>>,
    accepted: Instant,
    /// Last byte in either direction.
    active: Instant,
    /// When the head being read began; none while between requests.
    head_began: Option<Instant>,
    /// When the request had been handed out whole.
    whole_since: Instant,
    refusal: Option<Refusal>,
    expiry: Option<Expiry>,
    bad_body: Option<&'static str>,
    /// The head got [`ConnConfig::origin_fields`].
    told_origin: bool,
    /// The client has said that it sends no more.
    departed: bool,
    /// What the filters told us of the exchange; they only have `&self`.
    told: AtomicU8,
    /// When the current attempt began, in microseconds since `accepted`.
    attempt: AtomicU64,
    own: OwnDeadlines,
    slot: Option<CountGuard>,
}

impl ClientConn {
    /// Takes over an accepted connection; `slot` is held until it is closed.
    pub fn new(
        tcp: TcpStream,
        peer: SocketAddr,
        config: Arc<ConnConfig>,
        slot: CountGuard,
    ) -> Self {
        let now = Instant::now();
        ClientConn {
            digest: Arc::new(SocketDigest::from_raw_fd(tcp.as_raw_fd())),
            tcp: Some(tcp),
            peer,
            peer_header: header_of(peer),
            config,
            stage: Stage::Head,
            scanner: HeadScanner::default(),
            input: Vec::new(),
            start: 0,
            end: 0,
            output: Vec::new(),
            sent: 0,
            announced: Announced::default(),
            timer: Timer::default(),
            drain: None,
            accepted: now,
            active: now,
            head_began: Some(now),
            whole_since: now,
            refusal: None,
            expiry: None,
            bad_body: None,
            told_origin: false,
            departed: false,
            told: AtomicU8::new(0),
            attempt: AtomicU64::new(0),
            own: OwnDeadlines::default(),
            slot: Some(slot),
        }
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The client's address as the value of a header; a mapped IPv4 address as
    /// what it is.
    pub fn peer_header(&self) -> &HeaderValue {
        &self.peer_header
    }

    /// Whether the request was handed out to its last byte.
    pub fn is_whole(&self) -> bool {
        matches!(self.stage, Stage::Whole)
    }

    /// Why the request that is being answered was refused, if it was.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// The deadline that ended the exchange, if one did.
    pub fn expiry(&self) -> Option<Expiry> {
        self.expiry
    }

    /// The framing rule that the request body broke, if it broke one.
    pub fn bad_body(&self) -> Option<&'static str> {
        self.bad_body
    }

    /// What is left for a cell to answer in, all attempts together.
    pub fn request_time_left(&self) -> Duration {
        match self.stage {
            Stage::Whole => self.request().saturating_sub(self.whole_since.elapsed()),
            // The clock starts when the client has sent its part.
            _ => self.request(),
        }
    }

    /// An attempt to reach a cell begins.
    pub fn attempt_started(&self) {
        let micros = self.accepted.elapsed().as_micros();
        self.attempt
            .store(u64::try_from(micros).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The client sends its body only when the cell has asked for it
    /// (`Expect: 100-continue`, RFC 9110 §10.1.1).
    pub fn expects_continue(&self) {
        self.told.fetch_or(EXPECTING, Ordering::Relaxed);
    }

    /// The cell has asked for the body.
    pub fn continued(&self) {
        self.told.fetch_and(!EXPECTING, Ordering::Relaxed);
    }

    /// The connection is to end with a reset: the response was cut where its
    /// framing cannot show it.
    pub fn reset_on_close(&self) {
        self.told.fetch_or(RESET, Ordering::Relaxed);
    }

    /// The final response has begun.
    pub fn response_started(&self) {
        self.told.fetch_or(RESPONDING, Ordering::Relaxed);
    }

    /// The connection now speaks another protocol (101, RFC 9110 §7.8).
    pub fn tunnel_started(&self) {
        self.told.fetch_or(TUNNEL | RESPONDING, Ordering::Relaxed);
    }

    /// The exchange is over; what is read next is a new request.
    pub fn request_finished(&self) {
        self.told.fetch_or(FINISHED, Ordering::Relaxed);
    }

    fn told(&self, what: u8) -> bool {
        self.told.load(Ordering::Relaxed) & what != 0
    }
}

fn header_of(peer: SocketAddr) -> HeaderValue {
    // An address is always a valid header value.
    HeaderValue::try_from(peer.ip().to_canonical().to_string())
        .unwrap_or(HeaderValue::from_static("unknown"))
}
