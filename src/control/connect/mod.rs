//! Where edges connect: the control plane's side of `docs/protocol.md`, in both
//! dialects.
//!
//! - `upgrade` judges the request, and makes it a WebSocket.
//! - `link` is that WebSocket: messages both ways, deadlines and the close.
//! - `v1` and `m3` are the two dialects: one task for each edge.
//! - `standing` says what an edge is to be sent next. It is pure.
//! - `deltas`, `snapshots` and `documents` make what is sent, once for all edges
//!   that lack the same.
//!
//! What an edge costs here does not grow with the table: what is written is shared
//! by all who are written the same, and a link copies no more than a few kilobytes
//! of it at a time.

mod deltas;
mod documents;
mod link;
mod m3;
mod metrics;
mod snapshots;
mod standing;
mod upgrade;
mod v1;

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
use self::documents::Documents;
use self::metrics::ConnectMetrics;
use self::snapshots::Snapshots;
use super::Control;
use crate::protocol::limits::{CHECKPOINT_EVERY, GREETING, PING};

/// How many edges there may be, and how they are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most edges that are connected at a time, at least 1. More are told to come
    /// back later.
    pub max_edges: usize,
    /// Most edges that are sent a whole table at a time, at least 1. More wait.
    pub max_snapshots: usize,
    /// How often both sides ping, in whole seconds from 1 to 300.
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

/// How long things take and may take.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// From the handshake to the hello.
    greeting: Duration,
    /// From checkpoint to checkpoint.
    checkpoint: Duration,
    /// How long an edge may take for a message, besides the time for its size.
    write: Duration,
    /// Bytes a second that an edge has to take at least, in each dialect: on the
    /// slowest of lines, and of M3, which has all of a document in memory here
    /// meanwhile.
    least_rate: usize,
    least_rate_m3: usize,
    /// How long an edge may take to answer what it has been sent in full.
    answer: Duration,
    /// How long an edge is sent a snapshot while others wait.
    turn: Duration,
    /// From a snapshot that was of no use to the next; doubles up to a minute.
    again: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            greeting: GREETING,
            checkpoint: CHECKPOINT_EVERY,
            write: Duration::from_secs(10),
            least_rate: 16 * 1024,
            least_rate_m3: 128 * 1024,
            answer: Duration::from_secs(120),
            turn: Duration::from_secs(3),
            again: Duration::from_secs(1),
        }
    }
}

/// Serves `/connect`. When `ending` becomes true, all edges are told to dial again,
/// over a few seconds; `control.edges.none_left()` returns when they are gone.
///
/// Each request needs an extension of the type [`Peer`](super::Peer).
///
/// # Panics
///
/// If it is called twice for one `control`: its metrics are registered already.
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
        places: Arc::new(Semaphore::new(limits.max_edges.max(1))),
        refused: AtomicU64::new(0),
        unknown: Mutex::default(),
        control,
        times,
        metrics,
        ending,
    });
    Router::new()
        .route("/connect", any(upgrade::connect))
        .with_state(hub)
}

/// What all connections share.
struct Hub {
    control: Control,
    times: Times,
    metrics: ConnectMetrics,
    ending: watch::Receiver<bool>,
    /// One for each edge that may be connected.
    places: Arc<Semaphore>,
    deltas: Deltas,
    snapshots: Arc<Snapshots>,
    documents: Documents,
    /// The last generation that an edge is known to have refused.
    refused: AtomicU64,
    /// Types of messages that were logged as unknown.
    unknown: Mutex<BTreeSet<String>>,
}

/// How long it takes to send so many edges away, at most: a few seconds, so that
/// they do not all come to the next control plane at once.
const SEND_AWAY: Duration = Duration::from_secs(3);
const SENT_AWAY_A_SECOND: usize = 1_000;

/// Returns when a connection is to end because all do.
async fn ending(hub: &Hub) {
    let mut ending = hub.ending.clone();
    if ending.wait_for(|ending| *ending).await.is_err() {
        // Nobody is left who could say so.
        std::future::pending::<()>().await;
    }
    let edges = hub.control.edges.connected();
    let bound = Duration::from_millis((edges * 1000 / SENT_AWAY_A_SECOND) as u64).min(SEND_AWAY);
    let share = rand::rng().random_range(0.0..1.0);
    tokio::time::sleep(bound.mul_f64(share)).await;
}

/// Most types of messages that are logged as unknown.
const MOST_UNKNOWN: usize = 32;

impl Hub {
    /// Logs a nack: the first of a generation as a warning. A thousand edges refuse
    /// a thing together, and for the same reason.
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

    /// Counts a message that a later version has, and logs its type once.
    fn unknown(&self, kind: String) {
        self.metrics.received(metrics::From::Unknown);
        let mut known = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MOST_UNKNOWN && !known.contains(&kind) {
            log::info!(
                target: "cellgate::control",
                "messages of type {kind:?} are left alone: this version does not know them"
            );
            known.insert(kind);
        }
    }
}
