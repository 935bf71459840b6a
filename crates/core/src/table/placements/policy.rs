//! The fields that `defaults` and placements have in common, read on top of
//! what is inherited.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::fallback::Fallback;
use super::fields::host_header;
use super::fields::{bytes, choice, duration, object, refuse_null, whole};
use super::health::{self, HEALTH_CHECK, Pair};
use crate::table::findings::{Findings, Path};
use crate::table::locate::Raw;
use crate::table::object::Entry;
use crate::table::policy::{CircuitBreaker, LoadBalancing, Policy, Retries, Tenancy, Timeouts};
use crate::table::wording::unknown;

pub(super) const FALLBACK: &str = "fallback";
const TENANCY: &str = "tenancy";
const LOAD_BALANCING: &str = "load_balancing";
const CIRCUIT_BREAKER: &str = "circuit_breaker";
const CONCURRENCY_LIMIT: &str = "concurrency_limit";
const MAX_REQUEST_BODY_BYTES: &str = "max_request_body_bytes";
const TIMEOUTS: &str = "timeouts";
const RETRIES: &str = "retries";
const HOST_HEADER: &str = "host_header";

/// What `defaults` may say.
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

/// What a placement may switch off with null.
pub(super) const NULLABLE: [&str; 6] = [
    HEALTH_CHECK,
    CIRCUIT_BREAKER,
    CONCURRENCY_LIMIT,
    MAX_REQUEST_BODY_BYTES,
    FALLBACK,
    TENANCY,
];

/// The longest of all times.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What deadlines may be.
pub(super) const DEADLINE: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST;

/// The largest number of bytes: up to here every reader of JSON reads the same
/// number (RFC 8259, section 6).
const BYTES_MAX: u64 = 1 << 53;

/// A policy while it is being read, and what goes with it.
pub(super) struct Reading<'a> {
    pub policy: Policy,
    pub fallback: Fallback<'a>,
    /// The times of the `health_check` that was read, if one was.
    pub times: Option<Pair<'a>>,
}

impl<'a> Reading<'a> {
    /// Starts with what is inherited.
    pub fn on(policy: Policy) -> Self {
        Self {
            policy,
            fallback: Fallback::Inherited,
            times: None,
        }
    }

    /// Switches off what is inherited of `field`, one of [`NULLABLE`].
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

    /// Reads `entry` when it is one of [`FIELDS`]. What cannot be read is
    /// reported and stays as it was inherited.
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
                set_some(&mut policy.tenancy, findings.keep(value, path, read));
            }
            LOAD_BALANCING => {
                let what = "load balancing";
                let read = choice(value, what, &LoadBalancing::ALL, LoadBalancing::as_str);
                set(&mut policy.load_balancing, findings.keep(value, path, read));
            }
            HEALTH_CHECK => {
                let base = policy.health_check.take().unwrap_or_default();
                let (check, times) = health::read(value, path, base, findings);
                policy.health_check = Some(check);
                self.times = Some(times);
            }
            CIRCUIT_BREAKER => {
                let breaker = policy.circuit_breaker.get_or_insert_default();
                circuit_breaker(value, path, breaker, findings);
            }
            CONCURRENCY_LIMIT => {
                let read = whole(value, 1..=u32::MAX);
                set_some(
                    &mut policy.concurrency_limit,
                    findings.keep(value, path, read),
                );
            }
            MAX_REQUEST_BODY_BYTES => {
                let read = bytes(value, 0..=BYTES_MAX);
                set_some(
                    &mut policy.max_request_body_bytes,
                    findings.keep(value, path, read),
                );
            }
            TIMEOUTS => timeouts(value, path, &mut policy.timeouts, findings),
            RETRIES => retries(value, path, &mut policy.retries, findings),
            HOST_HEADER => set(
                &mut policy.host_header,
                findings.keep(value, path, host_header(value)),
            ),
            _ => {}
        }
    }
}

/// Takes what was read; what was not leaves `slot` as it is.
pub(super) fn set<T>(slot: &mut T, read: Option<T>) {
    if let Some(read) = read {
        *slot = read;
    }
}

fn set_some<T>(slot: &mut Option<T>, read: Option<T>) {
    if read.is_some() {
        *slot = read;
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
    members(
        value,
        path,
        &[THRESHOLD, TIMEOUT],
        findings,
        |entry, path, findings| {
            let value = entry.value;
            match &*entry.name {
                THRESHOLD => set(
                    &mut breaker.failure_threshold,
                    findings.keep(value, path, whole(value, 1..=10_000)),
                ),
                TIMEOUT => set(
                    &mut breaker.timeout,
                    findings.keep(value, path, duration(value, DEADLINE)),
                ),
                _ => {}
            }
        },
    );
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
        let read = findings.keep(entry.value, path, duration(entry.value, DEADLINE));
        if let Some((_, slot)) = slots.iter_mut().find(|(name, _)| *name == entry.name) {
            set_some(slot, read);
        }
    });
}

fn retries<'a>(value: Raw<'a>, path: Path<'_>, retries: &mut Retries, findings: &mut Findings<'a>) {
    const ATTEMPTS: &str = "attempts";
    const ON: &str = "on";
    members(
        value,
        path,
        &[ATTEMPTS, ON],
        findings,
        |entry, path, findings| {
            let value = entry.value;
            match &*entry.name {
                ATTEMPTS => set(
                    &mut retries.attempts,
                    findings.keep(value, path, whole(value, 1..=10)),
                ),
                ON => {
                    if let Some((connect, reset)) = retried(value, path, findings) {
                        (retries.on_connect, retries.on_reset) = (connect, reset);
                    }
                }
                _ => {}
            }
        },
    );
}

/// Whether `connect` and `reset` are in the array. What cannot be read is
/// reported.
fn retried<'a>(
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

/// Calls `read` with each member of an object with `fields`, but for those that
/// are null, which is reported.
fn members<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    fields: &[&str],
    findings: &mut Findings<'a>,
    mut read: impl FnMut(&Entry<'a>, Path<'_>, &mut Findings<'a>),
) {
    object(value, path, fields, findings, |entry, findings| {
        let path = path.child(&entry.name);
        if !refuse_null(&entry, path, findings) {
            read(&entry, path, findings);
        }
    });
}
