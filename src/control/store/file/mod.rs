//! Generations in a directory of this machine, for a control plane that is the only
//! one.
//!
//! The directory is one process's at a time. In it are
//!
//! - `NUMBER.segment`, the generations from that number on: a whole table, and
//!   after it what made each of the next ones of the one before, see [`frame`];
//! - `lock`, held by the process that may write;
//! - `routing.state`, which the routing file's keeper has beside them.
//!
//! A segment is written beside its place, synced and renamed, so it always has its
//! table. Each generation after that is one write at the end and one sync, which
//! costs what the change does. When the changes outweigh the table, the next one
//! begins a new segment with a table of its own; that one change costs what the
//! table does. Segments go, the oldest first, when what is after them is history
//! enough.
//!
//! What a crash leaves at the end of the last segment was never acknowledged, and is
//! cut off. Damage anywhere else is never passed over in silence: the newest
//! generation that can be put together comes back under a *new* number, above all
//! that were there, so that edges that have had a later one take it; the file stays
//! as it is, and the log says what is missing.
//!
//! [`FileStore`] does as it is told on threads of its own; `line` knows which
//! generations there are and where, and `recover` which there were; `segment` is one
//! file, `scan` what is in it, `reading` puts a generation of it together, and `tail`
//! writes; `directory` has the names.

mod directory;
mod frame;
mod line;
mod reading;
mod recover;
mod scan;
mod segment;
mod tail;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::task::spawn_blocking;

use self::line::Line;
use super::{AppendError, Commit, Generation, News, Record, Step, Store, StoreError};

/// What a file store is opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// Made if it is missing; the directory above is not.
    pub data_dir: PathBuf,
    /// How many generations are kept at least, 1 or more.
    pub history: u64,
    /// How many bytes all segments may have before old ones go in spite of that.
    pub history_bytes: u64,
}

/// See the [module](self).
pub struct FileStore {
    data_dir: PathBuf,
    line: Arc<Mutex<Line>>,
}

impl FileStore {
    /// Opens the directory, for this process alone, and repairs what a crash left.
    /// Blocks its thread for as long as reading the newest table takes.
    ///
    /// # Errors
    /// In words for an operator: another process has it, it cannot be read or
    /// written, or there are generations of which none can be put together.
    pub fn open(options: FileOptions) -> Result<Self, StoreError> {
        let data_dir = options.data_dir.clone();
        let line = Line::open(options)
            .map_err(|why| StoreError(format!("{}: {why}", data_dir.display())))?;
        Ok(Self {
            data_dir,
            line: Arc::new(Mutex::new(line)),
        })
    }

    /// Does `work` on a thread that may wait for the disk. It is carried through
    /// whatever becomes of the future.
    async fn blocking<T, E>(
        &self,
        work: impl FnOnce(&mut Line) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: Send + 'static + From<StoreError>,
    {
        let line = Arc::clone(&self.line);
        let task = spawn_blocking(move || {
            let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut line)
        });
        task.await.unwrap_or_else(|error| {
            Err(StoreError(format!("the store's thread broke off: {error}")).into())
        })
    }
}

/// What is not known to be stored.
impl From<StoreError> for AppendError {
    fn from(error: StoreError) -> Self {
        Self::Unknown(error)
    }
}

#[async_trait]
impl Store for FileStore {
    fn name(&self) -> String {
        format!("file {}", self.data_dir.display())
    }

    async fn newest(&self) -> Result<Option<Generation>, StoreError> {
        self.blocking(|line| Ok(line.newest().cloned())).await
    }

    async fn append(&self, commit: &Commit) -> Result<(), AppendError> {
        let commit = commit.clone();
        self.blocking(move |line| line.append(&commit)).await
    }

    async fn since(&self, after: u64) -> Result<News, StoreError> {
        self.blocking(move |line| line.since(after)).await
    }

    async fn recent(&self, most: usize, most_bytes: usize) -> Result<Vec<Step>, StoreError> {
        self.blocking(move |line| line.recent(most, most_bytes))
            .await
    }

    async fn changed(&self, _after: u64) {
        // Nobody else can: the directory is locked.
        std::future::pending().await
    }

    async fn records(&self, before: Option<u64>, limit: usize) -> Result<Vec<Record>, StoreError> {
        self.blocking(move |line| Ok(line.records(before, limit)))
            .await
    }

    async fn generation(&self, generation: u64) -> Result<Option<Generation>, StoreError> {
        match self.blocking(move |line| line.find(generation)).await? {
            Some(found) => match spawn_blocking(|| found.read()).await {
                Ok(read) => read.map(Some),
                Err(error) => Err(StoreError(format!("reading broke off: {error}"))),
            },
            None => Ok(None),
        }
    }
}
