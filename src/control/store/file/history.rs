//! The stored generations: adding one, removing old ones, and what to start with after
//! damage.

use std::sync::Arc;
use std::time::SystemTime;

use super::FileOptions;
use super::database::{Content, Database};
use super::directory::{DATABASE, Directory};
use super::read::{Broken, ReadError, Run};
use crate::control::store::{AppendError, Author, Commit, Generation, Record, json_bytes};
use crate::table::Delta;

/// Deltas may have this many bytes before they outweigh a table, so that a small table
/// is not written again and again.
const LEAST: u64 = 1 << 20;

/// The writer's side of a store.
#[derive(Debug)]
pub(super) struct History {
    pub(super) directory: Directory,
    pub(super) database: Database,
    options: FileOptions,
    newest: Option<Generation>,
    /// The oldest first.
    runs: Vec<Run>,
    /// [`LEAST`], except in tests.
    pub(super) least: u64,
}

impl History {
    /// Opens the store and reads its newest generation.
    ///
    /// # Errors
    /// In words for an operator.
    pub fn open(options: FileOptions) -> Result<Self, String> {
        let directory = Directory::open(&options.data_dir)?;
        let path = directory.database();
        let named = |why: String| format!("{DATABASE}: {why}");
        let acknowledged = directory.acknowledged();
        let empty = directory
            .create_database()
            .map_err(|error| named(error.to_string()))?;
        // Before SQLite opens it: for an empty file, it removes the write-ahead log.
        if empty && acknowledged > 0 {
            return Err(named(format!(
                "it is missing or empty, but generation {acknowledged} was acknowledged: restore a \
                 backup, or start with an empty directory"
            )));
        }
        let database = Database::open(&path).map_err(named)?;
        let mut history = Self {
            directory,
            database,
            options,
            newest: None,
            runs: Vec::new(),
            least: LEAST,
        };
        history.recover(acknowledged).map_err(named)?;
        history.trim();
        Ok(history)
    }

    pub fn newest(&self) -> Option<&Generation> {
        self.newest.as_ref()
    }

