//! Snapshots: whole tables, for edges that cannot be brought up to date with deltas.
//!
//! A limited number of edges is sent a snapshot at a time; the others queue. While others queue, an
//! edge is paused after some seconds and goes to the end of the queue, so that edges on slow links
//! do not block it. Edges at about the same position of the same table share encoded chunks
//! ([`SharedChunks`]).

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::chunks::{Chunk, Lookup, SharedChunks};
use super::metrics::ConnectMetrics;
use crate::control::core::Truth;
use crate::control::store::Generation;
use crate::protocol::limits::CHUNK_HEADER_BYTES;
use crate::protocol::{ChunkHeader, SnapshotBegin, SnapshotEnd};

/// The queue, and the chunks that are being encoded.
pub(super) struct Snapshots {
    truth: Arc<Truth>,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// After how long an edge is paused while others queue.
    turn: Duration,
    chunks: Mutex<ChunkSources>,
    metrics: ConnectMetrics,
}

#[derive(Default)]
struct ChunkSources {
    /// Those in use.
    running: Vec<Weak<SharedChunks>>,
    /// All chunks of a small table, kept for later edges.
    whole: Option<Arc<SharedChunks>>,
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
            permits: Arc::new(Semaphore::new(most.max(1))),
            waiting: AtomicUsize::new(0),
            turn,
            chunks: Mutex::default(),
            metrics,
        })
    }

    /// Queues a snapshot of the generation that is the newest when sending starts. `id` must be
    /// unique among the snapshots of a connection.
    pub fn send(self: &Arc<Self>, id: u64) -> Transfer {
        Transfer {
            snapshots: Arc::clone(self),
            id,
            generation: None,
            index: 0,
            stage: Stage::Begin,
            state: State::Queued(Queued::new(self)),
        }
    }

    /// Chunks of `generation` that include chunk `index`, or will next.
    fn chunks_from(&self, generation: &Arc<Generation>, index: u32) -> Arc<SharedChunks> {
        let mark = generation.record.mark();
        let mut sources = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        sources.running.retain(|chunks| chunks.strong_count() > 0);
        sources.whole.take_if(|chunks| chunks.of() != mark);
        let running = sources.running.iter().filter_map(Weak::upgrade);
        let fits = |chunks: &Arc<SharedChunks>| chunks.of() == mark && chunks.has(index);
        let found = sources.whole.iter().cloned().chain(running).find(fits);
        found.unwrap_or_else(|| {
            let counted = self.metrics.chunks_encoded.clone();
            let chunks = SharedChunks::start(Arc::clone(generation), index, counted);
            sources.running.push(Arc::downgrade(&chunks));
            chunks
        })
    }

    /// Keeps `chunks` for later edges if they are all of the newest generation.
    fn keep(&self, chunks: &Arc<SharedChunks>) {
        let newest = self.truth.newest().map(|newest| newest.record.mark());
        if chunks.is_whole() && newest == Some(chunks.of()) {
            let mut sources = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
            sources.whole = Some(Arc::clone(chunks));
        }
    }
}

/// A part of a snapshot.
#[derive(Debug)]
pub(super) enum Part {
    Begin(SnapshotBegin),
    Chunk([u8; CHUNK_HEADER_BYTES], Bytes),
    /// The last one.
    End(SnapshotEnd),
}

/// Why a snapshot failed, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed(pub String);

/// The sending of a snapshot to one edge.
pub(super) struct Transfer {
    snapshots: Arc<Snapshots>,
    id: u64,
    /// The generation that is sent; none before sending starts.
    generation: Option<Arc<Generation>>,
    /// The index of the next chunk.
    index: u32,
    stage: Stage,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begin,
    Chunks,
    Over,
}

enum State {
    Queued(Queued),
    Sending(Sending),
}

/// A place in the queue.
struct Queued {
    permit: Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>,
    snapshots: Arc<Snapshots>,
}

