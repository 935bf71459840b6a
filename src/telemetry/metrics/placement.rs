//! Metrics of each placement.
//!
//! A request counts with a few atomic additions on memory that its generation
//! already points to; label sets are built at scrape. The label families of the
//! `prometheus` crate do not fit here: a series takes 850 bytes there and 8
//! here, and it is shown as soon as it has a handle: a table of ten thousand
//! placements would show 400,000 series before its first request.

use std::array::from_fn;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};

use super::registered::{describe, family, labels, sample};
use crate::table::RouteReason;

/// A metric. Each placement has one series for each combination of the labels'
/// values.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    /// Besides `placement`: names and all of their values.
    labels: &'static [(&'static str, &'static [&'static str])],
    shown: Shown,
}

/// Which placements show the series of a [`Family`].
enum Shown {
    /// Those that had a request or a connection attempt.
    Used,
    /// Those where one of the last label's values was counted. All of its values
    /// are shown then, so that `rate()` sees the first event of another one.
    Counted,
    /// Those that show anything.
    Always,
}

macro_rules! families {
    ($($id:ident: $kind:ident, $name:literal, $labels:expr, $shown:ident, $help:literal;)*) => {
        /// Positions in [`FAMILIES`].
        #[derive(Clone, Copy)]
        enum Id {
            $($id,)*
        }

        const FAMILIES: &[Family] = &[$(
            Family {
                name: $name,
                help: $help,
                kind: MetricType::$kind,
                labels: &$labels,
                shown: Shown::$shown,
            },
        )*];
    };
}

families! {
    Requests: COUNTER, "cellgate_requests_total",
        [("reason", &REASONS), ("status", &CLASSES)], Counted,
        "Requests routed to a placement, by reason and class of the answer's status";
    Connections: COUNTER, "cellgate_upstream_connections_total",
        [("reused", &["false", "true"])], Used,
        "Connections to cells that requests used, new and reused ones";
    ConnectFailures: COUNTER, "cellgate_upstream_connect_failures_total",
        [("kind", &FAILURES)], Used,
        "Attempts to connect to a cell that failed, by kind of failure";
    Rejected: COUNTER, "cellgate_requests_rejected_total",
        [("reason", &REJECTIONS)], Counted,
        "Requests that a placement could not accept, by reason";
    Failovers: COUNTER, "cellgate_failovers_total",
        [("reason", &["upstream_unhealthy", "circuit_open"])], Counted,
        "Requests of a placement that its fallback served, by reason";
    Retries: COUNTER, "cellgate_retries_total",
        [("result", &["made", "refused"])], Counted,
        "Retries of requests, and retries that the retry budget refused";
    BreakerTransitions: COUNTER, "cellgate_breaker_transitions_total",
        [("to", &["closed", "open", "half_open"])], Counted,
        "State changes of the circuit breakers of a placement, by new state";
    HealthTransitions: COUNTER, "cellgate_health_transitions_total",
        [("to", &["healthy", "unhealthy"])], Counted,
        "Health changes of the addresses of a placement, by new health";
    Probes: COUNTER, "cellgate_health_probes_total",
        [("result", &["ok", "failed"])], Counted,
        "Health probes of the addresses of a placement, by result";
    InFlight: GAUGE, "cellgate_placement_requests_in_flight",
        [], Always,
        "Requests that a placement is serving";
    Backends: GAUGE, "cellgate_backends",
        [("usable", &["true", "false"])], Always,
        "Addresses of a placement, by whether requests may be sent to them";
}

const REASONS: [&str; RouteReason::ALL.len()] = [
    RouteReason::Dedicated.as_str(),
    RouteReason::Tier.as_str(),
    RouteReason::Default.as_str(),
];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// The last one is for all other kinds.
const FAILURES: [&str; 5] = ["refused", "timeout", "tls", "dns", "other"];
const REJECTIONS: [&str; 4] = [
    "concurrency_limit",
    "body_too_large",
    "circuit_open",
    "upstream_unhealthy",
];

/// The histogram: name, help, and the upper bounds of its buckets in seconds.
const DURATIONS: (&str, &str) = (
    "cellgate_request_duration_seconds",
    "Time from a request's header to the last byte of its answer",
);
const BUCKETS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// Where each family begins in [`Counters::series`]; the last entry is the
/// number of all series.
const STARTS: [usize; FAMILIES.len() + 1] = {
    let mut starts = [0; FAMILIES.len() + 1];
    let mut family = 0;
    while family < FAMILIES.len() {
        let mut series = 1;
        let mut label = 0;
        while label < FAMILIES[family].labels.len() {
            series *= FAMILIES[family].labels[label].1.len();
            label += 1;
        }
        starts[family + 1] = starts[family] + series;
        family += 1;
    }
    starts
};

