//! The connected edges, and what is known of each.
//!
//! An edge is listed from its hello to the end of its connection, and for an hour longer
//! as disconnected. What edges report of themselves is untrusted, and the memory for it
//! is bounded.

mod known;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, watch};

use self::known::Known;
use super::Truth;
use crate::protocol::{Mark, Status};
use crate::table::{Digest, Problem};

pub use self::known::{EdgeView, NackView, Sent, StatusView};

/// How long a disconnected edge is listed.
const GONE_FOR: Duration = Duration::from_secs(3600);

/// How many disconnected edges are listed at most.
const MOST_GONE: usize = 10_000;

/// Memory for all disconnected edges, in bytes. Beyond it, the reports of the oldest are
/// dropped, and then the edges.
const MOST_GONE_BYTES: usize = 32 << 20;

/// The protocol that an edge speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    V1,
    M3,
}

impl Dialect {
    /// `cellgate.v1` or `m3`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => crate::protocol::SUBPROTOCOL,
            Self::M3 => "m3",
        }
    }
}

/// What an edge reports when it connects.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub edge_id: String,
    pub instance: String,
    /// Its address, or that of a proxy before it.
    pub peer: String,
    pub dialect: Dialect,
    pub version: String,
    pub labels: BTreeMap<String, String>,
    /// The generation that it serves; 0 if its table is not from a control plane.
    pub generation: u64,
    pub digest: Option<Digest>,
}

/// The connected and the recently disconnected edges.
pub struct Edges {
    truth: Arc<Truth>,
    inner: Mutex<Inner>,
    connected: watch::Sender<usize>,
}

#[derive(Default)]
struct Inner {
    /// The number of the last session.
    number: u64,
    /// By name and number of the session: while a process replaces another of the same
    /// name, both are here.
    here: BTreeMap<(Arc<str>, u64), Arc<Slot>>,
    gone: BTreeMap<Arc<str>, Gone>,
    /// The disconnected edges by time, with the number of the session. Entries of edges
    /// that have come back since stay, and are skipped.
    order: VecDeque<(Arc<str>, u64)>,
    /// Those of them whose reports are kept, likewise.
    reporting: VecDeque<(Arc<str>, u64)>,
    /// Memory for the disconnected edges.
    gone_bytes: usize,
}

struct Slot {
    known: Mutex<Known>,
    instance: Arc<str>,
    /// Notified when the same process connects again.
    replaced: Notify,
}

struct Gone {
    /// The number of the session.
    number: u64,
    at: Instant,
    known: Known,
}

/// How many edges are connected, and how many of them have the newest generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub connected: usize,
    pub in_sync: usize,
}

impl Edges {
    /// Without edges. They are in sync when they have the newest generation of `truth`.
    pub fn new(truth: Arc<Truth>) -> Arc<Self> {
        Arc::new(Self {
            truth,
            inner: Mutex::default(),
            connected: watch::Sender::new(0),
        })
    }

    /// Adds an edge; it is connected until the session is dropped.
    pub fn join(self: &Arc<Self>, arrival: Arrival) -> Session {
        let edge_id: Arc<str> = arrival.edge_id.as_str().into();
        let slot = Arc::new(Slot {
            instance: arrival.instance.as_str().into(),
            known: Mutex::new(Known::new(arrival, self.newest())),
            replaced: Notify::new(),
        });
        let mut inner = lock(&self.inner);
        inner.number += 1;
        let number = inner.number;
        for (_, other) in inner.here.range(of(&edge_id)) {
            if other.instance == slot.instance {
                other.replaced.notify_one();
            }
        }
        inner.forget_gone(&edge_id);
        inner
            .here
            .insert((Arc::clone(&edge_id), number), Arc::clone(&slot));
        self.connected.send_replace(inner.here.len());
        drop(inner);
        Session {
            edges: Arc::clone(self),
            edge_id,
            number,
            slot,
            why: "the connection broke".to_owned(),
        }
    }

    /// All edges by name, including the disconnected ones.
    pub fn list(&self) -> Vec<EdgeView> {
        let newest = self.newest();
        let mut inner = lock(&self.inner);
        inner.forget(Instant::now());
        let here: Vec<_> = inner.here.values().map(Arc::clone).collect();
        let mut views: Vec<EdgeView> = inner
            .gone
            .values()
            .map(|gone| gone.known.view(newest))
            .collect();
        drop(inner);
        views.extend(here.iter().map(|slot| lock(&slot.known).view(newest)));
        views.sort_by(|one, other| one.edge_id.cmp(&other.edge_id));
        views
    }

    /// The edge of this name that connected last, if there is one.
    pub fn get(&self, edge_id: &str) -> Option<EdgeView> {
        let newest = self.newest();
        let mut inner = lock(&self.inner);
        inner.forget(Instant::now());
        let last = inner.here.range(of(&edge_id.into())).next_back();
        match last {
            Some((_, slot)) => Some(lock(&slot.known).view(newest)),
            None => Some(inner.gone.get(edge_id)?.known.view(newest)),
        }
    }

    /// How many edges are connected.
    pub fn connected(&self) -> usize {
        *self.connected.borrow()
    }

