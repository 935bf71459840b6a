//! The one way to make a generation, and counts of the outcomes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::Truth;
use super::edit::{Edit, Outcome, Ready};
use super::expected::Expected;
use crate::control::store::{AppendError, Author, Commit, Generation, Record, StoreError};
use crate::protocol::Mark;
use crate::table::Problem;

/// How often a change is retried on top of what another control plane committed.
const ATTEMPTS: u32 = 50;

/// The outcome of an edit that was accepted.
#[derive(Clone, Debug)]
pub enum Committed {
    /// It was stored as this generation.
    Changed(Arc<Generation>),
    /// The newest generation already is what the edit asks for.
    Unchanged(Arc<Generation>),
}

impl Committed {
    /// The generation that is what the edit asked for.
    pub fn generation(&self) -> &Arc<Generation> {
        match self {
            Self::Changed(generation) | Self::Unchanged(generation) => generation,
        }
    }
}

/// Why nothing was changed.
#[derive(Clone, Debug)]
pub enum CommitError {
    /// The newest generation is not the expected one: this is it.
    Lost(Option<Arc<Generation>>),
    /// The resulting table is not valid. Never empty.
    Invalid(Vec<Problem>),
    /// It was not stored.
    Store(StoreError),
    /// Whether it was stored is unknown.
    Unknown(StoreError),
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(Some(newest)) => {
                let newest = newest.record.generation;
                write!(f, "the newest generation is another one, {newest}")
            }
            Self::Lost(None) => f.write_str("there is no generation yet"),
            Self::Invalid(problems) => match problems.as_slice() {
                [] => f.write_str("not valid"),
                [one] => one.fmt(f),
                [first, more @ ..] => write!(f, "{first} (and {} more)", more.len()),
            },
            Self::Store(error) => write!(f, "it was not stored: {error}"),
            Self::Unknown(error) => {
                write!(f, "whether it was stored is unknown: {error}")
            }
        }
    }
}

impl std::error::Error for CommitError {}

impl Truth {
    /// Makes `edit` if `expected` holds. When this returns, the new generation is stored
    /// and [watchers](Truth::watch) have been notified.
    ///
    /// # Errors
    /// Why nothing was changed, or that this is unknown.
    pub async fn commit(
        self: &Arc<Self>,
        edit: Edit,
        expected: &Expected,
        author: Author,
    ) -> Result<Committed, CommitError> {
        // In a task of its own: once begun, it is completed even if the caller is gone.
        let (truth, expected) = (Arc::clone(self), expected.clone());
        let task = tokio::spawn(async move {
            // Before the writer's lock is taken, and once.
            let committed = match ready(edit).await {
                Ok(ready) => truth.commit_now(ready, &expected, author).await,
                Err(error) => Err(error),
            };
            truth.tally.count(Fate::of(&committed));
            committed
        });
        task.await.unwrap_or_else(|error| {
            self.tally.count(Fate::Unknown);
            Err(CommitError::Unknown(StoreError(format!(
                "the change was aborted: {error}"
            ))))
        })
    }

    async fn commit_now(
        &self,
        ready: Ready,
        expected: &Expected,
        author: Author,
    ) -> Result<Committed, CommitError> {
        let _writer = self.writer.lock().await;
        let ready = Arc::new(ready);
        // An edit that stores nothing gets no conflict from the store if another control
        // plane was faster. Such an outcome is returned only after a look at the store.
        let mut looked = false;
        for _ in 0..ATTEMPTS {
            let current = self.newest();
            let mark = current.as_ref().map(|current| current.record.mark());
            if !expected.holds(mark) {
                if !std::mem::replace(&mut looked, true) {
                    self.catch_up().await.map_err(CommitError::Store)?;
                    continue;
                }
                return Err(CommitError::Lost(current));
            }
            let outcome = match outcome(Arc::clone(&ready), current.clone()).await {
                // A placement that is unknown here may be in a newer generation.
                Err(CommitError::Invalid(problems)) if !std::mem::replace(&mut looked, true) => {
                    self.catch_up().await.map_err(CommitError::Store)?;
                    if self.newest().map(|newest| newest.record.mark()) != mark {
                        continue;
                    }
                    return Err(CommitError::Invalid(problems));
                }
                outcome => outcome?,
            };
            if let Some(current) = current.clone()
                && current.record.digest == outcome.table.digest()
            {
                if !std::mem::replace(&mut looked, true) {
                    self.catch_up().await.map_err(CommitError::Store)?;
                    if self.newest().map(|newest| newest.record.mark()) != mark {
                        continue;
                    }
                }
                return Ok(Committed::Unchanged(current));
            }
            let commit = self.next(mark, outcome, author.clone());
            match self.store.append(&commit).await {
                Ok(()) => {
                    return Ok(Committed::Changed(self.advance(
                        commit.record,
                        commit.delta,
                        commit.table,
                    )));
                }
                Err(AppendError::Conflict) => {
                    self.overtaken(mark).await.map_err(CommitError::Store)?;
                }
                Err(AppendError::Failed(error)) => return Err(CommitError::Store(error)),
                Err(AppendError::Unknown(error)) => return Err(CommitError::Unknown(error)),
            }
        }
        Err(CommitError::Store(StoreError(format!(
            "other control planes were faster {ATTEMPTS} times in a row"
        ))))
    }

