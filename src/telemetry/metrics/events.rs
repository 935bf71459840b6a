//! What is counted of a placement beside its requests: what was refused for its
//! sake, tried again or sent elsewhere, and how the edge came to think of it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus::proto::{Gauge, Metric, MetricFamily, MetricType};

use super::placement::{count, family, labels};

/// Something that happened at a placement; each is a metric of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Rejected,
    FailedOver,
    Retry,
    Breaker,
    Health,
    Probe,
}

/// Each metric: its name, what it counts, its label and that one's values.
type Kind = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
);

/// In the order of [`Event`].
pub(super) const KINDS: [Kind; 6] = [
    (
        "cellgate_requests_rejected_total",
        "Requests that a placement could not take, by why",
        "reason",
        &[
            "concurrency_limit",
            "body_too_large",
            "circuit_open",
            "upstream_unhealthy",
        ],
    ),
    (
        "cellgate_failovers_total",
        "Requests of a placement that its fallback served, by why",
        "reason",
        &["upstream_unhealthy", "circuit_open"],
    ),
    (
        "cellgate_retries_total",
        "Attempts after a failed one, and those that the retry budget forbade",
        "result",
        &["made", "refused"],
    ),
    (
        "cellgate_breaker_transitions_total",
        "Circuit breakers of a placement's endpoints that changed their state",
        "to",
        &["closed", "open", "half_open"],
    ),
    (
        "cellgate_health_transitions_total",
        "Endpoints of a placement that changed their health",
        "to",
        &["healthy", "unhealthy"],
    ),
    (
        "cellgate_health_probes_total",
        "Health probes of a placement's endpoints",
        "result",
        &["ok", "failed"],
    ),
];

/// The most values that a label of [`KINDS`] has.
const VALUES: usize = 4;

/// What is shown of a placement as it is when somebody looks.
pub(super) const GAUGES: [(&str, &str, &[&str]); 2] = [
    (
        "cellgate_placement_requests_in_flight",
        "Requests that a placement is serving",
        &["placement"],
    ),
    (
        "cellgate_backends",
        "Addresses of a placement, by whether requests may be sent there",
        &["placement", "usable"],
    ),
];

/// The counts of one placement.
#[derive(Debug, Default)]
pub(super) struct Events {
    counts: [[AtomicU64; VALUES]; KINDS.len()],
    in_flight: AtomicU64,
    usable: AtomicU64,
    unusable: AtomicU64,
}

impl Events {
    /// Counts `event` with this value of its label; one that it does not have
    /// is not counted.
    pub(super) fn count(&self, event: Event, value: &str) {
        let (_, _, _, values) = KINDS[event as usize];
        if let Some(index) = values.iter().position(|known| *known == value) {
            self.counts[event as usize][index].fetch_add(1, Relaxed);
        }
    }

    pub(super) fn show(&self, in_flight: usize, usable: usize, unusable: usize) {
        self.in_flight.store(in_flight as u64, Relaxed);
        self.usable.store(usable as u64, Relaxed);
        self.unusable.store(unusable as u64, Relaxed);
    }

    pub(super) fn any(&self) -> bool {
        let mut counts = self.counts.iter().flatten();
        counts.any(|count| count.load(Relaxed) > 0)
    }
}

/// The metrics of these placements. An event that a placement never saw has no
/// series there; one that it saw has all of them, so that `rate()` sees the
/// next kind of it begin.
pub(super) fn families<'a>(
    placements: impl Iterator<Item = (&'a str, &'a Events)> + Clone,
) -> Vec<MetricFamily> {
    let mut families = Vec::with_capacity(KINDS.len() + GAUGES.len());
    for (kind, (name, help, label, values)) in KINDS.into_iter().enumerate() {
        let mut metrics = Vec::new();
        for (placement, events) in placements.clone() {
            let counts = events.counts[kind].iter().map(|count| count.load(Relaxed));
            if counts.clone().all(|count| count == 0) {
                continue;
            }
            for (value, seen) in values.iter().zip(counts) {
                metrics.push(count(&sorted(label, value, placement), seen));
            }
        }
        families.push(family(name, help, MetricType::COUNTER, metrics));
    }
    let [in_flight, backends] = GAUGES;
    let shown = placements
        .clone()
        .map(|(placement, events)| gauge(&[("placement", placement)], &events.in_flight));
    let (name, help, _) = in_flight;
    families.push(family(name, help, MetricType::GAUGE, shown.collect()));
    let shown = placements.flat_map(|(placement, events)| {
        [("true", &events.usable), ("false", &events.unusable)]
            .map(|(usable, count)| gauge(&[("placement", placement), ("usable", usable)], count))
    });
    let (name, help, _) = backends;
    families.push(family(name, help, MetricType::GAUGE, shown.collect()));
    families
}

/// Labels are shown in the order of their names.
fn sorted<'a>(label: &'a str, value: &'a str, placement: &'a str) -> [(&'a str, &'a str); 2] {
    match label < "placement" {
        true => [(label, value), ("placement", placement)],
        false => [("placement", placement), (label, value)],
    }
}

fn gauge(pairs: &[(&str, &str)], value: &AtomicU64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value.load(Relaxed) as f64);
    let mut metric = Metric::from_label(labels(pairs));
    metric.set_gauge(gauge);
    metric
}
