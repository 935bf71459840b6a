//! How the requests of one placement are treated: the values that a document
//! may set, each with its meaning, range and default.
//!
//! Plain values. What is done with them is told elsewhere: the state machines
//! are in `resilience`, the request's way is in `proxy`.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;

/// How the requests of one placement are treated. The default is what a
/// placement gets in a document that says nothing of all this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    pub load_balancing: LoadBalancing,
    /// What `X-Route-Reason` says of the placement's keys, instead of what the
    /// table suggests.
    pub tenancy: Option<Tenancy>,
    /// None: endpoints are never probed, and count as healthy.
    pub health_check: Option<HealthCheck>,
    /// None: no failure closes an endpoint to requests.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// Most requests in flight at a time, from 1; none: no limit.
    pub concurrency_limit: Option<u32>,
    /// Largest request body in bytes; none: no limit. 0 allows only requests
    /// without one.
    pub max_request_body_bytes: Option<u64>,
    pub timeouts: Timeouts,
    pub retries: Retries,
    pub host_header: HostHeader,
}

impl Policy {
    /// The fields, as documents spell them, in which this differs from `other`.
    pub fn differences(&self, other: &Policy) -> Vec<&'static str> {
        let Self {
            load_balancing,
            tenancy,
            health_check,
            circuit_breaker,
            concurrency_limit,
            max_request_body_bytes,
            timeouts,
            retries,
            host_header,
        } = self;
        [
            ("tenancy", *tenancy != other.tenancy),
            ("load_balancing", *load_balancing != other.load_balancing),
            ("health_check", *health_check != other.health_check),
            ("circuit_breaker", *circuit_breaker != other.circuit_breaker),
            (
                "concurrency_limit",
                *concurrency_limit != other.concurrency_limit,
            ),
            (
                "max_request_body_bytes",
                *max_request_body_bytes != other.max_request_body_bytes,
            ),
            ("timeouts", *timeouts != other.timeouts),
            ("retries", *retries != other.retries),
            ("host_header", *host_header != other.host_header),
        ]
        .into_iter()
        .filter_map(|(field, differs)| differs.then_some(field))
        .collect()
    }
}

/// How one of a placement's endpoints is chosen for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadBalancing {
    /// Of two endpoints drawn by weight, the one with fewer requests in flight.
    #[default]
    LeastRequest,
    /// One after the other, each as often as its weight says.
    RoundRobin,
    /// By routing key, the same key to the same endpoint; when an endpoint
    /// leaves, only its own keys move.
    Hash,
}

impl LoadBalancing {
    /// Every way, as documents spell them.
    pub const ALL: [LoadBalancing; 3] = [Self::LeastRequest, Self::RoundRobin, Self::Hash];

    /// `least_request`, `round_robin` or `hash`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LeastRequest => "least_request",
            Self::RoundRobin => "round_robin",
            Self::Hash => "hash",
        }
    }
}

/// Whom a placement is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tenancy {
    /// One tenant: the reason is `dedicated`.
    Dedicated,
    /// Several: the reason is `tier`.
    Shared,
}

impl Tenancy {
    /// Both, as documents spell them.
    pub const ALL: [Tenancy; 2] = [Self::Dedicated, Self::Shared];

    /// `dedicated` or `shared`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dedicated => "dedicated",
            Self::Shared => "shared",
        }
    }
}

/// Requests of the edge's own that find out whether an endpoint works.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HealthCheck {
    /// What is asked for with GET: begins with a slash; may have a query.
    pub path: String,
    /// From one probe to the next, 100 ms to 1 day.
    pub interval: Duration,
    /// From connecting to the response's header, 1 ms to 1 day, at most `interval`.
    pub timeout: Duration,
    /// Probes in a row that must go well before an unhealthy endpoint counts as
    /// healthy again, 1 to 100.
    pub healthy_threshold: u32,
    /// Probes in a row that must fail before an endpoint counts as unhealthy,
    /// 1 to 100.
    pub unhealthy_threshold: u32,
    /// Statuses that are well, 200 to 599; never empty.
    pub expected_status: Vec<RangeInclusive<u16>>,
    /// The Host header; none: the endpoint's own.
    pub host: Option<String>,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: "/health".to_owned(),
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            healthy_threshold: 2,
            unhealthy_threshold: 3,
            expected_status: vec![200..=299],
            host: None,
        }
    }
}

impl HealthCheck {
    /// Whether a probe that was answered with `status` went well.
    pub fn expects(&self, status: u16) -> bool {
        self.expected_status
            .iter()
            .any(|range| range.contains(&status))
    }
}

/// When an endpoint that fails gets no more requests, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CircuitBreaker {
    /// Failures in a row that open it, 1 to 10000.
    pub failure_threshold: u32,
    /// How long it stays open before one request may try, 1 ms to 1 day.
    pub timeout: Duration,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            timeout: Duration::from_secs(30),
        }
    }
}

/// Deadlines that differ from those of the settings. 1 ms to 1 day each; none:
/// as `cellgate.timeouts` has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// One attempt to connect, TLS included.
    pub connect: Option<Duration>,
    /// From the request read whole to the response's header, one attempt.
    pub response_header: Option<Duration>,
    /// The same for all attempts together.
    pub request: Option<Duration>,
    /// Longest time without a byte in either direction.
    pub stream_idle: Option<Duration>,
    /// How long an unused connection to the cell is kept.
    pub upstream_idle: Option<Duration>,
}

/// What is tried again when an attempt fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Retries {
    /// Attempts in all, the first included, 1 to 10.
    pub attempts: u32,
    /// No connection came about: refused, timed out, TLS failed. Nothing was
    /// sent, so this is safe for every request.
    pub on_connect: bool,
    /// The connection broke before a byte of the response. Only requests that
    /// may be repeated (RFC 9110 §9.2.2) and have no body.
    pub on_reset: bool,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 3,
            on_connect: true,
            on_reset: false,
        }
    }
}

/// What a cell gets as Host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum HostHeader {
    /// What the client sent.
    #[default]
    Preserve,
    /// The endpoint's host, and its port unless it is the scheme's default.
    Rewrite,
    /// Always this.
    Fixed(String),
}
