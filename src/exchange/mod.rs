//! One request and its answer, from the judged head to the access-log line.
//!
//! An [`Exchange`] begins when a request's head was judged and ends when it is dropped,
//! however the request ends. Its end is the one place that counts the request, writes its
//! access-log line and gives back what it holds. It knows nothing of how bytes move, so that
//! every engine can carry it, and assumes neither HTTP/1 nor one request at a time on a
//! connection.
//!
//! `proxy` decides by it and moves it on. It imports `http`, `upstream`, `telemetry`
//! and values of `table` and `resilience`.

mod destination;
mod end;
mod failure;
mod request_id;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Version};

use crate::http::{Client, CountGuard, Deadlines, Downstream};
use crate::upstream::{Admitted, Attempt};

pub use destination::{Destination, Hold};
pub use end::{Ending, Recorder};
pub use failure::Failure;
pub use request_id::keep_or_make;

/// What a request asks for, as far as decisions and logs need it.
#[derive(Debug)]
pub struct Request {
    pub id: HeaderValue,
    pub method: Method,
    pub version: Version,
    /// Path and query as received; `None` where no access log wants them.
    pub path: Option<Box<str>>,
    /// The announced length of the body, in bytes.
    pub content_length: Option<u64>,
    /// The routing key's bytes; its first value, if it was given more than once.
    pub key: Option<Bytes>,
}

/// How long the parts of an exchange may take: the edge's settings, and where the placement
/// that serves it has its own, those.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// For connecting to a cell: its name, TCP and TLS.
    pub connect: Duration,
    /// From the request sent whole to the response's head, for one attempt.
    pub response_header: Duration,
    /// The same for all attempts together.
    pub request: Duration,
    /// Longest time without a byte in either direction.
    pub stream_idle: Duration,
    /// For an idle connection to a cell.
    pub upstream_idle: Duration,
}

/// How far an exchange has come. A new attempt begins again at [`Course::Connecting`].
#[derive(Debug)]
pub enum Course {
    /// No attempt was made yet, or one is to be repeated on a new connection.
    Deciding,
    /// Connecting to a backend.
    Connecting {
        /// With less time than the placement grants, because too little was left.
        hurried: bool,
    },
    /// Connected; nothing of an answer is here.
    Awaiting,
    /// The cell began to answer, but its final response is not accepted yet.
    Begun,
    /// The head of the final response is here, and no 5xx.
    Answered,
    /// The attempt, or the request as a whole, failed.
    Failed {
        failure: Failure,
        /// The cause of a failure that another attempt is to follow.
        cause: Option<String>,
    },
    /// Recorded, and everything given back.
    Ended,
}

/// One request and its answer.
#[derive(Debug)]
pub struct Exchange {
    recorder: Arc<Recorder>,
    started: Instant,
    /// The connection's side of it.
    pub(crate) downstream: Arc<Downstream>,
    pub(crate) request: Request,
    pub(crate) timeouts: Timeouts,
    /// Where it goes, once that is decided.
    pub(crate) destination: Option<Destination>,
    pub(crate) course: Course,
    /// Attempts so far. Repeating one because a kept connection broke is none.
    pub(crate) attempts: u32,
    /// A kept connection broke under it, so that it is sent on new ones only.
    pub(crate) new_connection: bool,
    /// Status of the final response as passed to the client.
    status: Option<u16>,
    /// Counts the request as in flight until the exchange is dropped.
    _in_flight: CountGuard,
}

impl Exchange {
    /// Begins the exchange of a request whose head was judged.
    pub fn begin(
        recorder: Arc<Recorder>,
        in_flight: CountGuard,
        downstream: Arc<Downstream>,
        request: Request,
        timeouts: Timeouts,
    ) -> Self {
        Exchange {
            recorder,
            started: Instant::now(),
            downstream,
            request,
            timeouts,
            destination: None,
            course: Course::Deciding,
            attempts: 0,
            new_connection: false,
            status: None,
            _in_flight: in_flight,
        }
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    /// Who asks.
    pub fn client(&self) -> &Client {
        self.downstream.client()
    }

    pub fn id(&self) -> &HeaderValue {
        &self.request.id
    }

    /// The id as text; ids are visible ASCII.
    pub fn id_str(&self) -> &str {
        self.request.id.to_str().unwrap_or_default()
    }

    /// The routing key's bytes; empty if there is none.
    pub fn key(&self) -> &[u8] {
        self.request.key.as_deref().unwrap_or_default()
    }

    /// Sets the timeouts, also those that the connection watches.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.timeouts = timeouts;
        self.downstream.set_deadlines(Deadlines {
            response_header: timeouts.response_header,
            request: timeouts.request,
            stream_idle: timeouts.stream_idle,
        });
    }

