//! What is counted by placement: requests, how long they took, and how the
//! connections to its cell went.
//!
//! A request counts with a handful of atomic additions on memory that its
//! generation already points to. Label sets are put together by whoever
//! scrapes, for the placements that were used: a table of ten thousand would
//! otherwise show a quarter of a million series before its first request.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::events::{self, Event, Events, GAUGES, KINDS};
use crate::table::RouteReason;

/// Status classes by index, from the one of status 100.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What a connection attempt can fail by, by index. The last one is for
/// everything else.
const FAILURES: [&str; 5] = ["refused", "timeout", "tls", "dns", "other"];

/// Upper bounds of the duration buckets in seconds, and the same in
/// microseconds, which is what a request is compared in.
const BUCKETS: [(f64, u64); 16] = [
    (0.0005, 500),
    (0.001, 1_000),
    (0.0025, 2_500),
    (0.005, 5_000),
    (0.01, 10_000),
    (0.025, 25_000),
    (0.05, 50_000),
    (0.1, 100_000),
    (0.25, 250_000),
    (0.5, 500_000),
    (1.0, 1_000_000),
    (2.5, 2_500_000),
    (5.0, 5_000_000),
    (10.0, 10_000_000),
    (30.0, 30_000_000),
    (60.0, 60_000_000),
];

/// The counters of one placement. Cheap to clone; generations that know the
/// same placement share them, so counters go on across reloads.
#[derive(Clone, Debug)]
pub struct PlacementMetrics {
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    requests: [[AtomicU64; CLASSES.len()]; RouteReason::ALL.len()],
    /// One more than [`BUCKETS`]: what took longer than the last of them.
    durations: [AtomicU64; BUCKETS.len() + 1],
    duration_micros: AtomicU64,
    connections_new: AtomicU64,
    connections_reused: AtomicU64,
    failures: [AtomicU64; FAILURES.len()],
    events: Events,
}

impl PlacementMetrics {
    /// Counts a request that was routed here and is over. `status` is what the
    /// client was sent, or what says why it was sent nothing (499: it left
    /// before its answer began); `seconds` is the whole time from its header to
    /// its last byte.
    pub fn request_done(&self, reason: RouteReason, status: u16, seconds: f64) {
        let class = match status {
            100..=599 => usize::from(status / 100) - 1,
            // Nothing of ours sends a status outside of the classes of RFC 9110
            // §15; a cell that does is as broken as one that answers 500.
            0..=99 | 600.. => CLASSES.len() - 1,
        };
        if let Some(counter) = self
            .counters
            .requests
            .get(reason as usize)
            .and_then(|classes| classes.get(class))
        {
            counter.fetch_add(1, Relaxed);
        }
        // A cast from float saturates, and makes 0 of what is no number.
        let micros = (seconds * 1e6) as u64;
        let bucket = BUCKETS.partition_point(|&(_, bound)| bound < micros);
        if let Some(bucket) = self.counters.durations.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
        self.counters.duration_micros.fetch_add(micros, Relaxed);
    }

    /// Requests so far, and those of them that were answered with 500 or above.
    pub fn requests(&self) -> (u64, u64) {
        let (mut all, mut errors) = (0, 0);
        for classes in &self.counters.requests {
            let count = |counter: &AtomicU64| counter.load(Relaxed);
            all += classes.iter().map(count).sum::<u64>();
            errors += classes.last().map_or(0, count);
        }
        (all, errors)
    }

