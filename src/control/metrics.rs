//! The control plane's metrics in the Prometheus text format. `docs/metrics.md`
//! lists every name. No series is by tenant.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::core::{Fate, Truth};
use crate::telemetry::metrics::process::Process;

/// Every metric there is. Other parts add theirs to [`ControlMetrics::registry`].
pub struct ControlMetrics {
    /// Connections that are open, of edges and others.
    pub connections: IntGauge,
    /// Connections closed at once, because there were too many.
    pub connections_refused: IntCounter,
    /// TLS handshakes that failed.
    pub handshakes_failed: IntCounter,
    /// Lines of the process's own log that were dropped.
    pub log_dropped: IntCounter,
    /// 1 while the routing file has an edit in it that is not valid.
    pub file_error: IntGauge,
    requests: IntCounterVec,
    registry: Registry,
}

impl ControlMetrics {
    /// Makes and registers all of them.
    ///
    /// # Panics
    ///
    /// If two of the names below are the same, which no input can cause.
    pub fn new(truth: Arc<Truth>) -> Self {
        Self::build(truth).expect("metric names are valid and differ")
    }

    fn build(truth: Arc<Truth>) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let requests = IntCounterVec::new(
            Opts::new(
                "cellgate_control_requests_total",
                "Requests that were answered, by route, method and status",
            ),
            &["route", "method", "status"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        let build_info = IntGaugeVec::new(
            Opts::new(
                "cellgate_build_info",
                "Always 1; the version is in the label",
            ),
            &["version"],
        )?;
        registry.register(Box::new(build_info.clone()))?;
        let version = env!("CARGO_PKG_VERSION");
        build_info.with_label_values(&[version]).set(1);
        registry.register(Box::new(Process::new()?))?;
        registry.register(Box::new(TruthMetrics::new(truth)?))?;
        Ok(Self {
            connections: gauge(
                "cellgate_control_connections",
                "Open connections, of edges and others",
            )?,
            connections_refused: counter(
                "cellgate_control_connections_refused_total",
                "Connections closed at once for being over the limit",
            )?,
            handshakes_failed: counter(
                "cellgate_control_handshakes_failed_total",
                "TLS handshakes that failed, or took too long",
            )?,
            log_dropped: counter(
                "cellgate_log_dropped_total",
                "Log lines dropped because stderr could not keep up",
            )?,
            file_error: gauge(
                "cellgate_control_file_error",
                "1 while the routing file has an edit in it that cannot be taken over",
            )?,
            requests,
            registry,
        })
    }

    /// Where other parts register their collectors.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts an answer. `route` is a pattern, never a path that somebody asked for.
    pub fn answered(&self, route: &str, method: &str, status: u16) {
        let status = status.to_string();
        self.requests
            .with_label_values(&[route, method, &status])
            .inc();
    }

    /// Everything in Prometheus' text format 0.0.4.
    pub fn encode(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            log::warn!(target: "cellgate::control", "the metrics could not be written: {error}");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

/// What the truth itself counts, read when somebody asks.
struct TruthMetrics {
    truth: Arc<Truth>,
    generation: IntGauge,
    keys: IntGauge,
    changed_at: IntGauge,
    commits: IntCounterVec,
    store_errors: IntCounter,
}

impl TruthMetrics {
    fn new(truth: Arc<Truth>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            truth,
            generation: IntGauge::new(
                "cellgate_control_generation",
                "Number of the newest generation; 0 before the first",
            )?,
            keys: IntGauge::new(
                "cellgate_control_keys",
                "Routing keys in the newest generation",
            )?,
            changed_at: IntGauge::new(
                "cellgate_control_changed_timestamp_seconds",
                "When the newest generation was made, in seconds since the Unix epoch; 0 before the first",
            )?,
            commits: IntCounterVec::new(
                Opts::new(
                    "cellgate_control_commits_total",
                    "Changes that were asked for here, by what became of them",
                ),
                &["result"],
            )?,
            store_errors: IntCounter::new(
                "cellgate_control_store_errors_total",
                "Times that the store could not be read or written",
            )?,
        })
    }

    fn parts(&self) -> [&dyn Collector; 5] {
        [
            &self.generation,
            &self.keys,
            &self.changed_at,
            &self.commits,
            &self.store_errors,
        ]
    }
}

impl Collector for TruthMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().iter().flat_map(|part| part.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Some(newest) = self.truth.newest() {
            let record = &newest.record;
            let set = |gauge: &IntGauge, value: u64| {
                gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            };
            set(&self.generation, record.generation);
            set(&self.keys, record.keys);
            let at = record.at.duration_since(std::time::UNIX_EPOCH);
            set(&self.changed_at, at.unwrap_or_default().as_secs());
        }
        let tally = self.truth.tally();
        for fate in Fate::ALL {
            let counter = self.commits.with_label_values(&[fate.as_str()]);
            counter.inc_by(tally.of(fate).saturating_sub(counter.get()));
        }
        let errors = &self.store_errors;
        errors.inc_by(tally.store_errors().saturating_sub(errors.get()));
        self.parts()
            .iter()
            .flat_map(|part| part.collect())
            .collect()
    }
}