/// The metrics of one placement. Cheap to clone; generations that name the same
/// placement share them, so that counters go on across reloads.
#[derive(Clone, Debug)]
pub struct PlacementMetrics(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    series: [AtomicU64; STARTS[FAMILIES.len()]],
    /// By [`BUCKETS`]; the last one counts what is above all bounds.
    durations: [AtomicU64; BUCKETS.len() + 1],
    duration_micros: AtomicU64,
}

impl PlacementMetrics {
    /// Counts a request that ended. `status` is what the client was sent, or why
    /// it was sent nothing (499: it left before its answer began); `seconds` is
    /// the time from its header to its last byte.
    pub fn request_done(&self, reason: RouteReason, status: u16, seconds: f64) {
        let class = match status {
            100..=599 => usize::from(status / 100) - 1,
            // Only a cell can send a status outside of the classes of RFC 9110
            // section 15. It is counted like a 500.
            0..=99 | 600.. => CLASSES.len() - 1,
        };
        self.count(Id::Requests, reason as usize * CLASSES.len() + class);
        let counters = &self.0;
        // A duration that is negative or not a number is counted as zero.
        let bucket = BUCKETS.partition_point(|bound| *bound < seconds);
        counters.durations[bucket].fetch_add(1, Relaxed);
        let micros = (seconds * 1e6) as u64;
        counters.duration_micros.fetch_add(micros, Relaxed);
    }

    /// Requests so far, and those of them that were answered with 500 or above.
    pub fn requests(&self) -> (u64, u64) {
        let (mut all, mut errors) = (0, 0);
        for classes in self.0.series(Id::Requests as usize).chunks(CLASSES.len()) {
            all += sum(classes);
            errors += classes.last().map_or(0, |count| count.load(Relaxed));
        }
        (all, errors)
    }

    /// Counts a request that got a connection to the cell: a kept-alive one, or
    /// a new one.
    pub fn upstream_connect_ok(&self, reused: bool) {
        self.count(Id::Connections, usize::from(reused));
    }

    /// Counts a failed connection attempt. `kind` is `refused`, `timeout`, `tls`
    /// or `dns`; everything else is counted as `other`.
    pub fn upstream_connect_failed(&self, kind: &'static str) {
        let kind = FAILURES.iter().position(|known| *known == kind);
        self.count(Id::ConnectFailures, kind.unwrap_or(FAILURES.len() - 1));
    }

    /// Counts a request that the placement could not accept:
    /// `concurrency_limit`, `body_too_large`, `circuit_open` or
    /// `upstream_unhealthy`.
    pub fn rejected(&self, reason: &'static str) {
        self.count_value(Id::Rejected, reason);
    }

    /// Counts a request of this placement that its fallback served, because of
    /// `upstream_unhealthy` or `circuit_open`.
    pub fn failed_over(&self, reason: &'static str) {
        self.count_value(Id::Failovers, reason);
    }

    /// Counts a retry.
    pub fn retried(&self) {
        self.count_value(Id::Retries, "made");
    }

    /// Counts a retry that the retry budget refused.
    pub fn retry_refused(&self) {
        self.count_value(Id::Retries, "refused");
    }

    /// Counts a circuit breaker that became `closed`, `open` or `half_open`.
    pub fn breaker_turned(&self, to: &'static str) {
        self.count_value(Id::BreakerTransitions, to);
    }

    /// Counts an address that became `healthy` or `unhealthy`.
    pub fn health_turned(&self, to: &'static str) {
        self.count_value(Id::HealthTransitions, to);
    }

    /// Counts a health probe.
    pub fn probed(&self, ok: bool) {
        self.count_value(Id::Probes, if ok { "ok" } else { "failed" });
    }

    /// Sets the gauges: requests in flight, and the numbers of addresses that
    /// may and may not be used.
    pub fn show(&self, in_flight: usize, usable: usize, unusable: usize) {
        let backends = self.0.series(Id::Backends as usize);
        let gauges = self.0.series(Id::InFlight as usize).iter().chain(backends);
        for (gauge, value) in gauges.zip([in_flight, usable, unusable]) {
            gauge.store(value as u64, Relaxed);
        }
    }

    /// Counts one at this value of the family's label. Does nothing if the label
    /// has no such value.
    fn count_value(&self, family: Id, value: &str) {
        let [(_, values)] = FAMILIES[family as usize].labels else {
            return;
        };
        if let Some(series) = values.iter().position(|known| *known == value) {
            self.count(family, series);
        }
    }