    /// Adds a generation, if its parent is the newest one. Durable when this returns.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append(&mut self, commit: &Commit) -> Result<(), AppendError> {
        let newest = self.newest.as_ref();
        if commit.parent != newest.map(|newest| newest.record.mark()) {
            return Err(AppendError::Conflict);
        }
        let generation = Generation {
            record: commit.record.clone(),
            table: Arc::clone(&commit.table),
        };
        let delta = commit
            .delta
            .as_deref()
            .filter(|delta| !self.is_table_due(delta));
        match delta {
            Some(delta) => self.insert(generation, Content::Delta(delta))?,
            None => self.insert(generation, Content::Table(&commit.table))?,
        }
        self.trim();
        Ok(())
    }

    /// Whether with `delta` the deltas of the last run would outweigh its table, and
    /// reading what follows would take long.
    fn is_table_due(&self, delta: &Delta) -> bool {
        let more = json_bytes(delta) as u64 + Run::ROW_BYTES;
        let last = self.runs.last();
        last.is_none_or(|run| run.bytes - run.table_bytes + more > run.table_bytes.max(self.least))
    }

    fn insert(&mut self, generation: Generation, content: Content<'_>) -> Result<(), AppendError> {
        let number = generation.record.generation;
        let bytes = self.database.insert(&generation.record, content)? + Run::ROW_BYTES;
        self.directory.acknowledge(number);
        match (content, self.runs.last_mut()) {
            (Content::Delta(_), Some(run)) => {
                run.generations += 1;
                run.bytes += bytes;
            }
            _ => self.runs.push(Run::new(number, bytes)),
        }
        self.newest = Some(generation);
        Ok(())
    }

    /// Removes the oldest runs while those after them are history enough, or while all
    /// of them take too much space. The last one stays.
    fn trim(&mut self) {
        let mut removed = 0;
        while self.runs.len() - removed > 1 {
            let kept = self.runs.iter().skip(removed);
            let bytes: u64 = kept.clone().map(|run| run.bytes).sum();
            let generations: u64 = kept.skip(1).map(|run| run.generations).sum();
            if generations < self.options.history && bytes <= self.options.history_bytes {
                break;
            }
            removed += 1;
        }
        let Some(first) = self.runs.get(removed).filter(|_| removed > 0) else {
            return;
        };
        match self.database.remove_below(first.first) {
            Ok(()) => drop(self.runs.drain(..removed)),
            Err(error) => log::warn!(
                target: "cellgate::control",
                "{}: generations below {} cannot be removed: {error}",
                self.directory.database().display(),
                first.first
            ),
        }
    }

    /// Finds the newest generation that can be read. If a later one was acknowledged, the
    /// content comes back under a new number, so that edges which had the later one take
    /// it.
    fn recover(&mut self, acknowledged: u64) -> Result<(), String> {
        let last = self.database.last(u64::MAX).map_err(ReadError::into_text)?;
        let Some(last) = last else {
            return match acknowledged {
                0 => Ok(()),
                _ => Err(format!(
                    "it has no generation, but generation {acknowledged} was acknowledged: restore \
                     a backup, or start with an empty directory"
                )),
            };
        };
        let newest = self.newest_readable(last)?;
        self.runs = self.database.runs().map_err(ReadError::into_text)?;
        let highest = last.max(acknowledged);
        if newest.record.generation < highest {
            return self.restore(newest, highest);
        }
        self.directory.acknowledge(highest);
        self.newest = Some(newest);
        Ok(())
    }

    fn newest_readable(&self, last: u64) -> Result<Generation, String> {
        let mut next = Some(last);
        while let Some(number) = next {
            match self.database.generation(number) {
                Ok(Some(generation)) => return Ok(generation),
                Ok(None) => return Err(format!("generation {number} disappeared")),
                Err(Broken {
                    why: ReadError::Failed(why),
                    generation,
                    ..
                }) => return Err(format!("generation {generation} cannot be read: {why}")),
                Err(Broken {
                    good,
                    generation,
                    why: ReadError::Damaged(why),
                }) => {
                    log::error!(
                        target: "cellgate::control",
                        "{}: generation {generation} is damaged: {why}",
                        self.directory.database().display()
                    );
                    if let Some(good) = good {
                        return Ok(*good);
                    }
                    let before = generation.min(number).saturating_sub(1);
                    next = self.database.last(before).map_err(ReadError::into_text)?;
                }
            }
        }
        Err(
            "none of its generations can be read, see the log: restore a backup, or start with an \
             empty directory"
                .to_owned(),
        )
    }

    /// Makes the content of `newest` a generation above `highest`.
    fn restore(&mut self, newest: Generation, highest: u64) -> Result<(), String> {
        // What is damaged may be more than some contents. Nothing is written then.
        self.database.check().map_err(|why| {
            format!(
                "it is damaged: {why}: restore a backup, or start with an empty directory; \
                 `sqlite3 FILE .recover` prints what can be read"
            )
        })?;
        let was = newest.record.generation;
        let restored = Generation {
            record: Record {
                generation: highest + 1,
                parent: was,
                at: SystemTime::now(),
                author: Author {
                    who: "store".to_owned(),
                    from: String::new(),
                    what: format!("recover generation {was}"),
                },
                set: 0,
                removed: 0,
                head: false,
                id: format!("{:032x}", rand::random::<u128>()),
                ..newest.record
            },
            table: newest.table,
        };
        log::error!(
            target: "cellgate::control",
            "generations after {was} are lost, the last known of them is {highest}; generation {was} \
             is the newest again, as generation {}: repeat the changes made since {}",
            restored.record.generation,
            crate::telemetry::time::rfc3339_millis(newest.record.at)
        );
        let table = Arc::clone(&restored.table);
        self.insert(restored, Content::Table(&table))
            .map_err(|error| match error {
                AppendError::Failed(error) | AppendError::Unknown(error) => error.to_string(),
                AppendError::Conflict => "another generation was added".to_owned(),
            })
    }
}
