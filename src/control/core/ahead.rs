//! Edges that have a later generation than the newest one here.
//!
//! Either another control plane made it, and it is in the store; or the store lost it,
//! for instance because a backup was restored. Edges do not accept a generation below
//! the one that they have, so in the second case the newest content is committed again
//! under a number above it.

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

/// How far above the newest generation an edge may be. No store loses that many
/// generations, and believing such an edge would use up the numbers.
const MOST_AHEAD: u64 = 1 << 32;

/// The first and the longest time between two attempts while the store fails.
const PAUSE: Duration = Duration::from_secs(1);
const MOST_PAUSE: Duration = Duration::from_secs(30);

/// The highest generation that edges reported.
#[derive(Default)]
pub(super) struct Ahead {
    reported: Mutex<Reported>,
    /// An implausible number was logged already.
    implausible_logged: AtomicBool,
}

#[derive(Default)]
struct Reported {
    /// The highest one; 0 as long as none was above the newest generation here.
    generation: u64,
    /// A task is running that makes a generation above it.
    overtaking: bool,
}

impl Ahead {
    pub fn highest(&self) -> u64 {
        lock(&self.reported).generation
    }
}

impl Truth {
    /// Notes that the edge of this name has `generation`. If that is above the newest
    /// generation, here and in the store, the newest content is committed again under a
    /// number above it, so that the edge accepts it. Numbers more than 2^32 above the
    /// newest are ignored.
    pub fn heard_of(self: &Arc<Self>, edge_id: &str, generation: u64) {
        let newest = self.newest().map_or(0, |newest| newest.record.generation);
        if generation <= newest {
            return;
        }
        if generation > newest.saturating_add(MOST_AHEAD) || generation >= NUMBER_MAX {
            if !self.ahead.implausible_logged.swap(true, Relaxed) {
                log::error!(
                    target: "cellgate::control",
                    edge_id, generation;
                    "an edge reports a generation more than {MOST_AHEAD} above the newest, which is \
                     {newest}: ignored, and the edge keeps its table"
                );
            }
            return;
        }
        let mut reported = lock(&self.ahead.reported);
        reported.generation = reported.generation.max(generation);
        if std::mem::replace(&mut reported.overtaking, true) {
            return;
        }
        drop(reported);
        let (truth, edge_id) = (Arc::clone(self), edge_id.to_owned());
        tokio::spawn(async move { truth.overtake_all(&edge_id, generation).await });
    }

    async fn overtake_all(&self, edge_id: &str, generation: u64) {
        let (mut pause, mut logged) = (PAUSE, false);
        loop {
            match self.overtake(edge_id, generation, &mut logged).await {
                Ok(()) => {
                    // Another edge may have reported a higher one meanwhile.
                    let mut reported = lock(&self.ahead.reported);
                    let newest = self.newest().map(|newest| newest.record.generation);
                    // If there is no generation yet, the first one will be above it.
                    if newest.is_none_or(|newest| newest >= reported.generation) {
                        reported.overtaking = false;
                        return;
                    }
                }
                Err(error) => {
                    log::warn!(
                        target: "cellgate::control",
                        "cannot make a generation above those of the edges, retrying: {error}"
                    );
                    sleep(pause).await;
                    pause = (2 * pause).min(MOST_PAUSE);
                }
            }
        }
    }

    /// Commits the newest content under a number above all that were reported, unless
    /// the newest generation is.
    async fn overtake(
        &self,
        edge_id: &str,
        generation: u64,
        logged: &mut bool,
    ) -> Result<(), StoreError> {
        let _writer = self.writer.lock().await;
        // Another control plane may have made it, and it is in the store.
        self.catch_up().await?;
        loop {
            let newest = self.newest();
            let mark = newest.as_ref().map(|newest| newest.record.mark());
            let number = mark.map_or(0, |mark| mark.generation);
            if number >= self.ahead.highest() {
                return Ok(());
            }
            if !std::mem::replace(logged, true) {
                log::error!(
                    target: "cellgate::control",
                    edge_id, generation;
                    "an edge has a later generation than the newest, which is {number}: the changes \
                     made since are lost here, and the newest content becomes a generation above it, \
                     for edges to take"
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
