//! The chunks of one table, made once for all who take part.
//!
//! A thread makes them when someone asks for one, and one ahead; the last few are
//! kept. Whoever is slower than that finds a chunk gone, and takes part in another
//! cast that begins there.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use prometheus::IntCounter;
use tokio::sync::Notify;

use crate::control::store::Generation;
use crate::protocol::limits::CHUNK_HEADER_BYTES;
use crate::protocol::{ChunkHeader, Mark, SnapshotSender, Unsendable};

/// How many chunks are kept: at most 2 MiB of each cast.
const KEPT: usize = 8;

/// A chunk without its header, which names a snapshot of one connection.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub entries: u32,
    /// Compressed.
    pub payload: Bytes,
}

/// What there is at an index.
#[derive(Clone, Debug)]
pub(super) enum Look {
    Chunk(Chunk),
    /// Nothing: the one before was the last.
    Over,
    /// It is gone.
    Past,
    /// It cannot be made.
    Failed(String),
}

pub(super) struct Cast {
    of: Mark,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// For the thread: someone asks for more, or nobody does any more.
    asked: Condvar,
    /// For all others: there is more.
    made: Notify,
}

struct State {
    /// Where the kept chunks begin.
    first: u32,
    kept: VecDeque<Chunk>,
    /// Chunks up to this index are wanted.
    wanted: u32,
    ended: Option<Result<(), String>>,
    abandoned: bool,
    /// Whether it began with the first chunk.
    from_start: bool,
}

impl State {
    /// The index of what is made next.
    fn next(&self) -> u32 {
        self.first + self.kept.len() as u32
    }

    fn look(&self, index: u32) -> Option<Look> {
        let Some(offset) = index.checked_sub(self.first) else {
            return Some(Look::Past);
        };
        if let Some(chunk) = self.kept.get(offset as usize) {
            return Some(Look::Chunk(chunk.clone()));
        }
        match &self.ended {
            Some(Ok(())) => Some(Look::Over),
            Some(Err(why)) => Some(Look::Failed(why.clone())),
            None => None,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cast {
    /// Begins at chunk `index`.
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
            asked: Condvar::new(),
            made: Notify::new(),
        });
        let of = generation.record.mark();
        let maker = Maker {
            shared: Arc::clone(&shared),
        };
        tokio::task::spawn_blocking(move || maker.run(&generation, index, &counted));
        Arc::new(Self { of, shared })
    }

    pub fn of(&self) -> Mark {
        self.of
    }

    /// Whether chunk `index` is here, or would be the next, and there is no
    /// mistake.
    pub fn has(&self, index: u32) -> bool {
        let state = self.shared.lock();
        let failed = matches!(state.ended, Some(Err(_)));
        !failed && (state.first..=state.next()).contains(&index)
    }

    /// Whether all chunks of the table are here.
    pub fn is_whole(&self) -> bool {
        let state = self.shared.lock();
        state.from_start && state.first == 0 && state.ended == Some(Ok(()))
    }

    /// What there is at `index`, once it is made.
    pub async fn chunk(&self, index: u32) -> Look {
        loop {
            let made = self.shared.made.notified();
            tokio::pin!(made);
            // From here on it is told, also of what happens before it waits.
            made.as_mut().enable();
            {
                let mut state = self.shared.lock();
                let look = state.look(index);
                // One ahead, while this one is on its way.
                let wanted = index.saturating_add(2);
                if state.wanted < wanted {
                    state.wanted = wanted;
                    self.shared.asked.notify_one();
                }
                if let Some(look) = look {
                    return look;
                }
            }
            made.await;
        }
    }
}

impl Drop for Cast {
    fn drop(&mut self) {
        self.shared.lock().abandoned = true;
        self.shared.asked.notify_one();
    }
}

/// The thread's side. When it is gone, nobody waits for it.
struct Maker {
    shared: Arc<Shared>,
}

impl Drop for Maker {
    fn drop(&mut self) {
        let gone = || Err("the thread that makes chunks is gone".to_owned());
        self.shared.lock().ended.get_or_insert_with(gone);
        self.shared.made.notify_waiters();
    }
}

impl Maker {
    fn run(&self, generation: &Generation, from: u32, counted: &IntCounter) {
        let ended = match self.make(generation, from, counted) {
            Ok(true) => Ok(()),
            Ok(false) => return,
            Err(error) => Err(error.to_string()),
        };
        self.shared.lock().ended = Some(ended);
        self.shared.made.notify_waiters();
    }

    /// Makes all chunks; false: nobody wants them any more.
    fn make(
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
            sender.leave_out()?;
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

    /// Waits until the next chunk is wanted; false: nothing is any more.
    fn wanted(&self) -> bool {
        let mut state = self.shared.lock();
        while state.wanted <= state.next() && !state.abandoned {
            let waited = self.shared.asked.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        !state.abandoned
    }
}
