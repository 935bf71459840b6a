//! Metrics in the Prometheus text format. `docs/metrics.md` lists all of them.
//!
//! No label is a routing key or anything else that clients choose: their number
//! is not bounded, and monitoring has no need to know who the tenants are.

mod placement;
#[cfg(target_os = "linux")]
mod process;
mod registered;

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

pub use placement::PlacementMetrics;
use placement::Placements;
pub(crate) use registered::{Registered, metrics, set};

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// What became of a routing document that the edge was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// It is being served now.
    Ok,
    /// It was being served already.
    Unchanged,
    /// It is invalid; the last known good one is still served.
    Refused,
    /// It could not be read.
    Unreadable,
}

metrics! {
    /// Metrics of the edge as a whole. Counting is one atomic operation, but for
    /// those with labels, which are looked up and are not used by every request.
    pub struct EdgeMetrics {
        pub in_flight: IntGauge = "cellgate_requests_in_flight",
            "Requests that are being served";
        pub client_connections: IntGauge = "cellgate_client_connections",
            "Open connections from clients";
        pub client_connections_refused: IntCounter = "cellgate_client_connections_refused_total",
            "Connections from clients closed at once for being over the limit";
        pub access_log_dropped: IntCounter = "cellgate_access_log_dropped_total",
            "Access log lines dropped because the log could not keep up";
        pub log_dropped: IntCounter = "cellgate_log_dropped_total",
            "Log lines dropped because stderr could not keep up";
        pub generations_alive: IntGauge = "cellgate_generations_alive",
            "Routing tables in memory: the current one and those that are about to be freed";
        refused: IntCounterVec = "cellgate_requests_refused_total",
            "Requests answered before a placement was chosen, by status", ["status"];
        reloads: IntCounterVec = "cellgate_reloads_total",
            "Routing documents given to the edge, by result", ["result"];
        config_error: IntGauge = "cellgate_config_error",
            "1 while the newest routing document is not the one being served";
        generation: IntGauge = "cellgate_generation",
            "Number of the current generation; 0 before the first";
        keys: IntGauge = "cellgate_keys",
            "Routing keys in the current generation";
        placement_count: IntGauge = "cellgate_placements",
            "Placements in the current generation";
        state_generation: IntGauge = "cellgate_state_generation",
            "Number of the generation that a restart would restore; 0 if none";
        state_fallback: IntGauge = "cellgate_state_fallback",
            "1 while an older table is served because the newest made the edge crash";
        state_error: IntGauge = "cellgate_state_error",
            "1 while the current generation cannot be kept for a restart";
        last_reload_timestamp: Gauge = "cellgate_last_good_reload_timestamp_seconds",
            "When the current generation was applied, in seconds since the Unix epoch; 0 before the first";
        last_reload_age: Gauge = "cellgate_last_good_reload_age_seconds",
            "Seconds since the current generation was applied; NaN before the first";
        dns_failures: IntCounterVec = "cellgate_dns_failures_total",
            "Failed lookups of a cell's host name", ["host"];
        endpoints: IntGaugeVec = "cellgate_endpoints",
            "Endpoints of the current generation, by state of their addresses", ["state"];
    }
}

metrics! {
    /// Metrics of the connection to the control plane. An edge without a control
    /// plane does not show them, so that alerts on them mean something.
    pub struct ControlMetrics {
        connected: IntGauge = "cellgate_control_plane_connected",
            "1 while a control plane is connected";
        stale: Gauge = "cellgate_control_plane_stale_seconds",
            "Seconds since a control plane was last heard, or since the start; 0 while one is connected";
        generation: IntGauge = "cellgate_control_plane_generation",
            "The control plane's number of the generation being served; 0 if it has none";
        messages: IntCounterVec = "cellgate_control_plane_messages_total",
            "Messages from and to the control plane, by kind", ["direction", "kind"];
        connects: IntCounterVec = "cellgate_control_plane_connects_total",
            "Attempts to connect to a control plane, by result", ["result"];
    }
}

// Series that are shown from the start, so that `rate()` sees the first event.
const RELOADS: [&str; 4] = ["ok", "unchanged", "refused", "unreadable"];
const CONNECTS: [&str; 2] = ["ok", "failed"];
const MESSAGES: [(&str, &[&str]); 2] = [
    (
        "received",
        &[
            "welcome",
            "delta",
            "snapshot_begin",
            "chunk",
            "snapshot_end",
            "checkpoint",
            "config_snapshot",
            "unknown",
        ],
    ),
    ("sent", &["hello", "ack", "nack", "resync", "status"]),
];

/// The statuses that the edge answers with before a placement is chosen.
const REFUSED_STATUSES: [u16; 12] = [400, 404, 405, 408, 413, 417, 421, 431, 500, 501, 503, 505];

/// All metrics of the edge.
pub struct Metrics {
    edge: EdgeMetrics,
    control: OnceLock<ControlMetrics>,
    placements: Placements,
    /// Handles, as clients can cause refusals at any rate.
    refused: [IntCounter; REFUSED_STATUSES.len()],
    refused_other: IntCounter,
    /// On the monotonic clock: the age stays right when the wall clock is set.
    last_reload: Mutex<Option<Instant>>,
    registered: Registered,
}

