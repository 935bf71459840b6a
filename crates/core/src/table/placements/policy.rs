//! Reads the settings that `defaults` and placements have in common.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::fallback::Fallback;
use super::health_check::{self, HEALTH_CHECK, Times};
use super::values::{bytes, choice, duration, host_header, members, whole};
use crate::table::findings::{Entry, Findings, Path};
use crate::table::json::Raw;
use crate::table::policy::{CircuitBreaker, LoadBalancing, Policy, Retries, Tenancy, Timeouts};
use crate::table::problem::unknown;

pub(super) const FALLBACK: &str = "fallback";
const TENANCY: &str = "tenancy";
const LOAD_BALANCING: &str = "load_balancing";
const CIRCUIT_BREAKER: &str = "circuit_breaker";
const CONCURRENCY_LIMIT: &str = "concurrency_limit";
const MAX_REQUEST_BODY_BYTES: &str = "max_request_body_bytes";
const TIMEOUTS: &str = "timeouts";
const RETRIES: &str = "retries";
const HOST_HEADER: &str = "host_header";

/// The fields of `defaults`.
pub(super) const FIELDS: [&str; 10] = [
    FALLBACK,
    TENANCY,
    LOAD_BALANCING,
    HEALTH_CHECK,
    CIRCUIT_BREAKER,
    CONCURRENCY_LIMIT,
    MAX_REQUEST_BODY_BYTES,
    TIMEOUTS,
    RETRIES,
    HOST_HEADER,
];

/// The fields that a placement may switch off with null.
pub(super) const NULLABLE: [&str; 6] = [
    HEALTH_CHECK,
    CIRCUIT_BREAKER,
    CONCURRENCY_LIMIT,
    MAX_REQUEST_BODY_BYTES,
    FALLBACK,
    TENANCY,
];

/// The longest duration of all settings.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The range of timeouts.
pub(super) const DEADLINE: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST;

/// The largest number of bytes. All readers of JSON agree on integers up to here
/// (RFC 8259, section 6).
const BYTES_MAX: u64 = 1 << 53;

/// Reads settings on top of inherited ones.
pub(super) struct PolicyReader<'a> {
    pub policy: Policy,
    pub fallback: Fallback<'a>,
    /// The times of `health_check`, if it was read.
    pub times: Option<Times<'a>>,
}

impl<'a> PolicyReader<'a> {
    /// Starts with the inherited policy.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            fallback: Fallback::Inherited,
            times: None,
        }
    }

    /// Switches off `field`, one of [`NULLABLE`].
    pub fn off(&mut self, field: &str) {
        let policy = &mut self.policy;
        match field {
            HEALTH_CHECK => policy.health_check = None,
            CIRCUIT_BREAKER => policy.circuit_breaker = None,
            CONCURRENCY_LIMIT => policy.concurrency_limit = None,
            MAX_REQUEST_BODY_BYTES => policy.max_request_body_bytes = None,
            FALLBACK => self.fallback = Fallback::Off,
            TENANCY => policy.tenancy = None,
            _ => {}
        }
    }

    /// Reads `entry` if it is one of [`FIELDS`]. Reports a value that cannot be read; the
    /// inherited one stays.
    pub fn field(&mut self, entry: &Entry<'a>, path: Path<'_>, findings: &mut Findings<'a>) {
        let value = entry.value;
        let policy = &mut self.policy;
        match &*entry.name {
            FALLBACK => {
                self.fallback = match findings.keep(value, path, value.string()) {
                    Some(_) => Fallback::To(value),
                    None => Fallback::Off,
                };
            }
            TENANCY => {
                let read = choice(value, TENANCY, &Tenancy::ALL, Tenancy::as_str);
                findings.set(&mut policy.tenancy, value, path, read);
            }
            LOAD_BALANCING => {
                let what = "load balancing";
                let read = choice(value, what, &LoadBalancing::ALL, LoadBalancing::as_str);
                findings.set(&mut policy.load_balancing, value, path, read);
            }
            HEALTH_CHECK => {
                let check = policy.health_check.get_or_insert_default();
                self.times = Some(health_check::read(value, path, check, findings));
            }
            CIRCUIT_BREAKER => {
                let breaker = policy.circuit_breaker.get_or_insert_default();
                circuit_breaker(value, path, breaker, findings);
            }
            CONCURRENCY_LIMIT => {
                let read = whole(value, 1..=u32::MAX);
                findings.set(&mut policy.concurrency_limit, value, path, read);
            }
            MAX_REQUEST_BODY_BYTES => {
                let read = bytes(value, 0..=BYTES_MAX);
                findings.set(&mut policy.max_request_body_bytes, value, path, read);
            }
            TIMEOUTS => timeouts(value, path, &mut policy.timeouts, findings),
            RETRIES => retries(value, path, &mut policy.retries, findings),
            HOST_HEADER => {
                findings.set(&mut policy.host_header, value, path, host_header(value));
            }
            _ => {}
        }
    }
}

