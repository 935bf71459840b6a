//! Metrics of edges and of the messages they are sent.

use std::ops::Deref;
use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::control::core::{Dialect, Edges};
use crate::telemetry::metrics::{Registered, metrics, set};

/// Bounds of the time from a change to an edge's ack, in seconds.
const PUSH_SECONDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0,
];

/// A kind of message from an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Hello,
    Ack,
    Nack,
    Resync,
    Status,
    Unknown,
}

/// A kind of message to an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    Welcome,
    Delta,
    SnapshotBegin,
    Chunk,
    SnapshotEnd,
    Checkpoint,
    Document,
}

/// Why an edge was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Unauthorized,
    Forbidden,
    Full,
    Ending,
    Malformed,
}

const FROM: [&str; 6] = ["hello", "ack", "nack", "resync", "status", "unknown"];
const TO: [&str; 7] = [
    "welcome",
    "delta",
    "snapshot_begin",
    "chunk",
    "snapshot_end",
    "checkpoint",
    "config_snapshot",
];
const REFUSED: [&str; 5] = ["unauthorized", "forbidden", "full", "ending", "malformed"];

metrics! {
    pub struct Families {
        edges: IntGaugeVec = "cellgate_control_edges",
            "Connected edges, by dialect", ["dialect"];
        messages: IntCounterVec = "cellgate_control_messages_total",
            "Messages from and to edges, by kind", ["direction", "kind"];
        refused: IntCounterVec = "cellgate_control_edges_refused_total",
            "Edges that were refused, by reason", ["reason"];
        snapshots: IntGaugeVec = "cellgate_control_snapshots",
            "Snapshots that are being sent, or that wait for that", ["state"];
        pub sent_bytes: IntCounter = "cellgate_control_sent_bytes_total",
            "Bytes of WebSocket frames sent to edges";
        pub nacks: IntCounter = "cellgate_control_nacks_total",
            "Generations that edges refused, in either dialect";
        pub deltas_encoded: IntCounter = "cellgate_control_deltas_encoded_total",
            "Deltas that were encoded, each for all edges that lacked the same changes";
        pub chunks_encoded: IntCounter = "cellgate_control_chunks_encoded_total",
            "Snapshot chunks that were compressed, each for all edges that were sent it";
    }
}

/// The metrics of `/connect`; clones share them.
#[derive(Clone)]
pub struct ConnectMetrics {
    families: Arc<Families>,
    pub snapshots_sending: IntGauge,
    pub snapshots_waiting: IntGauge,
    /// From when a generation was stored until an edge acknowledged it.
    pub push: Histogram,
}

impl Deref for ConnectMetrics {
    type Target = Families;

    fn deref(&self) -> &Families {
        &self.families
    }
}

impl ConnectMetrics {
    /// Creates and registers all of them.
    ///
    /// # Panics
    /// They are registered there already.
    pub fn new(registered: &Registered, edges: &Arc<Edges>) -> Self {
        let push = HistogramOpts::new(
            "cellgate_control_push_seconds",
            "Time from a change to the ack of an edge that was connected",
        );
        let push = Histogram::with_opts(push.buckets(PUSH_SECONDS.to_vec()));
        registered.collector(InSync::new(Arc::clone(edges)));
        let families = Families::register(registered);
        let metrics = Self {
            snapshots_sending: families.snapshots.with_label_values(&["sending"]),
            snapshots_waiting: families.snapshots.with_label_values(&["waiting"]),
            push: registered.collector(push),
            families: Arc::new(families),
        };
        // Shown from the start, so that `rate()` sees the first event.
        for kind in FROM {
            metrics.messages.with_label_values(&["received", kind]);
        }
        for kind in TO {
            metrics.messages.with_label_values(&["sent", kind]);
        }
        for reason in REFUSED {
            metrics.refused.with_label_values(&[reason]);
        }
        for dialect in [Dialect::V1, Dialect::M3] {
            metrics.edges(dialect);
        }
        metrics
    }

    pub fn edges(&self, dialect: Dialect) -> IntGauge {
        self.edges.with_label_values(&[dialect.as_str()])
    }

    pub fn received(&self, kind: From) {
        let labels = ["received", FROM[kind as usize]];
        self.messages.with_label_values(&labels).inc();
    }

    pub fn sent(&self, kind: To) {
        let labels = ["sent", TO[kind as usize]];
        self.messages.with_label_values(&labels).inc();
    }

    pub fn refused(&self, why: Refused) {
        let labels = [REFUSED[why as usize]];
        self.refused.with_label_values(&labels).inc();
    }
}

/// Counts the edges with the newest generation at each scrape.
#[derive(Clone)]
struct InSync {
    edges: Arc<Edges>,
    gauge: IntGauge,
}

impl InSync {
    fn new(edges: Arc<Edges>) -> Result<Self, prometheus::Error> {
        let gauge = IntGauge::new(
            "cellgate_control_edges_in_sync",
            "Connected edges that acknowledged the newest generation",
        )?;
        Ok(Self { edges, gauge })
    }
}

impl Collector for InSync {
    fn desc(&self) -> Vec<&prometheus::core::Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<prometheus::proto::MetricFamily> {
        set(&self.gauge, self.edges.counts().in_sync as u64);
        self.gauge.collect()
    }
}