impl Queued {
    fn new(snapshots: &Arc<Snapshots>) -> Self {
        snapshots.waiting.fetch_add(1, Ordering::Relaxed);
        snapshots.metrics.snapshots_waiting.inc();
        let permits = Arc::clone(&snapshots.permits);
        Self {
            permit: Box::pin(async move { permits.acquire_owned().await.ok() }),
            snapshots: Arc::clone(snapshots),
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.snapshots.waiting.fetch_sub(1, Ordering::Relaxed);
        self.snapshots.metrics.snapshots_waiting.dec();
    }
}

/// The permit to send, and the source of chunks.
struct Sending {
    since: Instant,
    /// None until the next chunk is needed.
    chunks: Option<Arc<SharedChunks>>,
    metrics: ConnectMetrics,
    _permit: OwnedSemaphorePermit,
}

impl Sending {
    fn new(permit: OwnedSemaphorePermit, metrics: ConnectMetrics) -> Self {
        metrics.snapshots_sending.inc();
        Self {
            since: Instant::now(),
            chunks: None,
            metrics,
            _permit: permit,
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.metrics.snapshots_sending.dec();
    }
}

impl Transfer {
    /// The generation that is sent; none before sending starts.
    pub fn generation(&self) -> Option<&Arc<Generation>> {
        self.generation.as_ref()
    }

    /// The end message, with the number of chunks sent so far.
    pub fn end(&self) -> SnapshotEnd {
        SnapshotEnd {
            id: self.id,
            chunks: self.index,
        }
    }

    /// The next part, once a permit is free and the part is encoded. Cancel-safe.
    ///
    /// # Errors
    /// A chunk cannot be encoded.
    pub async fn next(&mut self) -> Result<Part, Failed> {
        self.pause_if_due(Instant::now());
        let sending = match &mut self.state {
            State::Sending(sending) => sending,
            State::Queued(queued) => {
                let permit = queued.permit.as_mut().await;
                let permit = permit.ok_or_else(|| Failed("shutting down".to_owned()))?;
                let metrics = self.snapshots.metrics.clone();
                self.state = State::Sending(Sending::new(permit, metrics));
                match &mut self.state {
                    State::Sending(sending) => sending,
                    State::Queued(_) => return Err(Failed("no permit".to_owned())),
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
                Ok(Part::Begin(SnapshotBegin::new(
                    &generation.table,
                    self.id,
                    generation.record.generation,
                )))
            }
            Stage::Over => Err(Failed("the snapshot has been sent".to_owned())),
            Stage::Chunks => match chunk(&self.snapshots, generation, sending, self.index).await? {
                Some(chunk) => {
                    let header = ChunkHeader {
                        id: self.id,
                        index: self.index,
                        entries: chunk.entries,
                    };
                    self.index += 1;
                    Ok(Part::Chunk(header.bytes(), chunk.payload))
                }
                None => {
                    if let Some(chunks) = &sending.chunks {
                        self.snapshots.keep(chunks);
                    }
                    self.stage = Stage::Over;
                    Ok(Part::End(self.end()))
                }
            },
        }
    }

    /// When it may be paused. None: it is queued.
    pub fn pause_due(&self) -> Option<Instant> {
        match &self.state {
            State::Sending(sending) => Some(sending.since + self.snapshots.turn),
            State::Queued(_) => None,
        }
    }

    /// Goes to the end of the queue if it is time and others wait. Also called while a chunk is
    /// being written, which may take long.
    pub fn pause_if_due(&mut self, now: Instant) {
        let State::Sending(sending) = &mut self.state else {
            return;
        };
        if now.duration_since(sending.since) < self.snapshots.turn {
            return;
        }
        match self.snapshots.waiting.load(Ordering::Relaxed) {
            0 => sending.since = now,
            1.. => self.state = State::Queued(Queued::new(&self.snapshots)),
        }
    }
}

/// Chunk `index`. None: there are no more.
async fn chunk(
    snapshots: &Snapshots,
    generation: &Arc<Generation>,
    sending: &mut Sending,
    index: u32,
) -> Result<Option<Chunk>, Failed> {
    loop {
        let chunks = sending
            .chunks
            .get_or_insert_with(|| snapshots.chunks_from(generation, index));
        match chunks.get(index).await {
            Lookup::Chunk(chunk) => return Ok(Some(chunk)),
            Lookup::End => return Ok(None),
            // The chunk has been discarded: this edge is slower than the others.
            Lookup::Discarded => sending.chunks = None,
            Lookup::Failed(why) => return Err(Failed(why)),
        }
    }
}