    /// Counts a request that got a connection to the cell, a new one or one
    /// that was kept alive.
    pub fn upstream_connect_ok(&self, reused: bool) {
        let counter = if reused {
            &self.counters.connections_reused
        } else {
            &self.counters.connections_new
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Counts an attempt that got none. `kind` is one of `refused`, `timeout`,
    /// `tls`, `dns` and `other`; anything else counts as `other`.
    pub fn upstream_connect_failed(&self, kind: &'static str) {
        let index = FAILURES.iter().position(|known| *known == kind);
        if let Some(counter) = self
            .counters
            .failures
            .get(index.unwrap_or(FAILURES.len() - 1))
        {
            counter.fetch_add(1, Relaxed);
        }
    }
}

impl PlacementMetrics {
    /// Counts a request that the placement could not take: `concurrency_limit`,
    /// `body_too_large`, `circuit_open` or `upstream_unhealthy`.
    pub fn rejected(&self, reason: &'static str) {
        self.counters.events.count(Event::Rejected, reason);
    }

    /// Counts a request of this placement that its fallback served.
    pub fn failed_over(&self, reason: &'static str) {
        self.counters.events.count(Event::FailedOver, reason);
    }

    /// Counts an attempt after a failed one.
    pub fn retried(&self) {
        self.counters.events.count(Event::Retry, "made");
    }

    /// Counts an attempt that the retry budget forbade.
    pub fn retry_refused(&self) {
        self.counters.events.count(Event::Retry, "refused");
    }

    /// Counts a circuit breaker that is now `closed`, `open` or `half_open`.
    pub fn breaker_turned(&self, to: &'static str) {
        self.counters.events.count(Event::Breaker, to);
    }

    /// Counts an endpoint that is now `healthy` or `unhealthy`.
    pub fn health_turned(&self, to: &'static str) {
        self.counters.events.count(Event::Health, to);
    }

    /// Counts a health probe.
    pub fn probed(&self, well: bool) {
        let result = if well { "ok" } else { "failed" };
        self.counters.events.count(Event::Probe, result);
    }

    /// Shows how the placement is: requests in flight, and how many of its
    /// addresses may and may not be used.
    pub fn show(&self, in_flight: usize, usable: usize, unusable: usize) {
        self.counters.events.show(in_flight, usable, unusable);
    }
}

/// Every placement that a living generation knows, by name.
#[derive(Clone)]
pub(super) struct Placements {
    known: Arc<RwLock<HashMap<String, Arc<Counters>>>>,
    descriptions: Arc<[Desc]>,
}

const NAMES: [(&str, &str, MetricType); 4] = [
    (
        "cellgate_requests_total",
        "Requests routed to a placement, by reason and class of the answer's status",
        MetricType::COUNTER,
    ),
    (
        "cellgate_request_duration_seconds",
        "Time from a request's header to the last byte of its answer",
        MetricType::HISTOGRAM,
    ),
    (
        "cellgate_upstream_connections_total",
        "Connections to cells that requests were given, new ones and reused ones",
        MetricType::COUNTER,
    ),
    (
        "cellgate_upstream_connect_failures_total",
        "Attempts to connect to a cell that failed, by kind of failure",
        MetricType::COUNTER,
    ),
];

impl Placements {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let labels: [&[&str]; NAMES.len()] = [
            &["placement", "reason", "status"],
            &["placement"],
            &["placement", "reused"],
            &["placement", "kind"],
        ];
        let of_requests = NAMES
            .iter()
            .zip(labels)
            .map(|((name, help, _), labels)| describe(name, help, labels));
        let of_events = KINDS
            .iter()
            .map(|(name, help, label, _)| describe(name, help, &["placement", label]));
        let of_gauges = GAUGES
            .iter()
            .map(|(name, help, labels)| describe(name, help, labels));
        let descriptions = of_requests
            .chain(of_events)
            .chain(of_gauges)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            known: Arc::default(),
            descriptions: descriptions.into(),
        })
    }

    pub(super) fn get(&self, name: &str) -> PlacementMetrics {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let counters = match known.get(name) {
            Some(counters) => Arc::clone(counters),
            None => Arc::clone(known.entry(name.to_owned()).or_default()),
        };
        PlacementMetrics { counters }
    }

    /// Knows `name` by these counters, unless it knows it already.
    pub(super) fn keep(&self, name: &str, metrics: &PlacementMetrics) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if !known.contains_key(name) {
            known.insert(name.to_owned(), Arc::clone(&metrics.counters));
        }
    }

    pub(super) fn forget_except(&self, keep: &dyn Fn(&str) -> bool) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|name, _| keep(name));
    }
}

