//! The control plane's metrics in the Prometheus text format. `docs/metrics.md`
//! lists all of them. No label is a routing key.

use std::ops::Deref;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::core::{Fate, Truth};
use crate::telemetry::metrics::{Registered, metrics, set};

metrics! {
    /// Metrics of the process and of its routing table.
    pub struct ServerMetrics {
        pub connections: IntGauge = "cellgate_control_connections",
            "Open connections, of edges and others";
        pub connections_refused: IntCounter = "cellgate_control_connections_refused_total",
            "Connections closed at once for being over the limit";
        pub handshakes_failed: IntCounter = "cellgate_control_handshakes_failed_total",
            "TLS handshakes that failed, or took too long";
        pub log_dropped: IntCounter = "cellgate_log_dropped_total",
            "Log lines dropped because stderr could not keep up";
        pub file_error: IntGauge = "cellgate_control_file_error",
            "1 while the routing file has an edit that cannot be applied";
        requests: IntCounterVec = "cellgate_control_requests_total",
            "Requests that were answered, by route, method and status", ["route", "method", "status"];
        generation: IntGauge = "cellgate_control_generation",
            "Number of the newest generation; 0 before the first";
        keys: IntGauge = "cellgate_control_keys",
            "Routing keys in the newest generation";
        changed_at: IntGauge = "cellgate_control_changed_timestamp_seconds",
            "When the newest generation was made, in seconds since the Unix epoch; 0 before the first";
        commits: IntCounterVec = "cellgate_control_commits_total",
            "Changes that this control plane was asked for, by result", ["result"];
        store_errors: IntCounter = "cellgate_control_store_errors_total",
            "Failed reads and writes of the store";
    }
}

/// All metrics of the control plane. Other parts add theirs to
/// `registered`.
pub struct ControlMetrics {
    server: ServerMetrics,
    truth: Arc<Truth>,
    registered: Registered,
}

impl Deref for ControlMetrics {
    type Target = ServerMetrics;

    fn deref(&self) -> &ServerMetrics {
        &self.server
    }
}

impl ControlMetrics {
    /// Creates and registers all of them.
    pub fn new(truth: Arc<Truth>) -> Self {
        let registered = Registered::new();
        Self {
            server: ServerMetrics::register(&registered),
            truth,
            registered,
        }
    }

    /// Where other parts register their metrics.
    pub(super) fn registered(&self) -> &Registered {
        &self.registered
    }

    /// Counts an answer. `route` is a pattern, never a path that a client sent.
    pub fn answered(&self, route: &str, method: &str, status: u16) {
        let status = status.to_string();
        self.requests
            .with_label_values(&[route, method, &status])
            .inc();
    }

    /// All metrics in the Prometheus text format 0.0.4.
    pub fn encode(&self) -> String {
        if let Some(newest) = self.truth.newest() {
            let record = &newest.record;
            set(&self.generation, record.generation);
            set(&self.keys, record.keys);
            let at = record.at.duration_since(UNIX_EPOCH).unwrap_or_default();
            set(&self.changed_at, at.as_secs());
        }
        let tally = self.truth.tally();
        for fate in Fate::ALL {
            let counter = self.commits.with_label_values(&[fate.as_str()]);
            counter.inc_by(tally.of(fate).saturating_sub(counter.get()));
        }
        let errors = &self.store_errors;
        errors.inc_by(tally.store_errors().saturating_sub(errors.get()));
        self.registered.encode()
    }
}
