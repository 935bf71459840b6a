//! The store as the next process finds it.

mod damage;
mod format;
mod history;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::FileOptions;
use super::database::Database;
use super::history::History;
use super::read::Broken;
use crate::control::core::tests::{author, document};
use crate::control::store::{AppendError, Commit, Generation, Record};
use crate::protocol::Mark;
use crate::table::{self, Delta, RoutingTable};

/// A directory, and what was put into it.
struct Fixture {
    parent: TempDir,
    history: u64,
    history_bytes: u64,
    /// Every generation there was, the oldest first.
    generations: Vec<Generation>,
}

impl Fixture {
    fn new() -> Self {
        Self {
            parent: tempfile::tempdir().unwrap(),
            history: 1000,
            history_bytes: u64::MAX,
            generations: Vec::new(),
        }
    }

    /// With a table and this many changes of it.
    fn with_changes(changes: usize) -> Self {
        let mut fixture = Self::new();
        let mut history = fixture.open();
        fixture.found(&mut history);
        fixture.set_many(&mut history, changes);
        fixture
    }

    fn dir(&self) -> PathBuf {
        self.parent.path().join("data")
    }

    fn open(&self) -> History {
        self.try_open(&self.dir()).unwrap()
    }

    fn try_open(&self, dir: &Path) -> Result<History, String> {
        History::open(FileOptions {
            data_dir: dir.to_owned(),
            history: self.history,
            history_bytes: self.history_bytes,
        })
    }

    fn found(&mut self, history: &mut History) {
        let table = table::compile(&document("1", &[("acme", "one")])).unwrap();
        self.append(history, Arc::new(table), None).unwrap();
    }

    fn set_many(&mut self, history: &mut History, changes: usize) {
        for _ in 0..changes {
            let key = format!("key-{}", self.generations.len());
            self.set(history, &key, "two");
        }
    }

    fn set(&mut self, history: &mut History, key: &str, placement: &str) {
        self.change(
            history,
            Delta {
                set: vec![(key.to_owned(), placement.to_owned())],
                ..Delta::default()
            },
        );
    }

    fn change(&mut self, history: &mut History, delta: Delta) {
        let newest = history.newest().unwrap();
        let table = Arc::new(newest.table.apply(&delta).unwrap());
        self.append(history, table, Some(delta)).unwrap();
    }

    fn append(
        &mut self,
        history: &mut History,
        table: Arc<RoutingTable>,
        delta: Option<Delta>,
    ) -> Result<(), AppendError> {
        let parent = history.newest().map(|newest| newest.record.mark());
        let next = parent.map_or(0, |parent| parent.generation) + 1;
        let commit = commit(parent, next, table, delta);
        history.append(&commit)?;
        self.generations.push(Generation {
            record: commit.record,
            table: commit.table,
        });
        Ok(())
    }

    /// Whether `history` has exactly the first `count` generations.
    #[track_caller]
    fn assert_has(&self, history: &History, count: usize) {
        let expected = &self.generations[..count];
        let newest = history.newest().map(|newest| &newest.record);
        assert_eq!(newest, expected.last().map(|last| &last.record));
        let records: Vec<Record> = expected.iter().rev().map(|g| g.record.clone()).collect();
        assert_eq!(history.database.records(None, usize::MAX), Ok(records));
        for generation in expected {
            let read = read(history, generation.record.generation);
            let read = read.unwrap().expect("it is kept");
            assert_eq!(read.record, generation.record);
            assert_eq!(read.table.digest(), generation.table.digest());
        }
    }
}

/// Reads a generation as readers do, on a connection of their own.
fn read(history: &History, generation: u64) -> Result<Option<Generation>, Broken> {
    let path = history.directory.database();
    Database::open_reader(&path).unwrap().generation(generation)
}

fn commit(
    parent: Option<Mark>,
    generation: u64,
    table: Arc<RoutingTable>,
    delta: Option<Delta>,
) -> Commit {
    Commit {
        parent,
        record: Record {
            generation,
            parent: parent.map_or(0, |parent| parent.generation),
            digest: table.digest(),
            version: table.version().to_owned(),
            keys: table.key_count() as u64,
            // Whole milliseconds, as they are written.
            at: std::time::UNIX_EPOCH + std::time::Duration::from_secs(generation),
            author: author("test \"quoted\""),
            set: delta.as_ref().map_or(0, |delta| delta.set.len() as u64),
            removed: 0,
            head: delta.is_none(),
            id: format!("id-{generation}"),
        },
        delta: delta.map(Arc::new),
        table,
    }
}

/// A copy of a directory as a crash leaves it, for one experiment.
fn copy(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["cellgate.db", "cellgate.db-wal", "lock"] {
        if dir.join(name).exists() {
            fs::copy(dir.join(name), copy.path().join(name)).unwrap();
        }
    }
    copy
}
