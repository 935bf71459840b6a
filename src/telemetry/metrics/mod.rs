//! Metrics in the Prometheus text format, all of them in one private registry.
//!
//! No series is ever by tenant: there may be millions of them, and their names
//! are nobody else's business. `docs/metrics.md` lists every name.

mod control;
mod events;
mod placement;
pub(crate) mod process;

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prometheus::{
    Encoder, Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

pub use control::{ControlMetrics, Direction};
pub use placement::PlacementMetrics;
use placement::Placements;
use process::Process;

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// How a document fared that was handed to the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// It is being served now.
    Ok,
    /// It is what was being served already.
    Unchanged,
    /// It was invalid; the last known good one goes on being served.
    Refused,
    /// There was none to be read.
    Unreadable,
}

/// Every metric of the edge.
///
/// Fields are handles that count with one atomic operation; nothing on the
/// request path looks a metric up by name.
pub struct Metrics {
    /// Requests between their header and the last byte of their answer.
    pub in_flight: IntGauge,
    /// Connections from clients that are open.
    pub client_connections: IntGauge,
    /// Connections from clients closed at once, because there were too many.
    pub client_connections_refused: IntCounter,
    /// Access log lines that were dropped instead of delaying a request.
    pub access_log_dropped: IntCounter,
    /// Lines of the edge's own log that were dropped likewise.
    pub log_dropped: IntCounter,
    /// EdgeState generations: the current one and those that requests still hold.
    pub generations_alive: IntGauge,
    registry: Registry,
    placements: Placements,
    refused: Refused,
    reloads: [IntCounter; 4],
    config_error: IntGauge,
    generation: IntGauge,
    keys: IntGauge,
    placement_count: IntGauge,
    state_generation: IntGauge,
    state_fallback: IntGauge,
    state_error: IntGauge,
    last_reload_timestamp: Gauge,
    last_reload_age: Gauge,
    /// On the monotonic clock, so that the age is right when the other is set.
    last_reload: Mutex<Option<Instant>>,
    dns_failures: IntCounterVec,
    endpoints: IntGaugeVec,
    control: OnceLock<ControlMetrics>,
}

/// Requests that never got as far as a placement, by status. The statuses that
/// the edge itself answers with have their counters ready.
struct Refused {
    by_status: Vec<(u16, IntCounter)>,
    other: IntCounter,
}

const REFUSED_STATUSES: [u16; 12] = [400, 404, 405, 408, 413, 417, 421, 431, 500, 501, 503, 505];

