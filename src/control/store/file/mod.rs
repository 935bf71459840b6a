//! A store in a directory of this machine, for one control plane.
//!
//! The generations are in `cellgate.db`, an SQLite database in WAL mode (see
//! `schema.sql`). Beside it are `cellgate.db-wal` and `cellgate.db-shm`, which belong to
//! it; `lock`, held by the process that may write; and `routing.state`, which belongs to
//! the [routing file](crate::control::mirror).
//!
//! A generation is stored as the delta from its parent, in one transaction of one sync,
//! which costs what the change does. When the deltas since the last whole table outweigh
//! it, the next generation is stored as a table. Generations are removed from the oldest
//! on, up to a generation that is stored as a table.
//!
//! What a crash leaves of an unfinished transaction was never acknowledged; SQLite drops
//! it. Damage is never passed over in silence. Records and contents have checksums, the
//! table that results has the digest of its record, and the number of the newest
//! acknowledged generation is kept beside the database. At start, all of this is checked
//! for the newest generation, from the table that it is read from; for any other, when it
//! is read. If the newest generation is damaged or missing, the newest one that can be
//! read comes back under a *new* number, above all that were there. Nothing is written
//! into a database whose structure is damaged; it is not opened.
//!
//! `directory` has the lock and the names, `database` writes, `read` reads, and `history`
//! decides what is stored as a table, what is removed, and what to start with.

mod database;
mod directory;
mod history;
mod read;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::task::spawn_blocking;

use self::database::Database;
use self::history::History;
use self::read::ReadError;
use super::{AppendError, Commit, Generation, News, Record, Step, Store, StoreError};

/// What a file store is opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// Created if it does not exist; its parent is not.
    pub data_dir: PathBuf,
    /// How many generations are kept at least, 1 or more.
    pub history: u64,
    /// How many bytes all generations may have before old ones are removed although
    /// fewer than `history` are left.
    pub history_bytes: u64,
}

/// See the [module](self).
pub struct FileStore {
    data_dir: PathBuf,
    database: PathBuf,
    history: Arc<Mutex<History>>,
}

impl FileStore {
    /// Opens the directory, for this process alone. Blocks its thread for as long as
    /// reading the newest table takes.
    ///
    /// # Errors
    /// In words for an operator: another process has it, it cannot be read or written, it
    /// is of another format, or it is damaged and nothing can be read.
    pub fn open(options: FileOptions) -> Result<Self, StoreError> {
        let data_dir = options.data_dir.clone();
        let history = History::open(options)
            .map_err(|why| StoreError(format!("{}: {why}", data_dir.display())))?;
        Ok(Self {
            data_dir,
            database: history.directory.database(),
            history: Arc::new(Mutex::new(history)),
        })
    }

    /// Runs `work` on a thread that may block. It is completed even if the future is
    /// dropped.
    async fn write<T, E>(
        &self,
        work: impl FnOnce(&mut History) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: Send + 'static + From<StoreError>,
    {
        let history = Arc::clone(&self.history);
        let task = spawn_blocking(move || {
            let mut history = history.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut history)
        });
        task.await.unwrap_or_else(|error| {
            Err(StoreError(format!("the store's thread panicked: {error}")).into())
        })
    }

    /// As [`write`](Self::write), on a connection of its own, so that the work itself does
    /// not wait for a generation that is being added.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let path = self.database.clone();
        let task = spawn_blocking(move || {
            let database = Database::open_reader(&path)
                .map_err(|error| StoreError(format!("{}: {error}", path.display())))?;
            work(&database)
        });
        task.await.unwrap_or_else(|error| {
            Err(StoreError(format!("the store's thread panicked: {error}")))
        })
    }
}

/// It is not known to be stored.
impl From<StoreError> for AppendError {
    fn from(error: StoreError) -> Self {
        Self::Unknown(error)
    }
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        Self(error.into_text())
    }
}

#[async_trait]
impl Store for FileStore {
    fn name(&self) -> String {
        format!("file {}", self.data_dir.display())
    }

    async fn newest(&self) -> Result<Option<Generation>, StoreError> {
        self.write(|history| Ok(history.newest().cloned())).await
    }

    async fn append(&self, commit: &Commit) -> Result<(), AppendError> {
        let commit = commit.clone();
        self.write(move |history| history.append(&commit)).await
    }

    async fn since(&self, after: u64) -> Result<News, StoreError> {
        // Only this process adds generations, so that there is hardly ever one.
        let newest = self.newest().await?;
        let newer = newest.filter(|newest| newest.record.generation > after);
        Ok(newer.map_or(News::Nothing, News::Whole))
    }

    async fn recent(&self, most: usize, most_bytes: usize) -> Result<Vec<Step>, StoreError> {
        self.read(move |database| Ok(database.recent(most, most_bytes)?))
            .await
    }

    async fn changed(&self, _after: u64) {
        // The directory is locked: no other process adds generations.
        std::future::pending().await
    }

    async fn records(&self, before: Option<u64>, limit: usize) -> Result<Vec<Record>, StoreError> {
        self.read(move |database| Ok(database.records(before, limit)?))
            .await
    }

    async fn generation(&self, generation: u64) -> Result<Option<Generation>, StoreError> {
        let newest = self.newest().await?;
        if let Some(newest) = newest.filter(|newest| newest.record.generation == generation) {
            return Ok(Some(newest));
        }
        self.read(move |database| {
            database.generation(generation).map_err(|broken| {
                StoreError(format!(
                    "generation {generation} cannot be read: generation {}: {}",
                    broken.generation,
                    broken.why.into_text()
                ))
            })
        })
        .await
    }
}