impl Collector for Placements {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let known: Vec<(String, Arc<Counters>)> = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            known
                .iter()
                .map(|(name, counters)| (name.clone(), Arc::clone(counters)))
                .collect()
        };
        let [mut requests, mut durations, mut connections, mut failures] =
            [const { Vec::new() }; NAMES.len()];
        for (name, counters) in &known {
            if !counters.used() {
                continue;
            }
            counters.add_requests(name, &mut requests);
            durations.push(counters.histogram(name));
            for (reused, counter) in [
                ("false", &counters.connections_new),
                ("true", &counters.connections_reused),
            ] {
                let labels = [("placement", name.as_str()), ("reused", reused)];
                connections.push(count(&labels, counter.load(Relaxed)));
            }
            for (kind, counter) in FAILURES.iter().zip(&counters.failures) {
                let labels = [("kind", *kind), ("placement", name.as_str())];
                failures.push(count(&labels, counter.load(Relaxed)));
            }
        }
        let of_requests = NAMES
            .into_iter()
            .zip([requests, durations, connections, failures])
            .map(|((name, help, kind), metrics)| family(name, help, kind, metrics));
        let of_events = events::families(
            known
                .iter()
                .filter(|(_, counters)| counters.used() || counters.events.any())
                .map(|(name, counters)| (name.as_str(), &counters.events)),
        );
        of_requests.chain(of_events).collect()
    }
}

impl Counters {
    /// Whether there ever was a request or an attempt to connect. From then on
    /// everything is shown, zeros too: a counter that came into being with its
    /// first failure would hide that one from `rate()`.
    fn used(&self) -> bool {
        let requests = self.requests.iter().flatten();
        let connections = [&self.connections_new, &self.connections_reused];
        requests
            .chain(connections)
            .chain(&self.failures)
            .any(|counter| counter.load(Relaxed) > 0)
    }

    /// All classes of every reason that was seen.
    fn add_requests(&self, placement: &str, out: &mut Vec<Metric>) {
        for (reason, classes) in RouteReason::ALL.into_iter().zip(&self.requests) {
            let seen: Vec<u64> = classes.iter().map(|count| count.load(Relaxed)).collect();
            if seen.iter().all(|count| *count == 0) {
                continue;
            }
            for (class, seen) in CLASSES.iter().zip(seen) {
                let labels = [
                    ("placement", placement),
                    ("reason", reason.as_str()),
                    ("status", class),
                ];
                out.push(count(&labels, seen));
            }
        }
    }

    fn histogram(&self, placement: &str) -> Metric {
        let mut sum = 0;
        let mut buckets = Vec::with_capacity(BUCKETS.len());
        let mut counts = self.durations.iter().map(|count| count.load(Relaxed));
        for (&(bound, _), count) in BUCKETS.iter().zip(&mut counts) {
            sum += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(sum);
            buckets.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        // From the buckets themselves, so that the two always agree.
        histogram.set_sample_count(sum + counts.sum::<u64>());
        histogram.set_sample_sum(self.duration_micros.load(Relaxed) as f64 / 1e6);
        let mut metric = Metric::from_label(labels(&[("placement", placement)]));
        metric.set_histogram(histogram);
        metric
    }
}

fn describe(name: &str, help: &str, labels: &[&str]) -> Result<Desc, prometheus::Error> {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())
}

pub(super) fn family(
    name: &str,
    help: &str,
    kind: MetricType,
    metrics: Vec<Metric>,
) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

pub(super) fn count(pairs: &[(&str, &str)], value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::from_label(labels(pairs));
    metric.set_counter(counter);
    metric
}

pub(super) fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    pairs
        .iter()
        .map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        })
        .collect()
}
