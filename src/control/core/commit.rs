//! The one way to change the truth.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::Truth;
use super::edit::{Edit, Outcome, Ready};
use super::expected::Expected;
use super::tally::Fate;
use crate::control::store::{AppendError, Author, Commit, Generation, Record, StoreError};
use crate::protocol::Mark;
use crate::table::Problem;

/// How often a change that another control plane overtook is made again on top of
/// what that one did.
const ATTEMPTS: u32 = 50;

/// What became of an edit.
#[derive(Clone, Debug)]
pub enum Committed {
    /// It is this generation now, and stored.
    Changed(Arc<Generation>),
    /// Everything is as it asks for already.
    Unchanged(Arc<Generation>),
}

impl Committed {
    /// The generation that has what was asked for.
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
    /// What would come of it is not valid. Never empty.
    Invalid(Vec<Problem>),
    /// The store did not take it.
    Store(StoreError),
    /// The store may have taken it or not.
    Unknown(StoreError),
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(Some(newest)) => {
                let newest = newest.record.generation;
                write!(f, "not made on the newest generation, which is {newest}")
            }
            Self::Lost(None) => f.write_str("there is no generation yet"),
            Self::Invalid(problems) => match problems.as_slice() {
                [] => f.write_str("not valid"),
                [one] => one.fmt(f),
                [first, more @ ..] => write!(f, "{first} (and {} more)", more.len()),
            },
            Self::Store(error) => write!(f, "the store did not take it: {error}"),
            Self::Unknown(error) => {
                write!(f, "the store may have taken it or not: {error}")
            }
        }
    }
}

impl std::error::Error for CommitError {}

impl Truth {
    /// Makes `edit` if `expected` holds, or changes nothing. Everyone who watches
    /// knows when this returns, and it is stored.
    ///
    /// # Errors
    /// Why nothing was changed, or that it is not known whether anything was.
    pub async fn commit(
        self: &Arc<Self>,
        edit: Edit,
        expected: &Expected,
        author: Author,
    ) -> Result<Committed, CommitError> {
        // Once begun, it is carried through, whatever becomes of whoever asked.
        let (truth, expected) = (Arc::clone(self), expected.clone());
        let task = tokio::spawn(async move {
            // Before anybody has to wait for it, and once.
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
                "the change was given up: {error}"
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
        // What changes nothing in the store is not told by it that others were
        // faster: such a verdict takes a look first.
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
                // A placement or a head that is not known here may be there.
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
            "overtaken by other control planes {ATTEMPTS} times"
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

/// Compiling takes a while.
async fn ready(edit: Edit) -> Result<Ready, CommitError> {
    match edit {
        Edit::Document(_) | Edit::Table(_) => tokio::task::spawn_blocking(|| edit.ready())
            .await
            .map_err(given_up),
        Edit::Delta(_) => Ok(edit.ready()),
    }
}

/// What `ready` makes of `current`, which takes a while when it is much.
async fn outcome(
    ready: Arc<Ready>,
    current: Option<Arc<Generation>>,
) -> Result<Outcome, CommitError> {
    let small = ready.is_small();
    let work = move || ready.on(current.as_ref().map(|current| &*current.table));
    let outcome = match small {
        true => work(),
        false => tokio::task::spawn_blocking(work).await.map_err(given_up)?,
    };
    outcome.map_err(CommitError::Invalid)
}

fn given_up(error: tokio::task::JoinError) -> CommitError {
    CommitError::Store(StoreError(format!("the change was given up: {error}")))
}
