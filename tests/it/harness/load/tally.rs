//! The results of a load.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use hdrhistogram::Histogram;

/// How many failures are kept as text.
const KEPT: usize = 5;

/// Why a request counts as failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A complete response other than 200, and the edge's stable error code if it has one.
    Status { status: u16, error: Option<String> },
    /// A truncated response.
    Cut(String),
    /// A new connection ended before the first byte of a response.
    Unanswered,
    /// No byte of a response arrived in time, or the request could not be sent.
    Silent(String),
    /// No connection.
    Connect(String),
    /// A response that contradicts itself, or from a placement where the key does not live. No test should
    /// expect it.
    Wrong(String),
}

/// Counts of requests by outcome.
#[derive(Default)]
pub struct Tally {
    pub ok: u64,
    /// Failures that nobody expected.
    pub failed: u64,
    /// Failures that [`super::Plan::expect`] names.
    pub expected: u64,
    /// The first few unexpected failures.
    pub failures: Vec<String>,
    /// When the first and the last failure of either kind ended, since the load began.
    pub failing: Option<(Duration, Duration)>,
    /// Complete responses by status, 200 included.
    pub statuses: BTreeMap<u16, u64>,
    /// Complete responses by the edge's stable error code.
    pub errors: BTreeMap<String, u64>,
    /// Complete responses of any status by `X-Routed-To`.
    pub routed: BTreeMap<String, u64>,
    /// Good responses by cell.
    pub cells: BTreeMap<String, u64>,
    pub connections: u64,
    /// Requests retried on a new connection because a kept connection was closed before the first byte of a
    /// response, as every HTTP client does (RFC 9110, section 9.2.2).
    pub retried: u64,
    /// Clients that ended because their connection was refused.
    pub refused: u64,
    /// Requests that fell due and were never sent, because no client became free.
    pub unsent: u64,
    pub slowest: Duration,
    /// Latencies of good responses in microseconds, by group of keys.
    latencies: BTreeMap<String, Histogram<u64>>,
}

/// Latencies of the good responses of one group of keys. Failed requests are not included.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    pub count: u64,
    pub p50: Duration,
    pub p99: Duration,
    pub p999: Duration,
    pub max: Duration,
}

impl Tally {
    pub(super) fn add(&mut self, other: Tally) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.expected += other.expected;
        self.failures.extend(other.failures);
        self.connections += other.connections;
        self.retried += other.retried;
        self.refused += other.refused;
        self.unsent += other.unsent;
        self.slowest = self.slowest.max(other.slowest);
        self.failing = match (self.failing, other.failing) {
            (Some(ours), Some(theirs)) => Some((ours.0.min(theirs.0), ours.1.max(theirs.1))),
            (ours, theirs) => ours.or(theirs),
        };
        sum(&mut self.statuses, other.statuses);
        sum(&mut self.errors, other.errors);
        sum(&mut self.routed, other.routed);
        sum(&mut self.cells, other.cells);
        for (group, latencies) in other.latencies {
            let ours = self.latencies.entry(group).or_insert_with(histogram);
            ours.add(latencies).expect("it resizes itself");
        }
    }

    /// Counts a complete response of any status.
    pub(super) fn answer(&mut self, status: u16, error: Option<&str>, routed_to: Option<&str>) {
        *self.statuses.entry(status).or_default() += 1;
        for (counts, name) in [(&mut self.errors, error), (&mut self.routed, routed_to)] {
            if let Some(name) = name {
                *counts.entry(name.to_owned()).or_default() += 1;
            }
        }
    }

    /// Counts a good response.
    pub(super) fn good(&mut self, cell: String, group: &str, latency: Duration) {
        self.ok += 1;
        *self.cells.entry(cell).or_default() += 1;
        self.slowest = self.slowest.max(latency);
        if !self.latencies.contains_key(group) {
            self.latencies.insert(group.to_owned(), histogram());
        }
        let latencies = self.latencies.get_mut(group).expect("just inserted");
        let microseconds = u64::try_from(latency.as_micros()).expect("a latency");
        latencies.record(microseconds).expect("it resizes itself");
    }

    /// Counts a failure that ended `at` after the load began.
    pub(super) fn fail(&mut self, key: &str, failure: &Failure, expected: bool, at: Duration) {
        let (first, last) = self.failing.unwrap_or((at, at));
        self.failing = Some((first.min(at), last.max(at)));
        if expected {
            self.expected += 1;
            return;
        }
        self.failed += 1;
        if self.failures.len() < KEPT {
            self.failures.push(format!("key {key}: {failure:?}"));
        }
    }

    /// The latencies of a group that had at least one good response.
    #[track_caller]
    pub fn latency(&self, group: &str) -> Latency {
        let Some(latencies) = self.latencies.get(group) else {
            panic!("no good answer in group {group:?}: {self:?}");
        };
        let at = |quantile| Duration::from_micros(latencies.value_at_quantile(quantile));
        Latency {
            count: latencies.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: Duration::from_micros(latencies.max()),
        }
    }

    /// Asserts that there were good responses and no unexpected failures.
    #[track_caller]
    pub fn assert_no_failure(&self) {
        assert_eq!(self.failed, 0, "failed requests: {self:#?}");
        assert_eq!(self.unsent, 0, "requests that were never sent: {self:#?}");
        assert!(self.ok > 0, "no request at all: {self:?}");
    }

    pub fn summary(&self, elapsed: Duration) -> String {
        let mut text = format!(
            "{} requests in {elapsed:.1?} ({:.0}/s), {} failed, {} failed as expected, {} sent again, \
             slowest {:.0?};",
            self.ok,
            self.ok as f64 / elapsed.as_secs_f64(),
            self.failed,
            self.expected,
            self.retried,
            self.slowest
        );
        for (cell, count) in &self.cells {
            let _ = write!(text, " {cell}: {count}");
        }
        text
    }
}

/// Shows latencies as percentiles; a derived implementation would list every bucket.
impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.latencies.keys();
        let latencies: BTreeMap<_, _> = groups.map(|group| (group, self.latency(group))).collect();
        f.debug_struct("Tally")
            .field("ok", &self.ok)
            .field("failed", &self.failed)
            .field("expected", &self.expected)
            .field("unsent", &self.unsent)
            .field("failures", &self.failures)
            .field("failing", &self.failing)
            .field("statuses", &self.statuses)
            .field("errors", &self.errors)
            .field("routed", &self.routed)
            .field("cells", &self.cells)
            .field("connections", &self.connections)
            .field("retried", &self.retried)
            .field("refused", &self.refused)
            .field("slowest", &self.slowest)
            .field("latencies", &latencies)
            .finish()
    }
}

fn sum<K: Ord>(ours: &mut BTreeMap<K, u64>, theirs: BTreeMap<K, u64>) {
    for (name, count) in theirs {
        *ours.entry(name).or_default() += count;
    }
}

/// Three significant digits: a percentile is off by at most a thousandth. No upper bound, so that slow
/// requests are recorded in full.
fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are valid")
}
