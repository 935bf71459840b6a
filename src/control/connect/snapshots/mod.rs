//! Whole tables, for edges that lack too much for anything less.
//!
//! So many edges are sent one at a time; all others wait in line. Who has had a
//! turn for some seconds goes to the end of the line if there is one, and goes on
//! later where it was, so that edges on slow lines hold nobody up. Chunks are made
//! once for all edges that are at about the same place of the same table
//! ([`cast`]), when the first of them asks, on threads of their own.

mod cast;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use self::cast::{Cast, Chunk, Look};
use super::metrics::ConnectMetrics;
use crate::control::core::Truth;
use crate::control::store::Generation;
use crate::protocol::limits::CHUNK_HEADER_BYTES;
use crate::protocol::{ChunkHeader, SnapshotBegin, SnapshotEnd};

/// The line, and what is being made.
pub(super) struct Snapshots {
    truth: Arc<Truth>,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// How long a turn lasts while others wait.
    turn: Duration,
    casts: Mutex<Casts>,
    metrics: ConnectMetrics,
}

#[derive(Default)]
struct Casts {
    /// Those that someone takes part in.
    running: Vec<Weak<Cast>>,
    /// One that has all of a small table, for whoever comes next.
    whole: Option<Arc<Cast>>,
}

impl Snapshots {
    pub fn new(
        truth: Arc<Truth>,
        most: usize,
        turn: Duration,
        metrics: ConnectMetrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            truth,
            turns: Arc::new(Semaphore::new(most.max(1))),
            waiting: AtomicUsize::new(0),
            turn,
            casts: Mutex::default(),
            metrics,
        })
    }

    /// A snapshot of what is the newest generation when its turn comes. `id` is
    /// another for every snapshot of a connection.
    pub fn send(self: &Arc<Self>, id: u64) -> Sending {
        Sending {
            snapshots: Arc::clone(self),
            id,
            generation: None,
            index: 0,
            stage: Stage::Begin,
            turn: Turn::Waiting(Waiting::new(self)),
        }
    }

    /// A cast of `generation` that has chunk `index`, or has it next.
    fn cast(&self, generation: &Arc<Generation>, index: u32) -> Arc<Cast> {
        let mark = generation.record.mark();
        let mut casts = self.casts.lock().unwrap_or_else(PoisonError::into_inner);
        casts.running.retain(|cast| cast.strong_count() > 0);
        casts.whole.take_if(|cast| cast.of() != mark);
        let running = casts.running.iter().filter_map(Weak::upgrade);
        let fits = |cast: &Arc<Cast>| cast.of() == mark && cast.has(index);
        let found = casts.whole.iter().cloned().chain(running).find(fits);
        found.unwrap_or_else(|| {
            let counted = self.metrics.chunks_encoded.clone();
            let cast = Cast::start(Arc::clone(generation), index, counted);
            casts.running.push(Arc::downgrade(&cast));
            cast
        })
    }

    fn keep(&self, cast: &Arc<Cast>) {
        let newest = self.truth.newest().map(|newest| newest.record.mark());
        if cast.is_whole() && newest == Some(cast.of()) {
            let mut casts = self.casts.lock().unwrap_or_else(PoisonError::into_inner);
            casts.whole = Some(Arc::clone(cast));
        }
    }
}

/// The next part of a snapshot.
#[derive(Debug)]
pub(super) enum Piece {
    Begin(SnapshotBegin),
    Chunk([u8; CHUNK_HEADER_BYTES], Bytes),
    /// The last one.
    End(SnapshotEnd),
}

/// Why there is no next part, in words for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed(pub String);

/// A snapshot for one edge.
pub(super) struct Sending {
    snapshots: Arc<Snapshots>,
    id: u64,
    /// What is sent; none before the first turn.
    generation: Option<Arc<Generation>>,
    /// Of the next chunk.
    index: u32,
    stage: Stage,
    turn: Turn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begin,
    Chunks,
    Over,
}

enum Turn {
    Waiting(Waiting),
    Has(Has),
}

/// A place in the line.
struct Waiting {
    permit: Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>,
    snapshots: Arc<Snapshots>,
}