    fn count(&self, family: Id, series: usize) {
        self.0.series[STARTS[family as usize] + series].fetch_add(1, Relaxed);
    }
}

impl Counters {
    fn new() -> Self {
        Self {
            series: from_fn(|_| AtomicU64::new(0)),
            durations: from_fn(|_| AtomicU64::new(0)),
            duration_micros: AtomicU64::new(0),
        }
    }

    fn series(&self, family: usize) -> &[AtomicU64] {
        &self.series[STARTS[family]..STARTS[family + 1]]
    }

    /// Whether there was ever a request or a connection attempt.
    fn used(&self) -> bool {
        [Id::Requests, Id::Connections, Id::ConnectFailures]
            .into_iter()
            .any(|family| sum(self.series(family as usize)) > 0)
    }

    /// The series of the family at this position that `placement` shows.
    fn samples(&self, position: usize, placement: &str) -> Vec<Metric> {
        let family = &FAMILIES[position];
        let series = self.series(position);
        let mut samples = Vec::new();
        if matches!(family.shown, Shown::Used) && !self.used() {
            return samples;
        }
        let row = family.labels.last().map_or(1, |(_, values)| values.len());
        for (index, count) in series.iter().enumerate() {
            let row = &series[index - index % row..][..row];
            if matches!(family.shown, Shown::Counted) && sum(row) == 0 {
                continue;
            }
            let mut pairs = vec![("placement", placement)];
            let mut rest = index;
            for (label, values) in family.labels.iter().rev() {
                pairs.push((label, values[rest % values.len()]));
                rest /= values.len();
            }
            // As the `prometheus` crate sorts those of other metrics.
            pairs.sort_unstable();
            samples.push(sample(family.kind, &pairs, count.load(Relaxed) as f64));
        }
        samples
    }

    fn histogram(&self, placement: &str) -> Metric {
        let mut total = 0;
        let buckets = BUCKETS.iter().zip(&self.durations).map(|(bound, count)| {
            total += count.load(Relaxed);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(total);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        // From the same loads as the buckets, so that they agree.
        let above = self.durations[BUCKETS.len()].load(Relaxed);
        histogram.set_sample_count(total + above);
        histogram.set_sample_sum(self.duration_micros.load(Relaxed) as f64 / 1e6);
        let mut metric = Metric::from_label(labels(&[("placement", placement)]));
        metric.set_histogram(histogram);
        metric
    }
}

fn sum(counts: &[AtomicU64]) -> u64 {
    counts.iter().map(|count| count.load(Relaxed)).sum()
}

/// The metrics of all placements that a live generation names.
#[derive(Clone)]
pub(super) struct Placements {
    known: Arc<RwLock<HashMap<String, PlacementMetrics>>>,
    descriptions: Arc<[Desc]>,
}

impl Placements {
    pub fn new() -> Result<Self, prometheus::Error> {
        let (name, help) = DURATIONS;
        let mut descriptions = vec![describe(name, help, &["placement"])?];
        for family in FAMILIES {
            let own = family.labels.iter().map(|(label, _)| *label);
            let labels: Vec<&str> = std::iter::once("placement").chain(own).collect();
            descriptions.push(describe(family.name, family.help, &labels)?);
        }
        Ok(Self {
            known: Arc::default(),
            descriptions: descriptions.into(),
        })
    }

    pub fn get(&self, name: &str) -> PlacementMetrics {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = known.get(name) {
            return metrics.clone();
        }
        let metrics = PlacementMetrics(Arc::new(Counters::new()));
        known.insert(name.to_owned(), metrics.clone());
        metrics
    }

    pub fn forget_except(&self, keep: &dyn Fn(&str) -> bool) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|name, _| keep(name));
    }
}

impl Collector for Placements {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let known = self
            .known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let counters = STARTS[Id::InFlight as usize];
        // Gauges alone do not make a placement visible.
        let visible: Vec<(&str, &Counters)> = known
            .iter()
            .map(|(name, metrics)| (name.as_str(), &*metrics.0))
            .filter(|(_, metrics)| sum(&metrics.series[..counters]) > 0)
            .collect();
        let mut families = Vec::with_capacity(FAMILIES.len() + 1);
        for (position, of) in FAMILIES.iter().enumerate() {
            let samples = visible
                .iter()
                .flat_map(|(name, counters)| counters.samples(position, name));
            families.push(family(of.name, of.help, of.kind, samples.collect()));
        }
        let histograms = visible
            .iter()
            .filter(|(_, counters)| counters.used())
            .map(|(name, counters)| counters.histogram(name));
        let (name, help) = DURATIONS;
        families.push(family(
            name,
            help,
            MetricType::HISTOGRAM,
            histograms.collect(),
        ));
        families
    }
}
