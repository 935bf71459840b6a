//! The settings of a placement, each with its meaning, range and default.
//!
//! These are plain values. `resilience` has the state machines that use them, and `proxy`
//! applies them to requests.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;

/// The settings of a placement. The default is that of a document without settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    pub load_balancing: LoadBalancing,
    /// The value of `X-Route-Reason` for the placement's keys. `None`: it depends on the name
    /// of the placement and the number of its keys.
    pub tenancy: Option<Tenancy>,
    /// `None`: endpoints are never probed and count as healthy.
    pub health_check: Option<HealthCheck>,
    /// `None`: endpoints have no circuit breaker.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// Most requests in flight at a time, at least 1; `None`: no limit.
    pub concurrency_limit: Option<u32>,
    /// Largest request body in bytes; `None`: no limit. 0 allows only requests without a body.
    pub max_request_body_bytes: Option<u64>,
    pub timeouts: Timeouts,
    pub retries: Retries,
    pub host_header: HostHeader,
}

impl Policy {
    /// The names of the fields in which this differs from `other`.
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

/// How an endpoint is chosen for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadBalancing {
    /// The one with fewer requests in flight of two endpoints that are drawn by weight.
    #[default]
    LeastRequest,
    /// In turn, each as often as its weight says.
    RoundRobin,
    /// By routing key: a key always has the same endpoint. If an endpoint is removed, only its
    /// keys move.
    Hash,
}

impl LoadBalancing {
    /// All values.
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

/// Whether a placement is for one tenant or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tenancy {
    /// One tenant: the reason is `dedicated`.
    Dedicated,
    /// Several: the reason is `tier`.
    Shared,
}

impl Tenancy {
    /// All values.
    pub const ALL: [Tenancy; 2] = [Self::Dedicated, Self::Shared];

    /// `dedicated` or `shared`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dedicated => "dedicated",
            Self::Shared => "shared",
        }
    }
}

/// Probes: requests that the edge sends to find out whether an endpoint works.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HealthCheck {
    /// The path of the GET request: begins with a slash, may have a query.
    pub path: String,
    /// The time between two probes, 100 ms to 1 day.
    pub interval: Duration,
    /// The timeout from connecting to the response header, 1 ms to 1 day, at most `interval`.
    pub timeout: Duration,
    /// Successive successful probes after which an unhealthy endpoint is healthy, 1 to 100.
    pub healthy_threshold: u32,
    /// Successive failed probes after which an endpoint is unhealthy, 1 to 100.
    pub unhealthy_threshold: u32,
    /// The statuses of a successful probe, 200 to 599; never empty.
    pub expected_status: Vec<RangeInclusive<u16>>,
    /// The Host header; `None`: the host of the endpoint.
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
    /// Whether a probe with this status is successful.
    pub fn expects(&self, status: u16) -> bool {
        self.expected_status
            .iter()
            .any(|range| range.contains(&status))
    }
}

/// When a failing endpoint gets no more requests, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CircuitBreaker {
    /// Successive failures after which the breaker opens, 1 to 10000.
    pub failure_threshold: u32,
    /// How long it stays open before it admits a trial request, 1 ms to 1 day.
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

/// Timeouts, 1 ms to 1 day each; `None`: that of `cellgate.timeouts` in the settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// One attempt to connect, TLS included.
    pub connect: Option<Duration>,
    /// One attempt, from the end of the request to the response header.
    pub response_header: Option<Duration>,
    /// All attempts together, from the end of the request to the response header.
    pub request: Option<Duration>,
    /// The longest time without a byte in either direction.
    pub stream_idle: Option<Duration>,
    /// How long an unused connection to the cell is kept.
    pub upstream_idle: Option<Duration>,
}

/// Which failed attempts are retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Retries {
    /// The most attempts, including the first, 1 to 10.
    pub attempts: u32,
    /// Retry if connecting failed: refused, timed out, TLS error. Nothing was sent, so this is
    /// safe for every request.
    pub on_connect: bool,
    /// Retry if the connection broke before the first byte of the response. Applies only to
    /// idempotent requests (RFC 9110, section 9.2.2) without a body.
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

/// The Host header of requests to a cell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum HostHeader {
    /// That of the client.
    #[default]
    Preserve,
    /// The host of the endpoint, with its port unless it is the default of the scheme.
    Rewrite,
    /// This value.
    Fixed(String),
}