impl Waiting {
    fn new(snapshots: &Arc<Snapshots>) -> Self {
        snapshots.waiting.fetch_add(1, Ordering::Relaxed);
        snapshots.metrics.snapshots_waiting.inc();
        let turns = Arc::clone(&snapshots.turns);
        Self {
            permit: Box::pin(async move { turns.acquire_owned().await.ok() }),
            snapshots: Arc::clone(snapshots),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.snapshots.waiting.fetch_sub(1, Ordering::Relaxed);
        self.snapshots.metrics.snapshots_waiting.dec();
    }
}

/// The right to be sent chunks.
struct Has {
    since: Instant,
    /// What they are taken from, once there is need of it.
    cast: Option<Arc<Cast>>,
    metrics: ConnectMetrics,
    _permit: OwnedSemaphorePermit,
}

impl Has {
    fn new(permit: OwnedSemaphorePermit, metrics: ConnectMetrics) -> Self {
        metrics.snapshots_sending.inc();
        Self {
            since: Instant::now(),
            cast: None,
            metrics,
            _permit: permit,
        }
    }
}

impl Drop for Has {
    fn drop(&mut self) {
        self.metrics.snapshots_sending.dec();
    }
}

impl Sending {
    /// What is sent; none before the first turn.
    pub fn generation(&self) -> Option<&Arc<Generation>> {
        self.generation.as_ref()
    }

    /// What it says of itself so far.
    pub fn end(&self) -> SnapshotEnd {
        SnapshotEnd {
            id: self.id,
            chunks: self.index,
        }
    }

    /// The next part, when it is this one's turn and the part is made. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    /// A chunk cannot be made.
    pub async fn next(&mut self) -> Result<Piece, Failed> {
        self.give_way(Instant::now());
        let has = match &mut self.turn {
            Turn::Has(has) => has,
            Turn::Waiting(waiting) => {
                let permit = waiting.permit.as_mut().await;
                let permit = permit.ok_or_else(|| Failed("shutting down".to_owned()))?;
                self.turn = Turn::Has(Has::new(permit, self.snapshots.metrics.clone()));
                match &mut self.turn {
                    Turn::Has(has) => has,
                    Turn::Waiting(_) => return Err(Failed("no turn".to_owned())),
                }
            }
        };
        let generation = match &self.generation {
            Some(generation) => generation,
            None => {
                let newest = self.snapshots.truth.newest();
                let newest = newest.ok_or_else(|| Failed("no generation".to_owned()))?;
                self.generation.insert(newest)
            }
        };
        match self.stage {
            Stage::Begin => {
                self.stage = Stage::Chunks;
                Ok(Piece::Begin(SnapshotBegin::new(
                    &generation.table,
                    self.id,
                    generation.record.generation,
                )))
            }
            Stage::Over => Err(Failed("it is over".to_owned())),
            Stage::Chunks => match chunk(&self.snapshots, generation, has, self.index).await? {
                Some(chunk) => {
                    let header = ChunkHeader {
                        id: self.id,
                        index: self.index,
                        entries: chunk.entries,
                    };
                    self.index += 1;
                    Ok(Piece::Chunk(header.bytes(), chunk.payload))
                }
                None => {
                    if let Some(cast) = &has.cast {
                        self.snapshots.keep(cast);
                    }
                    self.stage = Stage::Over;
                    Ok(Piece::End(self.end()))
                }
            },
        }
    }

    /// When its turn is over; none: it waits for one.
    pub fn turn_ends(&self) -> Option<Instant> {
        match &self.turn {
            Turn::Has(has) => Some(has.since + self.snapshots.turn),
            Turn::Waiting(_) => None,
        }
    }

    /// Lets others have a turn, if this one's is over and they want it. Not only
    /// between two chunks: one may be on its way for long.
    pub fn give_way(&mut self, now: Instant) {
        let Turn::Has(has) = &mut self.turn else {
            return;
        };
        if now.duration_since(has.since) < self.snapshots.turn {
            return;
        }
        match self.snapshots.waiting.load(Ordering::Relaxed) {
            0 => has.since = now,
            1.. => self.turn = Turn::Waiting(Waiting::new(&self.snapshots)),
        }
    }
}

/// Chunk `index`; none after the last.
async fn chunk(
    snapshots: &Snapshots,
    generation: &Arc<Generation>,
    has: &mut Has,
    index: u32,
) -> Result<Option<Chunk>, Failed> {
    loop {
        let cast = has
            .cast
            .get_or_insert_with(|| snapshots.cast(generation, index));
        match cast.chunk(index).await {
            Look::Chunk(chunk) => return Ok(Some(chunk)),
            Look::Over => return Ok(None),
            // The others went on without this one.
            Look::Past => has.cast = None,
            Look::Failed(why) => return Err(Failed(why)),
        }
    }
}
