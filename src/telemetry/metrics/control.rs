//! What is counted of the connection to the control plane. Only an edge that is
//! to have one shows any of it, so that an alarm on it means something.

use std::time::Duration;

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Who said a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Received,
    Sent,
}

/// What is received, by its `type`; chunks of snapshots have none, and `unknown`
/// is what a later version has.
const RECEIVED: [&str; 8] = [
    "welcome",
    "delta",
    "snapshot_begin",
    "chunk",
    "snapshot_end",
    "checkpoint",
    "config_snapshot",
    "unknown",
];

const SENT: [&str; 5] = ["hello", "ack", "nack", "resync", "status"];

/// All of them.
pub struct ControlMetrics {
    connected: IntGauge,
    stale: Gauge,
    generation: IntGauge,
    received: Vec<(&'static str, IntCounter)>,
    sent: Vec<(&'static str, IntCounter)>,
    connects: [IntCounter; 2],
}

impl ControlMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let connected = IntGauge::new(
            "cellgate_control_plane_connected",
            "1 while a control plane is connected",
        )?;
        let stale = Gauge::new(
            "cellgate_control_plane_stale_seconds",
            "Seconds since a control plane was last heard, or since the start; 0 while one is connected",
        )?;
        let generation = IntGauge::new(
            "cellgate_control_plane_generation",
            "What the control plane calls the generation that is served; 0 if it is from elsewhere",
        )?;
        let messages = IntCounterVec::new(
            Opts::new(
                "cellgate_control_plane_messages_total",
                "Messages from and to the control plane, by kind",
            ),
            &["direction", "kind"],
        )?;
        let connects = IntCounterVec::new(
            Opts::new(
                "cellgate_control_plane_connects_total",
                "Attempts to connect to a control plane, by how they ended",
            ),
            &["result"],
        )?;
        registry.register(Box::new(connected.clone()))?;
        registry.register(Box::new(stale.clone()))?;
        registry.register(Box::new(generation.clone()))?;
        registry.register(Box::new(messages.clone()))?;
        registry.register(Box::new(connects.clone()))?;
        let of = |direction: &str, kinds: &[&'static str]| {
            let kinds = kinds.iter();
            kinds
                .map(|kind| (*kind, messages.with_label_values(&[direction, kind])))
                .collect()
        };
        Ok(Self {
            connected,
            stale,
            generation,
            received: of("received", &RECEIVED),
            sent: of("sent", &SENT),
            connects: ["ok", "failed"].map(|result| connects.with_label_values(&[result])),
        })
    }

    /// Counts a message. `kind` is its `type`, `chunk` or `unknown`.
    pub fn message(&self, direction: Direction, kind: &str) {
        let counters = match direction {
            Direction::Received => &self.received,
            Direction::Sent => &self.sent,
        };
        if let Some((_, counter)) = counters.iter().find(|(known, _)| *known == kind) {
            counter.inc();
        }
    }

    /// Counts an attempt to connect.
    pub fn connect(&self, well: bool) {
        let [ok, failed] = &self.connects;
        if well { ok } else { failed }.inc();
    }

    /// Shows how it stands.
    pub fn show(&self, connected: bool, stale: Duration, generation: Option<u64>) {
        self.connected.set(i64::from(connected));
        self.stale.set(stale.as_secs_f64());
        let generation = generation.unwrap_or_default();
        self.generation
            .set(i64::try_from(generation).unwrap_or(i64::MAX));
    }
}
