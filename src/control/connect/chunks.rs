//! The encoded chunks of one table, shared by all edges that are sent it.
//!
//! A thread encodes chunks on demand, and one ahead; the last few are kept. An edge that falls
//! further behind finds its chunk discarded and starts a new [`SharedChunks`] at that position.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use prometheus::IntCounter;
use tokio::sync::Notify;

use crate::control::store::Generation;
use crate::protocol::limits::CHUNK_HEADER_BYTES;
use crate::protocol::{ChunkHeader, Mark, SnapshotSender, Unsendable};

/// How many chunks are kept: at most 2 MiB.
const KEPT: usize = 8;

/// A chunk without its header, which is different for each connection.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub entries: u32,
    /// Compressed.
    pub payload: Bytes,
}

/// The result of looking up a chunk.
#[derive(Clone, Debug)]
pub(super) enum Lookup {
    Chunk(Chunk),
    /// The previous chunk was the last one.
    End,
    /// The chunk is no longer kept.
    Discarded,
    /// The chunk cannot be encoded.
    Failed(String),
}

/// A source of chunks, starting at some index.
pub(super) struct SharedChunks {
    of: Mark,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Wakes the thread: more chunks are wanted, or none.
    wanted: Condvar,
    /// Wakes the edges: there is another chunk.
    made: Notify,
}

struct State {
    /// The index of the first kept chunk.
    first: u32,
    kept: VecDeque<Chunk>,
    /// Chunks below this index are wanted.
    wanted: u32,
    ended: Option<Result<(), String>>,
    abandoned: bool,
    /// Whether it started with the first chunk of the table.
    from_start: bool,
}

impl State {
    /// The index of the next chunk to encode.
    fn next(&self) -> u32 {
        self.first + self.kept.len() as u32
    }

    fn look(&self, index: u32) -> Option<Lookup> {
        let Some(offset) = index.checked_sub(self.first) else {
            return Some(Lookup::Discarded);
        };
        if let Some(chunk) = self.kept.get(offset as usize) {
            return Some(Lookup::Chunk(chunk.clone()));
        }
        match &self.ended {
            Some(Ok(())) => Some(Lookup::End),
            Some(Err(why)) => Some(Lookup::Failed(why.clone())),
            None => None,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedChunks {
    /// Starts at chunk `index`.
    pub fn start(generation: Arc<Generation>, index: u32, counted: IntCounter) -> Arc<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                first: index,
                kept: VecDeque::with_capacity(KEPT),
                wanted: index,
                ended: None,
                abandoned: false,
                from_start: index == 0,
            }),
            wanted: Condvar::new(),
            made: Notify::new(),
        });
        let of = generation.record.mark();
        let encoder = Encoder {
            shared: Arc::clone(&shared),
        };
        tokio::task::spawn_blocking(move || encoder.run(&generation, index, &counted));
        Arc::new(Self { of, shared })
    }

    pub fn of(&self) -> Mark {
        self.of
    }

    /// Whether chunk `index` is kept or the next to be encoded, and encoding has not failed.
    pub fn has(&self, index: u32) -> bool {
        let state = self.shared.lock();
        let failed = matches!(state.ended, Some(Err(_)));
        !failed && (state.first..=state.next()).contains(&index)
    }

    /// Whether all chunks of the table are kept.
    pub fn is_whole(&self) -> bool {
        let state = self.shared.lock();
        state.from_start && state.first == 0 && state.ended == Some(Ok(()))
    }

    /// Chunk `index`, once it is encoded.
    pub async fn get(&self, index: u32) -> Lookup {
        loop {
            let made = self.shared.made.notified();
            tokio::pin!(made);
            // Registers the waiter before the state is read, so that no wakeup is lost.
            made.as_mut().enable();
            {
                let mut state = self.shared.lock();
                let look = state.look(index);
                // One ahead, while this one is being sent.
                let wanted = index.saturating_add(2);
                if state.wanted < wanted {
                    state.wanted = wanted;
                    self.shared.wanted.notify_one();
                }
                if let Some(look) = look {
                    return look;
                }
            }
            made.await;
        }
    }
}

impl Drop for SharedChunks {
    fn drop(&mut self) {
        self.shared.lock().abandoned = true;
        self.shared.wanted.notify_one();
    }
}

/// The encoding thread. When it ends for any reason, waiters are woken.
struct Encoder {
    shared: Arc<Shared>,
}

impl Drop for Encoder {
    fn drop(&mut self) {
        let gone = || Err("the thread that encodes chunks has ended".to_owned());
        self.shared.lock().ended.get_or_insert_with(gone);
        self.shared.made.notify_waiters();
    }
}

impl Encoder {
    fn run(&self, generation: &Generation, from: u32, counted: &IntCounter) {
        let ended = match self.encode(generation, from, counted) {
            Ok(true) => Ok(()),
            Ok(false) => return,
            Err(error) => Err(error.to_string()),
        };
        self.shared.lock().ended = Some(ended);
        self.shared.made.notify_waiters();
    }

    /// Encodes all chunks. False: nobody wants them any more.
    fn encode(
        &self,
        generation: &Generation,
        from: u32,
        counted: &IntCounter,
    ) -> Result<bool, Unsendable> {
        let number = generation.record.generation;
        let mut sender = SnapshotSender::new(&generation.table, 0, number)?;
        for _ in 0..from {
            if self.shared.lock().abandoned {
                return Ok(false);
            }
            sender.skip_chunk()?;
        }
        while self.wanted() {
            let Some(frame) = sender.next().transpose()? else {
                return Ok(true);
            };
            counted.inc();
            let entries = ChunkHeader::split(&frame).map_or(0, |(header, _)| header.entries);
            let chunk = Chunk {
                entries,
                payload: Bytes::from(frame).slice(CHUNK_HEADER_BYTES..),
            };
            let mut state = self.shared.lock();
            if state.kept.len() == KEPT {
                state.kept.pop_front();
                state.first += 1;
            }
            state.kept.push_back(chunk);
            drop(state);
            self.shared.made.notify_waiters();
        }
        Ok(false)
    }

    /// Waits until the next chunk is wanted. False: no more are.
    fn wanted(&self) -> bool {
        let mut state = self.shared.lock();
        while state.wanted <= state.next() && !state.abandoned {
            let waited = self.shared.wanted.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        !state.abandoned
    }
}
