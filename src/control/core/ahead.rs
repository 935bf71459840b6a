//! Edges that have more than there is here.
//!
//! Either another control plane made it, and it is in the store; or the store lost
//! it, for instance because it was restored from a backup. Then edges take nothing
//! that is below what they have: the newest content gets a number above that.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;

use super::Truth;
use super::edit::Outcome;
use super::truth::lock;
use crate::control::store::{AppendError, Author, StoreError};
use crate::protocol::limits::NUMBER_MAX;
use crate::table::Delta;

/// How far above the newest generation an edge may be. Nobody gets that far ahead, and
/// whoever says so would leave no room to go on.
const MOST_AHEAD: u64 = 1 << 32;

/// Until the next try when the store cannot be used, and at most.
const PAUSE: Duration = Duration::from_secs(1);
const MOST_PAUSE: Duration = Duration::from_secs(30);

/// What edges have that is not here.
#[derive(Default)]
pub(super) struct Ahead {
    highest: Mutex<Heard>,
    /// Somebody who cannot be right has been spoken of.
    disbelieved: AtomicBool,
}

#[derive(Default)]
struct Heard {
    /// The highest generation that any edge is known to have had; 0 if it is not above
    /// what there was here.
    generation: u64,
    /// Something is being done about it.
    overtaking: bool,
}

impl Ahead {
    pub fn highest(&self) -> u64 {
        lock(&self.highest).generation
    }
}

impl Truth {
    /// The edge of this name has `generation`. If that is more than there is here, and
    /// in the store, the newest content becomes a generation above it, so that the
    /// edge takes it. More than 2^32 above the newest is not believed.
    pub fn heard_of(self: &Arc<Self>, edge_id: &str, generation: u64) {
        let newest = self.newest().map_or(0, |newest| newest.record.generation);
        if generation <= newest {
            return;
        }
        if generation > newest.saturating_add(MOST_AHEAD) || generation >= NUMBER_MAX {
            if !self.ahead.disbelieved.swap(true, Relaxed) {
                log::error!(
                    target: "cellgate::control",
                    edge_id, generation;
                    "an edge has a generation that no control plane can have got to, where \
                     {newest} is the newest: it keeps what it has"
                );
            }
            return;
        }
        let mut heard = lock(&self.ahead.highest);
        heard.generation = heard.generation.max(generation);
        if std::mem::replace(&mut heard.overtaking, true) {
            return;
        }
        drop(heard);
        let (truth, edge_id) = (Arc::clone(self), edge_id.to_owned());
        tokio::spawn(async move { truth.overtake_all(&edge_id, generation).await });
    }

    async fn overtake_all(&self, edge_id: &str, generation: u64) {
        let (mut pause, mut told) = (PAUSE, false);
        loop {
            match self.overtake(edge_id, generation, &mut told).await {
                Ok(()) => {
                    // More may have been heard of meanwhile.
                    let mut heard = lock(&self.ahead.highest);
                    let newest = self.newest().map(|newest| newest.record.generation);
                    // Where there is nothing yet, the first one is above it.
                    if newest.is_none_or(|newest| newest >= heard.generation) {
                        heard.overtaking = false;
                        return;
                    }
                }
                Err(error) => {
                    log::warn!(
                        target: "cellgate::control",
                        "edges are ahead, and stay so for now: {error}"
                    );
                    sleep(pause).await;
                    pause = (2 * pause).min(MOST_PAUSE);
                }
            }
        }
    }

    /// Makes the newest content a generation above all that was heard of, if it is not
    /// already.
    async fn overtake(
        &self,
        edge_id: &str,
        generation: u64,
        told: &mut bool,
    ) -> Result<(), StoreError> {
        let _writer = self.writer.lock().await;
        // It may be another control plane's, and in the store.
        self.catch_up().await?;
        loop {
            let newest = self.newest();
            let mark = newest.as_ref().map(|newest| newest.record.mark());
            let number = mark.map_or(0, |mark| mark.generation);
            if number >= self.ahead.highest() {
                return Ok(());
            }
            if !std::mem::replace(told, true) {
                log::error!(
                    target: "cellgate::control",
                    edge_id, generation;
                    "an edge has a later generation than the newest, which is {number}: what \
                     was changed since is lost here, and the newest content becomes a generation \
                     above it, for edges to take"
                );
            }
            let Some(newest) = newest else {
                return Ok(());
            };
            let outcome = Outcome {
                table: Arc::clone(&newest.table),
                delta: Some(Delta::default()),
            };
            let author = Author {
                who: "control".to_owned(),
                from: String::new(),
                what: "overtake edges".to_owned(),
            };
            let commit = self.next(mark, outcome, author);
            match self.store.append(&commit).await {
                Ok(()) => {
                    self.advance(commit.record, commit.delta, commit.table);
                    return Ok(());
                }
                Err(AppendError::Conflict) => self.overtaken(mark).await?,
                Err(AppendError::Failed(error) | AppendError::Unknown(error)) => {
                    return Err(error);
                }
            }
        }
    }
}