    pub(super) fn next(&self, parent: Option<Mark>, outcome: Outcome, author: Author) -> Commit {
        let before = parent.map_or(0, |parent| parent.generation);
        let generation = before.max(self.ahead.highest()) + 1;
        let Outcome { table, delta } = outcome;
        let (set, removed, head) = match &delta {
            Some(delta) => (delta.set.len(), delta.remove.len(), delta.head.is_some()),
            None => (table.key_count(), 0, true),
        };
        let record = Record {
            generation,
            parent: before,
            digest: table.digest(),
            version: table.version().to_owned(),
            keys: table.key_count() as u64,
            at: SystemTime::now(),
            author,
            set: set as u64,
            removed: removed as u64,
            head,
            id: format!("{:032x}", rand::random::<u128>()),
        };
        Commit {
            record,
            parent,
            delta: delta.map(Arc::new),
            table,
        }
    }
}

/// Compiles a document on a thread that may block.
async fn ready(edit: Edit) -> Result<Ready, CommitError> {
    match edit {
        Edit::Document(_) | Edit::Table(_) => tokio::task::spawn_blocking(|| edit.ready())
            .await
            .map_err(aborted),
        Edit::Delta(_) => Ok(edit.ready()),
    }
}

/// Applies `ready` to `current`, on a thread that may block if it is large.
async fn outcome(
    ready: Arc<Ready>,
    current: Option<Arc<Generation>>,
) -> Result<Outcome, CommitError> {
    let small = ready.is_small();
    let work = move || ready.on(current.as_ref().map(|current| &*current.table));
    let outcome = match small {
        true => work(),
        false => tokio::task::spawn_blocking(work).await.map_err(aborted)?,
    };
    outcome.map_err(CommitError::Invalid)
}

fn aborted(error: tokio::task::JoinError) -> CommitError {
    CommitError::Store(StoreError(format!("the change was aborted: {error}")))
}

/// The outcome of an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Changed,
    Unchanged,
    /// The precondition did not hold.
    Lost,
    Invalid,
    /// It was not stored.
    Failed,
    /// Whether it was stored is unknown.
    Unknown,
}

impl Fate {
    pub const ALL: [Fate; 6] = [
        Fate::Changed,
        Fate::Unchanged,
        Fate::Lost,
        Fate::Invalid,
        Fate::Failed,
        Fate::Unknown,
    ];

    /// The value of the label `result` of metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Lost => "lost",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }

    pub(super) fn of(committed: &Result<Committed, CommitError>) -> Self {
        match committed {
            Ok(Committed::Changed(_)) => Self::Changed,
            Ok(Committed::Unchanged(_)) => Self::Unchanged,
            Err(CommitError::Lost(_)) => Self::Lost,
            Err(CommitError::Invalid(_)) => Self::Invalid,
            Err(CommitError::Store(_)) => Self::Failed,
            Err(CommitError::Unknown(_)) => Self::Unknown,
        }
    }
}

/// Counts since the process started.
#[derive(Debug, Default)]
pub struct Tally {
    fates: [AtomicU64; Fate::ALL.len()],
    unreadable: AtomicU64,
}

impl Tally {
    pub(super) fn count(&self, fate: Fate) {
        if let Some(count) = self.fates.get(fate as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count_unreadable(&self) {
        self.unreadable.fetch_add(1, Ordering::Relaxed);
    }

    /// How many edits had this outcome.
    pub fn of(&self, fate: Fate) -> u64 {
        let count = self.fates.get(fate as usize);
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// How often the store could not be read or written.
    pub fn store_errors(&self) -> u64 {
        let unreadable = self.unreadable.load(Ordering::Relaxed);
        unreadable + self.of(Fate::Failed) + self.of(Fate::Unknown)
    }
}