fn circuit_breaker<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    breaker: &mut CircuitBreaker,
    findings: &mut Findings<'a>,
) {
    const THRESHOLD: &str = "failure_threshold";
    const TIMEOUT: &str = "timeout";
    let read = |entry: &Entry<'a>, path: Path<'_>, findings: &mut Findings<'a>| {
        let value = entry.value;
        if entry.name == THRESHOLD {
            let read = whole(value, 1..=10_000_u32);
            findings.set(&mut breaker.failure_threshold, value, path, read);
        } else {
            findings.set(&mut breaker.timeout, value, path, duration(value, DEADLINE));
        }
    };
    members(value, path, &[THRESHOLD, TIMEOUT], findings, read);
}

fn timeouts<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    timeouts: &mut Timeouts,
    findings: &mut Findings<'a>,
) {
    let mut slots = [
        ("connect", &mut timeouts.connect),
        ("response_header", &mut timeouts.response_header),
        ("request", &mut timeouts.request),
        ("stream_idle", &mut timeouts.stream_idle),
        ("upstream_idle", &mut timeouts.upstream_idle),
    ];
    let names = slots.each_ref().map(|(name, _)| *name);
    members(value, path, &names, findings, |entry, path, findings| {
        if let Some((_, slot)) = slots.iter_mut().find(|(name, _)| *name == entry.name) {
            findings.set(*slot, entry.value, path, duration(entry.value, DEADLINE));
        }
    });
}

fn retries<'a>(value: Raw<'a>, path: Path<'_>, retries: &mut Retries, findings: &mut Findings<'a>) {
    const ATTEMPTS: &str = "attempts";
    const ON: &str = "on";
    let read = |entry: &Entry<'a>, path: Path<'_>, findings: &mut Findings<'a>| {
        let value = entry.value;
        if entry.name == ATTEMPTS {
            findings.set(&mut retries.attempts, value, path, whole(value, 1..=10_u32));
        } else if let Some((connect, reset)) = retry_causes(value, path, findings) {
            (retries.on_connect, retries.on_reset) = (connect, reset);
        }
    };
    members(value, path, &[ATTEMPTS, ON], findings, read);
}

/// Reads the array `on`: whether `connect` and `reset` are in it.
fn retry_causes<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    findings: &mut Findings<'a>,
) -> Option<(bool, bool)> {
    const CAUSES: [&str; 2] = ["connect", "reset"];
    let mut seen = [None; CAUSES.len()];
    let mut index = 0;
    let is_array = value.each_element(|element| {
        let path = path.element(index);
        index += 1;
        if let Some(cause) = findings.keep(element, path, element.string()) {
            let slot = CAUSES
                .iter()
                .zip(&mut seen)
                .find(|(name, _)| **name == cause);
            match slot {
                None => findings.at(element, path, || {
                    unknown("cause of a retry", &cause, CAUSES.into_iter())
                }),
                Some((_, Some(first))) => {
                    findings.duplicate(element, *first, path, || "duplicate cause of a retry");
                }
                Some((_, slot)) => *slot = Some(element),
            }
        }
        findings.flow()
    });
    if !is_array {
        findings.at(value, path, || {
            format!(
                "expected an array of \"connect\", \"reset\" or both, found {}",
                value.described()
            )
        });
        return None;
    }
    let [connect, reset] = seen.map(|place| place.is_some());
    Some((connect, reset))
}
