//! The newest generation, and the last steps that led to it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, watch};

use super::ahead::Ahead;
use super::commit::Tally;
use crate::control::store::{Generation, Step, Store, StoreError, memory_bytes};
use crate::protocol::Mark;

/// How many steps are read from the store at start. Edges that missed more get a
/// snapshot.
const RECENT: usize = 2_000;

/// The history of generations, as a running control plane serves it.
pub struct Truth {
    pub(super) store: Arc<dyn Store>,
    pub(super) newest: watch::Sender<Option<Arc<Generation>>>,
    /// Held while the newest generation is replaced.
    pub(super) writer: AsyncMutex<()>,
    /// Changed together with `newest`.
    pub(super) ring: Mutex<Ring>,
    /// Edges that have a later generation.
    pub(super) ahead: Ahead,
    pub(super) tally: Tally,
}

/// What to send to an edge.
#[derive(Clone, Debug)]
pub enum Since {
    /// Nothing: it has the newest generation.
    Same,
    /// These steps, the oldest first; never empty.
    Steps(Vec<Step>),
    /// The whole table.
    Whole(Arc<Generation>),
    /// The edge has a later generation than the newest one here: another control plane
    /// made it, or the store lost it. See [`Truth::heard_of`].
    Ahead,
    /// There is no generation yet.
    Nothing,
}

impl Truth {
    /// Reads the newest generation of `store`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn open(store: Arc<dyn Store>) -> Result<Arc<Self>, StoreError> {
        let newest = store.newest().await?.map(Arc::new);
        let mut ring = Ring::default();
        match store.recent(RECENT, MOST_BYTES).await {
            // Another control plane may have added to the store meanwhile.
            Ok(steps) => {
                let newest = newest.as_ref().map(|newest| newest.record.mark());
                let last = steps.iter().rposition(|step| Some(step.to) == newest);
                for step in steps.into_iter().take(last.map_or(0, |last| last + 1)) {
                    drop(ring.push(step));
                }
            }
            Err(error) => log::warn!(
                target: "cellgate::control",
                "the last deltas cannot be read, so that edges which missed a change get the whole \
                 table: {error}"
            ),
        }
        Ok(Arc::new(Self {
            store,
            newest: watch::Sender::new(newest),
            writer: AsyncMutex::default(),
            ring: Mutex::new(ring),
            ahead: Ahead::default(),
            tally: Tally::default(),
        }))
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Counts of the outcomes of edits.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The newest generation; none before the first.
    pub fn newest(&self) -> Option<Arc<Generation>> {
        self.newest.borrow().clone()
    }

    /// Notified of every new generation.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Generation>>> {
        self.newest.subscribe()
    }

    /// What an edge lacks that has `held`.
    pub fn since(&self, held: Option<Mark>) -> Since {
        let ring = lock(&self.ring);
        let Some(newest) = self.newest() else {
            return Since::Nothing;
        };
        let Some(held) = held else {
            return Since::Whole(newest);
        };
        if held == newest.record.mark() {
            return Since::Same;
        }
        if held.generation > newest.record.generation {
            return Since::Ahead;
        }
        match ring.since(held) {
            Some(steps) => Since::Steps(steps),
            None => Since::Whole(newest),
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many steps are kept at most. An edge that missed more gets a snapshot.
const MOST_STEPS: usize = 10_000;

/// How many bytes of memory the kept steps take at most, estimated.
const MOST_BYTES: usize = 96 << 20;

/// Consecutive steps.
#[derive(Default)]
pub(super) struct Ring {
    steps: VecDeque<Step>,
    bytes: usize,
}

/// Steps that were dropped, to be freed outside of locks.
#[must_use]
#[derive(Default)]
pub(super) struct Forgotten(#[expect(dead_code, reason = "only dropped")] VecDeque<Step>);

impl Ring {
    /// Adds the latest step. If it does not begin where the last one ended, all others
    /// are dropped.
    pub fn push(&mut self, step: Step) -> Forgotten {
        let mut forgotten = VecDeque::new();
        if self.steps.back().is_some_and(|last| last.to != step.from) {
            forgotten = self.take();
        }
        self.bytes += memory_bytes(&step.delta);
        self.steps.push_back(step);
        while self.steps.len() > MOST_STEPS || self.bytes > MOST_BYTES {
            let Some(oldest) = self.steps.pop_front() else {
                break;
            };
            self.bytes -= memory_bytes(&oldest.delta);
            forgotten.push_back(oldest);
        }
        Forgotten(forgotten)
    }

    /// Drops all steps.
    pub fn clear(&mut self) -> Forgotten {
        Forgotten(self.take())
    }

    fn take(&mut self) -> VecDeque<Step> {
        self.bytes = 0;
        std::mem::take(&mut self.steps)
    }

    /// The steps that lead from `from` to the newest generation; none if they are not
    /// kept.
    pub fn since(&self, from: Mark) -> Option<Vec<Step>> {
        let at = self
            .steps
            .binary_search_by_key(&from.generation, |step| step.from.generation)
            .ok()?;
        let steps: Vec<Step> = self.steps.range(at..).cloned().collect();
        steps.first().filter(|first| first.from == from)?;
        Some(steps)
    }
}