impl Deref for Metrics {
    type Target = EdgeMetrics;

    fn deref(&self) -> &EdgeMetrics {
        &self.edge
    }
}

impl Metrics {
    /// Creates and registers all of them.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let registered = Registered::new();
        let edge = EdgeMetrics::register(&registered);
        for result in RELOADS {
            edge.reloads.with_label_values(&[result]);
        }
        edge.last_reload_age.set(f64::NAN);
        let refused = |status: &str| edge.refused.with_label_values(&[status]);
        Self {
            control: OnceLock::new(),
            placements: registered.collector(Placements::new()),
            refused: REFUSED_STATUSES.map(|status| refused(&status.to_string())),
            refused_other: refused("other"),
            last_reload: Mutex::new(None),
            edge,
            registered,
        }
    }

    /// The metrics of the placement `name`, the same ones each time. Takes a
    /// lock: once per placement and generation, not per request.
    pub fn placement(&self, name: &str) -> PlacementMetrics {
        self.placements.get(name)
    }

    /// Removes the series of all placements for which `keep` is false. Handles
    /// that are still held go on counting, but are not shown.
    pub fn forget_placements_except(&self, keep: &dyn Fn(&str) -> bool) {
        self.placements.forget_except(keep);
    }

    /// Counts a request that was answered before a placement was chosen.
    pub fn request_refused(&self, status: u16) {
        let known = REFUSED_STATUSES.iter().position(|known| *known == status);
        let counter = known.and_then(|index| self.refused.get(index));
        counter.unwrap_or(&self.refused_other).inc();
    }

    /// Counts a routing document that the edge was given.
    pub fn reloaded(&self, result: Reload) {
        let (label, error) = match result {
            Reload::Ok => ("ok", 0),
            Reload::Unchanged => ("unchanged", 0),
            Reload::Refused => ("refused", 1),
            Reload::Unreadable => ("unreadable", 1),
        };
        self.reloads.with_label_values(&[label]).inc();
        self.config_error.set(error);
    }

    /// Shows the generation that was just applied, at `at` by the wall clock.
    pub fn generation_applied(&self, number: u64, keys: usize, placements: usize, at: SystemTime) {
        set(&self.generation, number);
        set(&self.keys, keys as u64);
        set(&self.placement_count, placements as u64);
        let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_reload_timestamp.set(since_epoch.as_secs_f64());
        *self.last_reload() = Some(Instant::now());
    }

    /// Shows which generation is kept for a restart, whether an older one is
    /// served because the newest made the edge crash, and whether keeping fails.
    pub fn show_state(&self, generation: Option<u64>, fallback: bool, error: bool) {
        set(&self.state_generation, generation.unwrap_or_default());
        self.state_fallback.set(i64::from(fallback));
        self.state_error.set(i64::from(error));
    }

    /// The metrics of the connection to the control plane, which are shown from
    /// the first call on.
    pub fn control(&self) -> &ControlMetrics {
        self.control.get_or_init(|| {
            let control = ControlMetrics::register(&self.registered);
            for (direction, kinds) in MESSAGES {
                for kind in kinds {
                    control.messages.with_label_values(&[direction, kind]);
                }
            }
            for result in CONNECTS {
                control.connects.with_label_values(&[result]);
            }
            control
        })
    }

    /// Counts a failed lookup of `host`.
    pub fn dns_failed(&self, host: &str) {
        self.dns_failures.with_label_values(&[host]).inc();
    }

    /// Removes the series of a host that no cell has any more.
    pub fn forget_host(&self, host: &str) {
        // Fails for a host that has none.
        let _ = self.dns_failures.remove_label_values(&[host]);
    }

    /// Shows how many endpoints are in a state of resolution.
    pub fn set_endpoints(&self, state: &str, count: usize) {
        set(&self.endpoints.with_label_values(&[state]), count as u64);
    }

    /// All metrics in the Prometheus text format 0.0.4.
    pub fn encode(&self) -> String {
        if let Some(applied) = *self.last_reload() {
            self.last_reload_age.set(applied.elapsed().as_secs_f64());
        }
        self.registered.encode()
    }

    fn last_reload(&self) -> MutexGuard<'_, Option<Instant>> {
        self.last_reload
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Received,
    Sent,
}

impl ControlMetrics {
    /// Counts a message. `kind` is its `type`; `chunk` and `unknown` for messages
    /// without a known one.
    pub fn message(&self, direction: Direction, kind: &'static str) {
        let direction = match direction {
            Direction::Received => "received",
            Direction::Sent => "sent",
        };
        self.messages.with_label_values(&[direction, kind]).inc();
    }

    /// Counts an attempt to connect.
    pub fn connect(&self, ok: bool) {
        let result = if ok { "ok" } else { "failed" };
        self.connects.with_label_values(&[result]).inc();
    }

    /// Sets the gauges.
    pub fn show(&self, connected: bool, stale: Duration, generation: Option<u64>) {
        self.connected.set(i64::from(connected));
        self.stale.set(stale.as_secs_f64());
        set(&self.generation, generation.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests;
