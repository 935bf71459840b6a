//! What went wrong with a request: one stable code and status for each case.

use crate::http::{Expiry, Fault, Refusal};
use crate::upstream::{Cause, FailoverReason, Rejected};

/// A failed request, as reported to the client, the logs and the metrics.
///
/// The codes are part of the contract with clients: they never change meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// HTTP status; those of [`Failure::CLIENT_GONE`] and [`Failure::STOPPED`] are only logged,
    /// never sent.
    pub status: u16,
    /// Stable machine-readable code.
    pub code: &'static str,
    /// For people; it says nothing about the inside of the system.
    pub message: &'static str,
}

const fn failure(status: u16, code: &'static str, message: &'static str) -> Failure {
    Failure {
        status,
        code,
        message,
    }
}

impl Failure {
    pub const MISSING_KEY: Failure = failure(
        400,
        "missing_routing_key",
        "the routing key header is missing or empty",
    );
    pub const AMBIGUOUS_KEY: Failure = failure(
        400,
        "ambiguous_routing_key",
        "the routing key header occurs more than once",
    );
    pub const BAD_REQUEST: Failure = failure(400, "bad_request", "the request is not valid http");
    pub const CONNECT: Failure = failure(
        405,
        "method_not_allowed",
        "the method CONNECT is not supported",
    );
    pub const HEADER_TIMEOUT: Failure = failure(
        408,
        "request_header_timeout",
        "the request header did not arrive in time",
    );
    pub const BODY_TIMEOUT: Failure = failure(
        408,
        "request_body_timeout",
        "the request body stopped arriving",
    );
    pub const BODY_TOO_LARGE: Failure = failure(
        413,
        "body_too_large",
        "the request body is larger than the cell takes",
    );
    pub const CONCURRENCY_LIMIT: Failure = failure(
        429,
        "concurrency_limit",
        "the cell has as many requests in flight as it takes",
    );
    /// The answer had begun, so this is only ever logged.
    pub const CLIENT_STALLED: Failure = failure(
        408,
        "client_stalled",
        "the client did not take the response",
    );
    pub const HEADER_TOO_LARGE: Failure =
        failure(431, "header_too_large", "the request header is too large");
    /// The status nginx made customary for a client that did not wait.
    pub const CLIENT_GONE: Failure = failure(
        499,
        "client_closed_request",
        "the client closed the connection",
    );
    pub const INTERNAL: Failure = failure(500, "internal_error", "internal error");
    pub const TRANSFER_CODING: Failure = failure(
        501,
        "unsupported_transfer_coding",
        "only the transfer coding chunked is known",
    );
    pub const UNREACHABLE: Failure =
        failure(502, "upstream_unreachable", "the cell could not be reached");
    pub const UNRESOLVED: Failure = failure(
        502,
        "upstream_unresolved",
        "the cell's address is not known",
    );
    pub const UNVERIFIED: Failure = failure(
        502,
        "upstream_unverified",
        "the cell's identity could not be verified",
    );
    pub const BAD_RESPONSE: Failure = failure(
        502,
        "upstream_bad_response",
        "the cell's response was not valid or not complete",
    );
    /// The process ended before the exchange did, so this is only ever logged.
    pub const STOPPED: Failure = failure(503, "edge_stopped", "the edge was stopped");
    pub const NOT_READY: Failure = failure(503, "not_ready", "no routing table is loaded yet");
    pub const UNHEALTHY: Failure = failure(503, "upstream_unhealthy", "the cell is not healthy");
    pub const CIRCUIT_OPEN: Failure = failure(
        503,
        "circuit_open",
        "the cell failed too often and is given a pause",
    );
    pub const CONNECT_TIMEOUT: Failure = failure(
        504,
        "upstream_connect_timeout",
        "connecting to the cell took too long",
    );
    pub const RESPONSE_TIMEOUT: Failure = failure(
        504,
        "upstream_response_timeout",
        "the cell took too long to answer",
    );
    pub const REQUEST_TIMEOUT: Failure =
        failure(504, "request_timeout", "the request took too long");
    pub const STREAM_TIMEOUT: Failure =
        failure(504, "stream_idle_timeout", "no data moved for too long");
    pub const VERSION: Failure = failure(
        505,
        "http_version_not_supported",
        "only http/1.0 and http/1.1 are supported",
    );

    /// Whether it counts against the backend that it happened at.
    pub fn by_cell(self) -> bool {
        [
            Self::BAD_RESPONSE,
            Self::RESPONSE_TIMEOUT,
            Self::REQUEST_TIMEOUT,
            Self::STREAM_TIMEOUT,
        ]
        .contains(&self)
    }

    /// Whether the client caused it, so that it is no matter for the operator.
    pub fn by_client(self) -> bool {
        self.status < 500 || self == Self::TRANSFER_CODING || self == Self::VERSION
    }

    /// Label of `upstream_connect_failures`.
    pub fn connect_kind(self) -> &'static str {
        match self {
            Self::CONNECT_TIMEOUT => "timeout",
            Self::UNVERIFIED => "tls",
            Self::UNRESOLVED => "dns",
            _ => "other",
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed(_) => Self::BAD_REQUEST,
            Refusal::TransferCoding => Self::TRANSFER_CODING,
            Refusal::Version => Self::VERSION,
            Refusal::Connect => Self::CONNECT,
            Refusal::TooLarge => Self::HEADER_TOO_LARGE,
            Refusal::Timeout => Self::HEADER_TIMEOUT,
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(refusal) => refusal.into(),
            Fault::BadBody(_) => Self::BAD_REQUEST,
            Fault::Expired(expiry) => match expiry {
                Expiry::RequestBody => Self::BODY_TIMEOUT,
                Expiry::ResponseHeader => Self::RESPONSE_TIMEOUT,
                Expiry::Request => Self::REQUEST_TIMEOUT,
                Expiry::Stream => Self::STREAM_TIMEOUT,
                Expiry::ClientStalled => Self::CLIENT_STALLED,
            },
        }
    }
}

impl From<Rejected> for Failure {
    fn from(rejected: Rejected) -> Self {
        match rejected.cause {
            Cause::ConcurrencyLimit => Self::CONCURRENCY_LIMIT,
            Cause::Unavailable(FailoverReason::CircuitOpen) => Self::CIRCUIT_OPEN,
            Cause::Unavailable(FailoverReason::UpstreamUnhealthy) => Self::UNHEALTHY,
        }
    }
}