    /// What it failed by, if it did.
    pub fn failure(&self) -> Option<Failure> {
        match self.course {
            Course::Failed { failure, .. } => Some(failure),
            _ => None,
        }
    }

    /// Which failure an error of the engine amounts to: the one that is known already, else
    /// the one that the connection saw, else `otherwise`. The connection comes first because
    /// an engine sees a passed deadline only as a client that cannot be read.
    pub fn judge(&self, otherwise: Failure) -> Failure {
        let seen = || self.downstream.fault().map(Failure::from);
        self.failure().or_else(seen).unwrap_or(otherwise)
    }

    /// It failed. The cause of an earlier failure is kept.
    pub fn fail(&mut self, failure: Failure) {
        let cause = match &mut self.course {
            Course::Failed { cause, .. } => cause.take(),
            _ => None,
        };
        self.course = Course::Failed { failure, cause };
    }

    /// An attempt failed, and another is to follow: `cause` says why, should there be none.
    pub fn retry_after(&mut self, failure: Failure, cause: String) {
        let cause = Some(cause);
        self.course = Course::Failed { failure, cause };
    }

    /// A kept connection broke before the cell began to answer. The attempt is repeated on a
    /// new one. That is no further attempt: when a cell dies, all kept connections to it
    /// break at once.
    pub fn repeat_on_new_connection(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
        self.new_connection = true;
        self.course = Course::Deciding;
    }

    /// An attempt begins.
    pub fn connecting(&mut self, hurried: bool) {
        self.attempts += 1;
        self.course = Course::Connecting { hurried };
    }

    /// There is a connection to the cell.
    pub fn connected(&mut self, reused: bool) {
        // The first attempt on a kept connection begins when the request is here.
        if !reused || self.attempts > 1 {
            self.downstream.attempt_started();
        }
        if let Some(destination) = &self.destination {
            destination
                .placement()
                .state
                .metrics
                .upstream_connect_ok(reused);
        }
        if let Some(attempt) = self.attempt_mut().filter(|_| !reused) {
            attempt.connected();
        }
        self.course = Course::Awaiting;
    }

    /// The cell began to answer.
    pub fn answer_begins(&mut self) {
        // An engine may read the answer after it found out that the request failed.
        if !matches!(self.course, Course::Failed { .. }) {
            self.course = Course::Begun;
        }
    }

    /// A 1xx other than 101 is here.
    pub fn interim_answer(&self) {
        self.downstream.continued();
    }

    /// The head of a valid final response is here.
    pub fn answered(&mut self, status: u16) {
        let (tunnel, error) = (status == 101, status >= 500);
        match tunnel {
            true => self.downstream.tunnel_started(),
            false => self.downstream.response_started(),
        }
        if let Some(attempt) = self.attempt_mut() {
            match (tunnel, error) {
                // What the two sides send each other from here on, and how it ends, says
                // nothing about the cell.
                (true, _) => attempt.completed(),
                (_, true) => attempt.answered_badly(status),
                _ => attempt.answered(),
            }
        }
        if !error && !matches!(self.course, Course::Failed { .. }) {
            self.course = Course::Answered;
        }
    }

    /// The head of a final response goes to the client.
    pub fn passes_answer(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// Whether the cell began to answer the current attempt, well or not.
    pub fn has_begun(&self) -> bool {
        matches!(self.course, Course::Begun | Course::Answered)
    }

    pub fn is_answered(&self) -> bool {
        matches!(self.course, Course::Answered)
    }

    pub(crate) fn admitted_mut(&mut self) -> Option<&mut Admitted> {
        match &mut self.destination.as_mut()?.hold {
            Hold::Admitted(admitted) => Some(admitted),
            Hold::Nothing | Hold::Rejected(_) => None,
        }
    }

    pub(crate) fn attempt_mut(&mut self) -> Option<&mut Attempt> {
        self.admitted_mut()?.attempt.as_mut()
    }
}