    /// Counts edges. Takes time proportional to the number of edges.
    pub fn counts(&self) -> Counts {
        let newest = self.newest();
        let here: Vec<_> = lock(&self.inner).here.values().map(Arc::clone).collect();
        let in_sync = |slot: &&Arc<Slot>| lock(&slot.known).in_sync(newest);
        Counts {
            connected: here.len(),
            in_sync: here.iter().filter(in_sync).count(),
        }
    }

    /// Returns when no edge is connected.
    pub async fn none_left(&self) {
        // The sender lives as long as `self`.
        let _ = self.connected.subscribe().wait_for(|left| *left == 0).await;
    }

    fn newest(&self) -> Option<Mark> {
        self.truth.newest().map(|newest| newest.record.mark())
    }

    fn leave(&self, session: &Session) {
        let mut known = lock(&session.slot.known).clone();
        known.leave(&session.why, self.newest());
        let mut inner = lock(&self.inner);
        let key = (Arc::clone(&session.edge_id), session.number);
        inner.here.remove(&key);
        self.connected.send_replace(inner.here.len());
        if inner.here.range(of(&session.edge_id)).next().is_some() {
            return;
        }
        let gone = Gone {
            number: session.number,
            at: Instant::now(),
            known,
        };
        inner.forget_gone(&session.edge_id);
        inner.gone_bytes += gone.known.bytes();
        inner.gone.insert(Arc::clone(&session.edge_id), gone);
        let entry = (Arc::clone(&session.edge_id), session.number);
        inner.order.push_back(entry.clone());
        inner.reporting.push_back(entry);
        inner.forget(Instant::now());
    }
}

impl Inner {
    /// Removes a disconnected edge.
    fn forget_gone(&mut self, edge_id: &str) {
        if let Some(gone) = self.gone.remove(edge_id) {
            self.gone_bytes -= gone.known.bytes();
        }
    }

    /// Removes the edges that disconnected too long ago, and the oldest if there are too
    /// many. If they take too much memory, drops the reports of the oldest first.
    fn forget(&mut self, now: Instant) {
        self.forget_oldest(now);
        while self.gone_bytes > MOST_GONE_BYTES || self.reporting.len() > 2 * MOST_GONE {
            let Some((edge_id, number)) = self.reporting.pop_front() else {
                break;
            };
            if let Some(gone) = self.gone.get_mut(&edge_id)
                && gone.number == number
            {
                let before = gone.known.bytes();
                gone.known.forget_reports();
                self.gone_bytes -= before - gone.known.bytes();
            }
        }
        while self.gone_bytes > MOST_GONE_BYTES {
            let Some((edge_id, number)) = self.order.pop_front() else {
                break;
            };
            if self
                .gone
                .get(&edge_id)
                .is_some_and(|gone| gone.number == number)
            {
                self.forget_gone(&edge_id);
            }
        }
    }

    fn forget_oldest(&mut self, now: Instant) {
        while let Some((edge_id, number)) = self.order.front() {
            let gone = self.gone.get(edge_id).filter(|gone| gone.number == *number);
            let keep = gone.is_some_and(|gone| now.duration_since(gone.at) < GONE_FOR);
            if keep && self.order.len() <= MOST_GONE {
                break;
            }
            let is_gone = gone.is_some();
            let Some((edge_id, _)) = self.order.pop_front() else {
                break;
            };
            if is_gone {
                self.forget_gone(&edge_id);
            }
        }
    }
}

/// The keys of all sessions of an edge.
fn of(edge_id: &Arc<str>) -> std::ops::RangeInclusive<(Arc<str>, u64)> {
    (Arc::clone(edge_id), 0)..=(Arc::clone(edge_id), u64::MAX)
}

/// A connected edge. It is disconnected when this is dropped.
pub struct Session {
    edges: Arc<Edges>,
    edge_id: Arc<str>,
    number: u64,
    slot: Arc<Slot>,
    why: String,
}

impl Session {
    pub fn edge_id(&self) -> &str {
        &self.edge_id
    }

    /// Returns when the same process has connected again: this connection must be dead.
    pub async fn replaced(&self) {
        self.slot.replaced.notified().await;
    }

    /// Notes that the edge is being sent a newer generation.
    pub fn behind(&self) {
        self.known().behind();
    }

    /// Notes that the edge serves this generation.
    pub fn acked(&self, generation: u64, digest: Option<Digest>) {
        let newest = self.edges.newest();
        self.known().acked(generation, digest, newest);
    }

    /// Notes that the edge refused this generation.
    pub fn nacked(&self, generation: u64, problems: Vec<Problem>) {
        self.known().nacked(generation, problems, SystemTime::now());
    }

    /// Notes a status that the edge sent.
    pub fn status(&self, status: Status) {
        self.known().status(status);
    }

    /// Updates the counts of what was sent.
    pub fn sent(&self, count: impl FnOnce(&mut Sent)) {
        count(&mut self.known().sent);
    }

    /// Sets why the connection ended, in words for an operator.
    pub fn ended(&mut self, why: String) {
        self.why = why;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.slot.known)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.edges.leave(self);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
