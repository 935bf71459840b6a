//! What a client connection and the exchange on it tell each other.
//!
//! The connection sees every byte of both directions and keeps the deadlines; the exchange
//! knows what the bytes mean. Each holds a reference to one [`Downstream`], so neither has to
//! find the other, and it does not matter what lies between them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use crate::http::head::Refusal;

/// How a client is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// Without encryption.
    Plain,
    /// Over TLS.
    Tls,
}

impl Transport {
    /// `http` or `https`, as `X-Forwarded-Proto` has it.
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::Plain => "http",
            Self::Tls => "https",
        }
    }
}

/// Who is at the other end of a connection. It stays the same for all of its requests.
#[derive(Debug)]
pub struct Client {
    /// The client's address.
    pub peer: SocketAddr,
    /// The address that it connected to; `None` if the system cannot tell.
    pub local: Option<SocketAddr>,
    pub transport: Transport,
    /// The client's IP address as a header value; an IPv4-mapped address as IPv4.
    pub ip_header: HeaderValue,
}

impl Client {
    pub fn new(peer: SocketAddr, local: Option<SocketAddr>, transport: Transport) -> Self {
        // An address is always a valid header value.
        let ip_header = HeaderValue::try_from(peer.ip().to_canonical().to_string())
            .unwrap_or(HeaderValue::from_static("unknown"));
        Client {
            peer,
            local,
            transport,
            ip_header,
        }
    }
}

/// How long one request may take, in the parts that the connection watches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadlines {
    /// From the request sent whole to the head of the response, for one attempt.
    pub response_header: Duration,
    /// The same for all attempts together.
    pub request: Duration,
    /// Longest time without a byte in either direction.
    pub stream_idle: Duration,
}

/// Which deadline ended a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// The client stopped sending its body.
    RequestBody,
    /// The cell did not answer this attempt.
    ResponseHeader,
    /// The cell did not answer any attempt.
    Request,
    /// No byte either way after the response had begun.
    Stream,
    /// The client took no byte of the response.
    ClientStalled,
}

/// Why the connection ended a request, or will not have it served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The head was refused; a stand-in was handed out in its place.
    Refused(Refusal),
    /// A deadline passed.
    Expired(Expiry),
    /// The body broke this rule of its framing.
    BadBody(&'static str),
}

/// The final response has begun.
const RESPONDING: u8 = 1;
/// The connection speaks another protocol.
const TUNNEL: u8 = 2;
/// The client waits for 100 before it sends its body.
const EXPECTING: u8 = 4;
/// The connection is to end with a reset.
const RESET: u8 = 8;

/// One request as its connection and its exchange share it.
#[derive(Debug)]
pub struct Downstream {
    client: Arc<Client>,
    /// What the times below count from.
    created: Instant,
    flags: AtomicU8,
    /// When the current attempt began.
    attempt: AtomicU64,
    /// When the request had been handed out to its last byte; 0 before.
    whole: AtomicU64,
    response_header: AtomicU64,
    request: AtomicU64,
    stream_idle: AtomicU64,
    /// The first fault.
    fault: OnceLock<Fault>,
}

impl Downstream {
    /// A request of `client` that has just begun.
    pub fn new(client: Arc<Client>, deadlines: Deadlines) -> Self {
        let downstream = Downstream {
            client,
            created: Instant::now(),
            flags: AtomicU8::new(0),
            attempt: AtomicU64::new(0),
            whole: AtomicU64::new(0),
            response_header: AtomicU64::new(0),
            request: AtomicU64::new(0),
            stream_idle: AtomicU64::new(0),
            fault: OnceLock::new(),
        };
        downstream.set_deadlines(deadlines);
        downstream
    }

    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Sets the deadlines of this request, in place of those of the listener.
    pub fn set_deadlines(&self, deadlines: Deadlines) {
        self.response_header
            .store(micros(deadlines.response_header), Relaxed);
        self.request.store(micros(deadlines.request), Relaxed);
        self.stream_idle
            .store(micros(deadlines.stream_idle), Relaxed);
    }

    /// The deadlines in force.
    pub fn deadlines(&self) -> Deadlines {
        Deadlines {
            response_header: Duration::from_micros(self.response_header.load(Relaxed)),
            request: Duration::from_micros(self.request.load(Relaxed)),
            stream_idle: self.stream_idle(),
        }
    }

    pub(super) fn stream_idle(&self) -> Duration {
        Duration::from_micros(self.stream_idle.load(Relaxed))
    }

    /// Why the head was refused, if it was.
    pub fn refusal(&self) -> Option<Refusal> {
        match self.fault()? {
            Fault::Refused(refusal) => Some(refusal),
            Fault::Expired(_) | Fault::BadBody(_) => None,
        }
    }

    /// What the connection ended the request for, if it did.
    pub fn fault(&self) -> Option<Fault> {
        self.fault.get().copied()
    }

    pub(crate) fn set_fault(&self, fault: Fault) {
        // Of several, the first is the cause.
        let _ = self.fault.set(fault);
    }

    /// Whether the request was handed out to its last byte.
    pub fn is_whole(&self) -> bool {
        self.whole.load(Relaxed) != 0
    }

    /// The last byte of the request was handed out.
    pub(super) fn set_whole(&self, at: Instant) {
        self.whole.store(self.since_created(at).max(1), Relaxed);
    }

    pub(super) fn whole_since(&self) -> Option<Instant> {
        match self.whole.load(Relaxed) {
            0 => None,
            at => Some(self.created + Duration::from_micros(at)),
        }
    }

    /// The time left for a cell to answer in, all attempts together. It starts to run when
    /// the client has sent the whole request.
    pub fn request_time_left(&self) -> Duration {
        let request = Duration::from_micros(self.request.load(Relaxed));
        match self.whole_since() {
            Some(since) => request.saturating_sub(since.elapsed()),
            None => request,
        }
    }

    /// An attempt to reach a cell begins.
    pub fn attempt_started(&self) {
        let now = self.since_created(Instant::now());
        self.attempt.store(now, Relaxed);
    }

    pub(super) fn attempt_since(&self) -> Instant {
        self.created + Duration::from_micros(self.attempt.load(Relaxed))
    }

    /// The client sends its body only after a 100 (`Expect: 100-continue`, RFC 9110 §10.1.1),
    /// so that it owes none before.
    pub fn expects_continue(&self) {
        self.flags.fetch_or(EXPECTING, Relaxed);
    }

    /// The client was asked for its body, or sends it unasked.
    pub fn continued(&self) {
        self.flags.fetch_and(!EXPECTING, Relaxed);
    }

    pub(super) fn is_expecting(&self) -> bool {
        self.is(EXPECTING)
    }

    /// The final response has begun.
    pub fn response_started(&self) {
        self.flags.fetch_or(RESPONDING, Relaxed);
    }

    pub(super) fn is_responding(&self) -> bool {
        self.is(RESPONDING)
    }

    /// The connection now speaks another protocol (101, RFC 9110 §7.8).
    pub fn tunnel_started(&self) {
        self.flags.fetch_or(TUNNEL | RESPONDING, Relaxed);
    }

    pub(super) fn is_tunnel(&self) -> bool {
        self.is(TUNNEL)
    }

    /// The connection is to end with a reset: the response was cut where its framing cannot
    /// show it.
    pub fn reset_on_close(&self) {
        self.flags.fetch_or(RESET, Relaxed);
    }

    pub(super) fn is_to_reset(&self) -> bool {
        self.is(RESET)
    }

    fn is(&self, flag: u8) -> bool {
        self.flags.load(Relaxed) & flag != 0
    }

    fn since_created(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.created))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