impl Metrics {
    /// Makes and registers all of them.
    ///
    /// # Panics
    ///
    /// If two of the names below are the same, which no input can cause.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self::build().expect("metric names are valid and differ")
    }

    fn build() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let float = |name: &str, help: &str| -> Result<Gauge, prometheus::Error> {
            let gauge = Gauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let counters =
            |name: &str, help: &str, label: &str| -> Result<IntCounterVec, prometheus::Error> {
                let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
                registry.register(Box::new(counters.clone()))?;
                Ok(counters)
            };

        let placements = Placements::new()?;
        registry.register(Box::new(placements.clone()))?;
        registry.register(Box::new(Process::new()?))?;
        let refused = counters(
            "cellgate_requests_refused_total",
            "Requests answered before a placement was chosen, by status",
            "status",
        )?;
        let reloads = counters(
            "cellgate_reloads_total",
            "Routing documents handed to the edge, by what became of them",
            "result",
        )?;
        let endpoints = IntGaugeVec::new(
            Opts::new(
                "cellgate_endpoints",
                "Endpoints of the current generation, by state of their addresses",
            ),
            &["state"],
        )?;
        registry.register(Box::new(endpoints.clone()))?;
        let build_info = IntGaugeVec::new(
            Opts::new(
                "cellgate_build_info",
                "Always 1; the version is in the label",
            ),
            &["version"],
        )?;
        registry.register(Box::new(build_info.clone()))?;
        build_info
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);

        let last_reload_age = float(
            "cellgate_last_good_reload_age_seconds",
            "Seconds since the current generation was applied; NaN before the first",
        )?;
        last_reload_age.set(f64::NAN);
        Ok(Self {
            in_flight: gauge(
                "cellgate_requests_in_flight",
                "Requests that are being served",
            )?,
            client_connections: gauge(
                "cellgate_client_connections",
                "Open connections from clients",
            )?,
            client_connections_refused: counter(
                "cellgate_client_connections_refused_total",
                "Connections from clients closed at once for being over the limit",
            )?,
            access_log_dropped: counter(
                "cellgate_access_log_dropped_total",
                "Access log lines dropped because the log could not keep up",
            )?,
            log_dropped: counter(
                "cellgate_log_dropped_total",
                "Log lines dropped because stderr could not keep up",
            )?,
            generations_alive: gauge(
                "cellgate_generations_alive",
                "Routing tables in memory: the current one and those that requests still hold",
            )?,
            refused: Refused {
                by_status: REFUSED_STATUSES
                    .iter()
                    .map(|status| (*status, refused.with_label_values(&[&status.to_string()])))
                    .collect(),
                other: refused.with_label_values(&["other"]),
            },
            reloads: ["ok", "unchanged", "refused", "unreadable"]
                .map(|result| reloads.with_label_values(&[result])),
            config_error: gauge(
                "cellgate_config_error",
                "1 while the newest routing document is not the one being served",
            )?,
            generation: gauge(
                "cellgate_generation",
                "Number of the current generation; 0 before the first",
            )?,
            keys: gauge("cellgate_keys", "Routing keys in the current generation")?,
            placement_count: gauge(
                "cellgate_placements",
                "Placements in the current generation",
            )?,
            state_generation: gauge(
                "cellgate_state_generation",
                "Number of the generation that a restart would find; 0 if none",
            )?,
            state_fallback: gauge(
                "cellgate_state_fallback",
                "1 while an older table is served because the newest made the edge crash",
            )?,
            state_error: gauge(
                "cellgate_state_error",
                "1 while the current generation cannot be kept for a restart",
            )?,
            last_reload_timestamp: float(
                "cellgate_last_good_reload_timestamp_seconds",
                "When the current generation was applied, in seconds since the Unix epoch; 0 before the first",
            )?,
            last_reload_age,
            last_reload: Mutex::new(None),
            dns_failures: counters(
                "cellgate_dns_failures_total",
                "Failed lookups of a cell's host name",
                "host",
            )?,
            endpoints,
            control: OnceLock::new(),
            placements,
            registry,
        })
    }

    /// The counters of the placement `name`, the same ones each time. Takes a
    /// lock: once per placement and generation, not per request.
    pub fn placement(&self, name: &str) -> PlacementMetrics {
        self.placements.get(name)
    }

    /// Shows the counters of a placement that comes back after it was forgotten.
    pub fn keep_placement(&self, name: &str, metrics: &PlacementMetrics) {
        self.placements.keep(name, metrics);
    }

    /// Drops the series of all placements but those that `keep` says yes to.
    /// Handles that are still held go on counting, out of anyone's sight.
    pub fn forget_placements_except(&self, keep: &dyn Fn(&str) -> bool) {
        self.placements.forget_except(keep);
    }

    /// Counts a request that was answered with `status` before a placement was
    /// chosen.
    pub fn request_refused(&self, status: u16) {
        let known = self
            .refused
            .by_status
            .iter()
            .find(|(known, _)| *known == status);
        known
            .map_or(&self.refused.other, |(_, counter)| counter)
            .inc();
    }

    /// Counts a document that was handed to the edge.
    pub fn reloaded(&self, result: Reload) {
        let counter = match result {
            Reload::Ok => 0,
            Reload::Unchanged => 1,
            Reload::Refused => 2,
            Reload::Unreadable => 3,
        };
        if let Some(counter) = self.reloads.get(counter) {
            counter.inc();
        }
        self.config_error.set(i64::from(matches!(
            result,
            Reload::Refused | Reload::Unreadable
        )));
    }

    /// Shows the generation that was just applied. `at` is the wall clock.
    pub fn generation_applied(&self, number: u64, keys: usize, placements: usize, at: SystemTime) {
        self.generation
            .set(i64::try_from(number).unwrap_or(i64::MAX));
        self.keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
        self.placement_count
            .set(i64::try_from(placements).unwrap_or(i64::MAX));
        let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_reload_timestamp.set(since_epoch.as_secs_f64());
        *self
            .last_reload
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Shows what is kept for a restart, whether that made the edge serve an
    /// older table, and whether keeping fails.
    pub fn show_state(&self, generation: Option<u64>, fallback: bool, error: bool) {
        let number = generation.unwrap_or_default();
        self.state_generation
            .set(i64::try_from(number).unwrap_or(i64::MAX));
        self.state_fallback.set(i64::from(fallback));
        self.state_error.set(i64::from(error));
    }

    /// Those of the connection to the control plane, which are shown from the
    /// first call on.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn control(&self) -> &ControlMetrics {
        self.control.get_or_init(|| {
            ControlMetrics::new(&self.registry).expect("metric names are valid and differ")
        })
    }

    /// Counts a failed lookup of `host`.
    pub fn dns_failed(&self, host: &str) {
        self.dns_failures.with_label_values(&[host]).inc();
    }

    /// Drops the series of a host that no cell has any more.
    pub fn forget_host(&self, host: &str) {
        // An error says that there was none, as for a host that never failed.
        let _ = self.dns_failures.remove_label_values(&[host]);
    }

    /// Shows how many endpoints are in each state of resolution.
    pub fn set_endpoints(&self, state: &str, count: usize) {
        self.endpoints
            .with_label_values(&[state])
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Everything in Prometheus' text format 0.0.4.
    pub fn encode(&self) -> String {
        let applied = *self
            .last_reload
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(applied) = applied {
            self.last_reload_age.set(applied.elapsed().as_secs_f64());
        }
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            log::warn!(target: "cellgate::telemetry", "the metrics could not be written: {error}");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
