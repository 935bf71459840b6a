//! How long a connection waits for what.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::origin::OriginFields;
use super::{ClientConn, EXPECTING, RESPONDING, Stage, TUNNEL};

/// How long a connection without a request is kept once draining began, so that
/// a client about to use it gets an answer with `Connection: close`, not a reset.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// What holds for every client connection of a listener.
#[derive(Clone, Debug)]
pub struct ConnConfig {
    /// From the first byte of a request (or the accept) to the end of its head.
    pub client_header: Duration,
    /// From one request to the first byte of the next.
    pub client_idle: Duration,
    /// Longest time without a byte in either direction.
    pub stream_idle: Duration,
    /// From the request sent whole to the head of the response, for one attempt.
    pub response_header: Duration,
    /// The same for all attempts together.
    pub request: Duration,
    /// Largest request head, in bytes.
    pub header_bytes: usize,
    /// What a head gets that does not say whom it comes from; none: nothing.
    pub origin_fields: Option<OriginFields>,
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

/// Deadlines of one exchange that differ from those of its listener.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deadlines {
    pub response_header: Option<Duration>,
    pub request: Option<Duration>,
    pub stream_idle: Option<Duration>,
}

/// The same as the filters can set them, which only have `&self`.
#[derive(Debug, Default)]
pub(super) struct OwnDeadlines {
    response_header: OwnDeadline,
    request: OwnDeadline,
    stream_idle: OwnDeadline,
}

/// In microseconds; 0 for none.
#[derive(Debug, Default)]
struct OwnDeadline(AtomicU64);

impl OwnDeadline {
    fn set(&self, deadline: Option<Duration>) {
        let micros = deadline.map_or(0, |deadline| deadline.as_micros());
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        self.0.store(micros, Ordering::Relaxed);
    }

    fn or(&self, default: Duration) -> Duration {
        match self.0.load(Ordering::Relaxed) {
            0 => default,
            micros => Duration::from_micros(micros),
        }
    }
}

impl ClientConn {
    /// Deadlines of the exchange under way in place of the listener's.
    pub fn set_deadlines(&self, deadlines: Deadlines) {
        self.own.response_header.set(deadlines.response_header);
        self.own.request.set(deadlines.request);
        self.own.stream_idle.set(deadlines.stream_idle);
    }

    pub(super) fn request(&self) -> Duration {
        self.own.request.or(self.config.request)
    }

    fn stream_idle(&self) -> Duration {
        self.own.stream_idle.or(self.config.stream_idle)
    }

    /// The deadline of the moment while a head is awaited or incomplete.
    pub(super) fn head_deadline(&mut self, cx: &mut Context<'_>) -> Instant {
        let deadline = match self.head_began {
            Some(began) => began + self.config.client_header,
            None => self.active + self.config.client_idle,
        };
        let Some(slot) = self.slot.as_ref().filter(|_| self.start == self.end) else {
            return deadline;
        };
        if self.drain.is_none() {
            let mut drain = Box::pin(slot.lifecycle().drain_begins());
            // Ready: it began a moment ago, which is looked at next anyway.
            let _ = drain.as_mut().poll(cx);
            self.drain = Some(drain);
        }
        match slot.lifecycle().draining_since() {
            Some(since) => deadline.min(self.active.max(since) + DRAIN_GRACE),
            None => deadline,
        }
    }

    /// The deadline of the moment, once the head was handed out.
    fn deadline(&self) -> (Instant, Expiry) {
        let whole = matches!(self.stage, Stage::Whole) || self.told(TUNNEL);
        if !whole && !self.told(EXPECTING) {
            // Also after the answer began: it may wait for the rest of the body.
            return (self.active + self.stream_idle(), Expiry::RequestBody);
        }
        if self.told(RESPONDING) {
            return (self.active + self.stream_idle(), Expiry::Stream);
        }
        let sent = if whole { self.whole_since } else { self.active };
        let attempt = self.accepted + Duration::from_micros(self.attempt.load(Ordering::Relaxed));
        let response_header = self.own.response_header.or(self.config.response_header);
        let response = attempt.max(sent) + response_header;
        let request = sent + self.request();
        if response <= request {
            (response, Expiry::ResponseHeader)
        } else {
            (request, Expiry::Request)
        }
    }

    /// Nothing to read: sends what waits to be sent, for the proxy does not
    /// flush a body of known length until its end, and looks at the clock.
    pub(super) fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.output.is_empty()
            && let Poll::Ready(sent) = self.poll_drain(cx)
        {
            sent?;
        }
        let (deadline, expiry) = self.deadline();
        if !self.timer.poll_expired(cx, deadline) {
            return Poll::Pending;
        }
        self.expiry = Some(expiry);
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "deadline passed",
        )))
    }

    /// The client does not take our bytes.
    pub(super) fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let deadline = self.active + self.stream_idle();
        if !self.timer.poll_expired(cx, deadline) {
            return Poll::Pending;
        }
        self.expiry = Some(Expiry::ClientStalled);
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "client does not read",
        )))
    }
}
