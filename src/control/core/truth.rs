//! The newest generation, and what led to it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, watch};

use super::ahead::Ahead;
use super::ring::{MOST_BYTES, Ring};
use super::tally::Tally;
use crate::control::store::{Generation, Step, Store, StoreError};
use crate::protocol::Mark;

/// How many steps are taken from the store at the start. Edges that missed more take
/// a snapshot.
const RECENT: usize = 2_000;

/// The newest generation.
pub struct Truth {
    pub(super) store: Arc<dyn Store>,
    pub(super) newest: watch::Sender<Option<Arc<Generation>>>,
    /// Held by whoever replaces the newest generation.
    pub(super) writer: AsyncMutex<()>,
    /// Changed together with `newest`.
    pub(super) ring: Mutex<Ring>,
    /// What edges have that is not here.
    pub(super) ahead: Ahead,
    pub(super) tally: Tally,
}

/// What an edge lacks.
#[derive(Clone, Debug)]
pub enum Since {
    /// Nothing.
    Same,
    /// These steps, oldest first; never empty.
    Steps(Vec<Step>),
    /// Everything.
    Whole(Arc<Generation>),
    /// The edge has a higher generation than there is: another control plane made it,
    /// or data was lost here. See [`Truth::heard_of`].
    Ahead,
    /// There is nothing yet.
    Nothing,
}

impl Truth {
    /// With what `store` has.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn open(store: Arc<dyn Store>) -> Result<Arc<Self>, StoreError> {
        let newest = store.newest().await?.map(Arc::new);
        let mut ring = Ring::default();
        match store.recent(RECENT, MOST_BYTES).await {
            // They may lead further by now.
            Ok(steps) => {
                let newest = newest.as_ref().map(|newest| newest.record.mark());
                let last = steps.iter().rposition(|step| Some(step.to) == newest);
                for step in steps.into_iter().take(last.map_or(0, |last| last + 1)) {
                    drop(ring.push(step));
                }
            }
            Err(error) => log::warn!(
                target: "cellgate::control",
                "edges that missed a change take everything: the last steps cannot be read: {error}"
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

    /// What became of the changes that were asked for here.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The newest generation; none before the first.
    pub fn newest(&self) -> Option<Arc<Generation>> {
        self.newest.borrow().clone()
    }

    /// Changes when the newest generation does.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Generation>>> {
        self.newest.subscribe()
    }

    /// What someone lacks who has `held`.
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
