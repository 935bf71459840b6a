//! Connections of edges: the control plane's side of `docs/protocol.md`, in both dialects.
//!
//! - `handshake` checks the request and upgrades it to a WebSocket.
//! - `websocket` is that WebSocket: messages, pings, deadlines and the close.
//! - `v1` and `m3` are the two dialects: one task for each edge.
//! - `sync_state` decides what an edge needs next. It is pure.
//! - `deltas`, `snapshots` and `chunks` encode what is sent, once for all edges that need the same.
//!
//! The memory of a connection does not grow with the table: encoded messages are shared, and a
//! connection copies only a few kilobytes at a time.

mod chunks;
mod deltas;
mod handshake;
mod m3;
mod metrics;
mod snapshots;
mod sync_state;
mod v1;
mod websocket;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use rand::Rng;
use tokio::sync::{Semaphore, watch};

use self::deltas::Deltas;
use self::m3::Documents;
use self::metrics::ConnectMetrics;
use self::snapshots::Snapshots;
use super::Control;
use crate::protocol::limits::{CHECKPOINT_EVERY, GREETING, PING};

/// Limits and intervals for edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most connected edges, at least 1. Further edges are told to retry later.
    pub max_edges: usize,
    /// Most edges that are sent a whole table at a time, at least 1. Further edges queue.
    pub max_snapshots: usize,
    /// The interval between pings of each side, in whole seconds from 1 to 300.
    pub ping: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_edges: 10_000,
            max_snapshots: 8,
            ping: PING,
        }
    }
}

/// Intervals and timeouts.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// From the handshake to the hello.
    greeting: Duration,
    /// Between two checkpoints.
    checkpoint: Duration,
    /// How long an edge may take to read a message, in addition to its size divided by the minimum
    /// rate.
    write: Duration,
    /// Bytes a second that an edge must read, for each dialect. Higher for M3, whose documents stay
    /// in memory until they are sent.
    min_rate: usize,
    min_rate_m3: usize,
    /// How long an edge may take to answer a push that it has been sent in full.
    answer: Duration,
    /// How long an edge is sent a snapshot before it is paused while others queue.
    turn: Duration,
    /// Between two snapshots to the same edge; doubles up to a minute until one is acked.
    snapshot_backoff: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            greeting: GREETING,
            checkpoint: CHECKPOINT_EVERY,
            write: Duration::from_secs(10),
            min_rate: 16 * 1024,
            min_rate_m3: 128 * 1024,
            answer: Duration::from_secs(120),
            turn: Duration::from_secs(3),
            snapshot_backoff: Duration::from_secs(1),
        }
    }
}

/// Serves `/connect`. When `ending` becomes true, all edges are told to reconnect elsewhere, over a
/// few seconds; `control.edges.none_left()` returns when all have disconnected.
///
/// Each request needs an extension of the type [`Peer`](super::Peer).
///
/// # Panics
///
/// If called twice for one `control`, whose metrics would be registered twice.
pub fn router(control: Control, ending: watch::Receiver<bool>) -> Router {
    serve(control, Times::default(), ending)
}

fn serve(control: Control, times: Times, ending: watch::Receiver<bool>) -> Router {
    let limits = control.limits;
    let metrics = ConnectMetrics::new(control.metrics.registered(), &control.edges);
    let hub = Arc::new(Hub {
        snapshots: Snapshots::new(
            Arc::clone(&control.truth),
            limits.max_snapshots,
            times.turn,
            metrics.clone(),
        ),
        documents: Documents::new(limits.max_snapshots, metrics.clone()),
        deltas: Deltas::new(metrics.clone()),
        edge_permits: Arc::new(Semaphore::new(limits.max_edges.max(1))),
        refused: AtomicU64::new(0),
        unknown: Mutex::default(),
        control,
        times,
        metrics,
        ending,
    });
    Router::new()
        .route("/connect", any(handshake::connect))
        .with_state(hub)
}

/// State that all connections share.
struct Hub {
    control: Control,
    times: Times,
    metrics: ConnectMetrics,
    ending: watch::Receiver<bool>,
    /// One for each edge that may be connected.
    edge_permits: Arc<Semaphore>,
    deltas: Deltas,
    snapshots: Arc<Snapshots>,
    documents: Documents,
    /// The last generation that any edge refused.
    refused: AtomicU64,
    /// Unknown message types that have been logged.
    unknown: Mutex<BTreeSet<String>>,
}

/// At shutdown, edges are disconnected over at most this time, so that they do not all reach the
/// next control plane at once; and at most so many a second.
const DRAIN_TIME: Duration = Duration::from_secs(3);
const DRAINED_PER_SECOND: usize = 1_000;

/// Returns when this connection is to be closed for shutdown.
async fn ending(hub: &Hub) {
    let mut ending = hub.ending.clone();
    if ending.wait_for(|ending| *ending).await.is_err() {
        // The sender is gone: there will be no shutdown.
        std::future::pending::<()>().await;
    }
    let edges = hub.control.edges.connected();
    let bound = Duration::from_millis((edges * 1000 / DRAINED_PER_SECOND) as u64).min(DRAIN_TIME);
    let share = rand::rng().random_range(0.0..1.0);
    tokio::time::sleep(bound.mul_f64(share)).await;
}

/// Most unknown message types that are logged.
const MAX_UNKNOWN: usize = 32;

impl Hub {
    /// Counts and logs a nack: the first for a generation as a warning, the others as info, as all
    /// edges refuse a generation for the same reason.
    fn refused(&self, edge_id: &str, generation: u64, why: &str) {
        self.metrics.nacks.inc();
        let first = self.refused.swap(generation, Ordering::Relaxed) != generation;
        log::log!(
            target: "cellgate::control",
            if first { log::Level::Warn } else { log::Level::Info },
            edge_id, generation;
            "an edge refuses a generation: {why}"
        );
    }

    /// Counts a message of a later protocol version, and logs its type once.
    fn unknown(&self, kind: String) {
        self.metrics.received(metrics::From::Unknown);
        let mut known = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MAX_UNKNOWN && !known.contains(&kind) {
            log::info!(
                target: "cellgate::control",
                "ignoring messages of the unknown type {kind:?}"
            );
            known.insert(kind);
        }
    }
}
