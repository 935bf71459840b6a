//! Metrics of edges and of the messages exchanged with them.

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::control::core::{Dialect, Edges};

/// Histogram bounds of the time from a change to an edge's ack, in seconds.
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

/// Why a connection was refused.
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

/// All metrics of `/connect`.
#[derive(Clone)]
pub struct ConnectMetrics(Arc<Handles>);

/// The metrics behind [`ConnectMetrics`].
pub struct Handles {
    edges: [IntGauge; 2],
    received: [IntCounter; FROM.len()],
    sent: [IntCounter; TO.len()],
    refused: [IntCounter; REFUSED.len()],
    pub sent_bytes: IntCounter,
    pub nacks: IntCounter,
    pub deltas_encoded: IntCounter,
    pub chunks_encoded: IntCounter,
    pub snapshots_sending: IntGauge,
    pub snapshots_waiting: IntGauge,
    pub push: Histogram,
}

impl std::ops::Deref for ConnectMetrics {
    type Target = Handles;

    fn deref(&self) -> &Handles {
        &self.0
    }
}

impl Handles {
    pub fn edges(&self, dialect: Dialect) -> &IntGauge {
        &self.edges[match dialect {
            Dialect::V1 => 0,
            Dialect::M3 => 1,
        }]
    }

    pub fn received(&self, kind: From) {
        self.received[kind as usize].inc();
    }

    pub fn sent(&self, kind: To) {
        self.sent[kind as usize].inc();
    }

    pub fn refused(&self, why: Refused) {
        self.refused[why as usize].inc();
    }
}

impl ConnectMetrics {
    /// Creates and registers all metrics.
    ///
    /// # Errors
    /// A name is already registered.
    pub fn register(registry: &Registry, edges: &Arc<Edges>) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let gauges = |name: &str, help: &str, label: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let connected = gauges(
            "cellgate_control_edges",
            "Connected edges, by dialect",
            "dialect",
        )?;
        let messages = counters(
            "cellgate_control_messages_total",
            "Messages from and to edges, by kind",
            &["direction", "kind"],
        )?;
        let refused = counters(
            "cellgate_control_edges_refused_total",
            "Refused connections of edges, by reason",
            &["reason"],
        )?;
        let snapshots = gauges(
            "cellgate_control_snapshots",
            "Edges that are being sent a whole table, or are queued for it",
            "state",
        )?;
        let push = Histogram::with_opts(
            HistogramOpts::new(
                "cellgate_control_push_seconds",
                "Time from a change to the ack of a connected edge",
            )
            .buckets(PUSH_SECONDS.to_vec()),
        )?;
        registry.register(Box::new(push.clone()))?;
        registry.register(Box::new(InSync::new(Arc::clone(edges))?))?;
        Ok(Self(Arc::new(Handles {
            edges: [Dialect::V1, Dialect::M3]
                .map(|dialect| connected.with_label_values(&[dialect.as_str()])),
            received: FROM.map(|kind| messages.with_label_values(&["received", kind])),
            sent: TO.map(|kind| messages.with_label_values(&["sent", kind])),
            refused: REFUSED.map(|reason| refused.with_label_values(&[reason])),
            sent_bytes: counter(
                "cellgate_control_sent_bytes_total",
                "Bytes sent to edges, as WebSocket frames",
            )?,
            nacks: counter(
                "cellgate_control_nacks_total",
                "Generations refused by edges, in either dialect",
            )?,
            deltas_encoded: counter(
                "cellgate_control_deltas_encoded_total",
                "Encoded deltas, each shared by all edges that need the same",
            )?,
            chunks_encoded: counter(
                "cellgate_control_chunks_encoded_total",
                "Encoded chunks of snapshots, each shared by all edges that are sent it",
            )?,
            snapshots_sending: snapshots.with_label_values(&["sending"]),
            snapshots_waiting: snapshots.with_label_values(&["waiting"]),
            push,
        })))
    }
}

/// Counts the edges with the newest generation at each scrape.
struct InSync {
    edges: Arc<Edges>,
    gauge: IntGauge,
}

impl InSync {
    fn new(edges: Arc<Edges>) -> Result<Self, prometheus::Error> {
        let gauge = IntGauge::new(
            "cellgate_control_edges_in_sync",
            "Connected edges that serve the newest generation",
        )?;
        Ok(Self { edges, gauge })
    }
}

impl Collector for InSync {
    fn desc(&self) -> Vec<&prometheus::core::Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<prometheus::proto::MetricFamily> {
        let in_sync = self.edges.counts().in_sync;
        self.gauge.set(i64::try_from(in_sync).unwrap_or(i64::MAX));
        self.gauge.collect()
    }
}
