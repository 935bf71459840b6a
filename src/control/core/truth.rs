//! The newest generation, and the one writer that replaces it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::{Mutex as AsyncMutex, watch};

use super::edit::{Edit, Outcome};
use super::expected::Expected;
use super::ring::{Ring, Step};
use super::tally::{Fate, Tally};
use crate::control::store::{
    AppendError, Author, Commit, Generation, News, Record, Store, StoreError,
};
use crate::protocol::Mark;
use crate::protocol::limits::NUMBER_MAX;
use crate::routing::{Delta, Problem};

/// How often a change that another control plane overtook is made again on top of
/// what that one did.
const ATTEMPTS: u32 = 50;

/// The newest generation.
pub struct Truth {
    store: Arc<dyn Store>,
    newest: watch::Sender<Option<Arc<Generation>>>,
    /// Held by whoever replaces the newest generation.
    writer: AsyncMutex<()>,
    /// Changed together with `newest`.
    ring: Mutex<Ring>,
    /// The highest generation that any edge is known to have had.
    heard: Mutex<u64>,
    tally: Tally,
}

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

/// What an edge lacks.
#[derive(Clone, Debug)]
pub enum Since {
    /// Nothing.
    Same,
    /// These steps, oldest first; never empty.
    Steps(Vec<Step>),
    /// Everything.
    Whole(Arc<Generation>),
    /// The edge has a higher generation than there is: data was lost here. The
    /// next change gets a higher one still.
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
        Ok(Arc::new(Self {
            store,
            newest: watch::Sender::new(newest),
            writer: AsyncMutex::default(),
            ring: Mutex::default(),
            heard: Mutex::default(),
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

    /// An edge has `generation`. If that is more than there is here, later ones
    /// begin above it, so that the edge takes them.
    pub fn heard_of(&self, generation: u64) {
        // Nobody got that far, and whoever says so would leave no room to go on.
        if generation > NUMBER_MAX / 2 {
            return;
        }
        let mut heard = lock(&self.heard);
        *heard = (*heard).max(generation);
    }

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
            let committed = truth.commit_now(edit, &expected, author).await;
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
        edit: Edit,
        expected: &Expected,
        author: Author,
    ) -> Result<Committed, CommitError> {
        let _writer = self.writer.lock().await;
        let edit = Arc::new(edit);
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
            let outcome = match outcome(Arc::clone(&edit), current.clone()).await {
                // A placement or a head that is not known here may be there.
                Err(CommitError::Invalid(problems))
                    if matches!(*edit, Edit::Delta(_)) && !std::mem::replace(&mut looked, true) =>
                {
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
                Ok(()) => return Ok(Committed::Changed(self.advance(commit))),
                Err(AppendError::Conflict) => {
                    self.catch_up().await.map_err(CommitError::Store)?;
                }
                Err(AppendError::Failed(error)) => return Err(CommitError::Store(error)),
                Err(AppendError::Unknown(error)) => return Err(CommitError::Unknown(error)),
            }
        }
        Err(CommitError::Store(StoreError(format!(
            "overtaken by other control planes {ATTEMPTS} times"
        ))))
    }

    fn next(&self, parent: Option<Mark>, outcome: Outcome, author: Author) -> Commit {
        let parent = parent.map_or(0, |parent| parent.generation);
        let generation = parent.max(*lock(&self.heard)) + 1;
        let Outcome { table, delta } = outcome;
        let (set, removed, head) = match &delta {
            Some(delta) => (delta.set.len(), delta.remove.len(), delta.head.is_some()),
            None => (table.key_count(), 0, true),
        };
        let record = Record {
            generation,
            parent,
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
            delta: delta.map(Arc::new),
            table,
        }
    }

    /// Takes over what others have added to the store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let _writer = self.writer.lock().await;
        self.catch_up().await
    }

    /// Follows the store for as long as the process lives.
    pub async fn follow(&self) {
        let mut failing = false;
        loop {
            let newest = self.newest().map_or(0, |newest| newest.record.generation);
            self.store.changed(newest).await;
            match self.refresh().await {
                Ok(()) => {
                    if std::mem::take(&mut failing) {
                        log::info!(target: "cellgate::control", "store: can be read again");
                    }
                }
                Err(error) => {
                    self.tally.count_unreadable();
                    if !std::mem::replace(&mut failing, true) {
                        log::error!(target: "cellgate::control", "store: {error}");
                    }
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// The writer's lock is held.
    async fn catch_up(&self) -> Result<(), StoreError> {
        let current = self.newest();
        let after = current.as_ref().map_or(0, |now| now.record.generation);
        match self.store.since(after).await? {
            News::Nothing => Ok(()),
            News::Steps(steps) => match self.replay(steps) {
                true => Ok(()),
                false => self.reload().await,
            },
            News::Whole(newest) => {
                self.replace(newest);
                Ok(())
            }
        }
    }

    /// Makes `steps`; false: they do not lead to what they say.
    fn replay(&self, steps: Vec<(Record, Arc<Delta>)>) -> bool {
        for (record, delta) in steps {
            let Some(current) = self.newest() else {
                return false;
            };
            if record.generation <= current.record.generation {
                continue;
            }
            if record.parent != current.record.generation {
                return false;
            }
            let table = match current.table.apply(&delta) {
                Ok(table) if table.digest() == record.digest => Arc::new(table),
                _ => return false,
            };
            self.advance(Commit {
                record,
                delta: Some(delta),
                table,
            });
        }
        true
    }

    async fn reload(&self) -> Result<(), StoreError> {
        if let Some(newest) = self.store.newest().await? {
            self.replace(newest);
        }
        Ok(())
    }

    fn replace(&self, newest: Generation) {
        self.advance(Commit {
            record: newest.record,
            delta: None,
            table: newest.table,
        });
    }

    /// Makes `commit` the newest generation, unless it is an older one.
    fn advance(&self, commit: Commit) -> Arc<Generation> {
        let Commit {
            record,
            delta,
            table,
        } = commit;
        let to = record.mark();
        let next = Arc::new(Generation { record, table });
        let mut ring = lock(&self.ring);
        let current = self.newest();
        if current
            .as_ref()
            .is_some_and(|current| current.record.generation >= to.generation)
        {
            return next;
        }
        match (current, delta) {
            (Some(current), Some(delta)) => ring.push(Step {
                from: current.record.mark(),
                to,
                delta,
            }),
            _ => ring.clear(),
        }
        self.newest.send_replace(Some(Arc::clone(&next)));
        drop(ring);
        let author = &next.record.author;
        log::info!(
            target: "cellgate::control",
            generation = to.generation,
            version = next.record.version.as_str(),
            digest:% = to.digest,
            keys = next.record.keys,
            set = next.record.set,
            removed = next.record.removed,
            who = author.who.as_str(),
            from = author.from.as_str(),
            what = author.what.as_str();
            "new generation"
        );
        next
    }
}

/// Compiling takes a while.
async fn outcome(
    edit: Arc<Edit>,
    current: Option<Arc<Generation>>,
) -> Result<Outcome, CommitError> {
    let small = match &*edit {
        Edit::Delta(delta) => delta.head.is_none() && delta.set.len() + delta.remove.len() < 100,
        Edit::Document(_) | Edit::Table(_) => false,
    };
    let work = move || edit.on(current.as_ref().map(|current| &*current.table));
    let outcome = match small {
        true => Ok(work()),
        false => tokio::task::spawn_blocking(work).await,
    };
    match outcome {
        Ok(outcome) => outcome.map_err(CommitError::Invalid),
        Err(error) => Err(CommitError::Store(StoreError(format!(
            "the change was given up: {error}"
        )))),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
