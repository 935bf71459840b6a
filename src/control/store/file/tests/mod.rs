//! The files as the next process finds them.

mod damage;
mod doubt;
mod history;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::FileOptions;
use super::line::{Found, Line};
use crate::control::core::tests::{author, document};
use crate::control::store::{AppendError, Commit, Generation, Record, StoreError};
use crate::protocol::Mark;
use crate::table::{self, Delta, RoutingTable};

/// A directory, and what was put into it.
struct Fixture {
    above: TempDir,
    history: u64,
    /// Every generation there was, the oldest first.
    generations: Vec<Generation>,
}

impl Fixture {
    fn new() -> Self {
        Self {
            above: tempfile::tempdir().unwrap(),
            history: 1000,
            generations: Vec::new(),
        }
    }

    /// One with a table and so many changes of it, in one segment.
    fn with_changes(changes: usize) -> Self {
        let mut fixture = Self::new();
        let mut line = fixture.open();
        fixture.found(&mut line);
        for number in 0..changes {
            fixture.set(&mut line, &format!("key-{number}"), "two");
        }
        fixture
    }

    fn dir(&self) -> PathBuf {
        self.above.path().join("data")
    }

    fn open(&self) -> Line {
        self.try_open(&self.dir()).unwrap()
    }

    fn try_open(&self, dir: &Path) -> Result<Line, String> {
        Line::open(FileOptions {
            data_dir: dir.to_owned(),
            history: self.history,
            history_bytes: u64::MAX,
        })
    }

    fn found(&mut self, line: &mut Line) {
        let table = table::compile(&document("1", &[("acme", "one")])).unwrap();
        self.append(line, Arc::new(table), None).unwrap();
    }

    fn set(&mut self, line: &mut Line, key: &str, placement: &str) {
        self.change(
            line,
            Delta {
                set: vec![(key.to_owned(), placement.to_owned())],
                ..Delta::default()
            },
        );
    }

    fn change(&mut self, line: &mut Line, delta: Delta) {
        let newest = line.newest().unwrap();
        let table = Arc::new(newest.table.apply(&delta).unwrap());
        self.append(line, table, Some(delta)).unwrap();
    }

    fn append(
        &mut self,
        line: &mut Line,
        table: Arc<RoutingTable>,
        delta: Option<Delta>,
    ) -> Result<(), AppendError> {
        let parent = line.newest().map(|newest| newest.record.mark());
        let next = parent.map_or(0, |parent| parent.generation) + 1;
        let commit = commit(parent, next, table, delta);
        line.append(&commit)?;
        self.generations.push(Generation {
            record: commit.record,
            table: commit.table,
        });
        Ok(())
    }

    /// Whether what is in `line` is what was put into it, up to this many.
    #[track_caller]
    fn assert_has(&self, line: &Line, count: usize) {
        let expected = &self.generations[..count];
        let newest = line.newest().expect("there is one");
        assert_eq!(newest.record, expected[count - 1].record);
        let records: Vec<Record> = expected.iter().rev().map(|g| g.record.clone()).collect();
        assert_eq!(line.records(None, usize::MAX), records);
        for generation in expected {
            let read = read(line, generation.record.generation);
            let read = read.unwrap().expect("it is kept");
            assert_eq!(read.record, generation.record);
            assert_eq!(read.table.digest(), generation.table.digest());
        }
    }
}

fn read(line: &Line, generation: u64) -> Result<Option<Generation>, StoreError> {
    line.find(generation)?.map(Found::read).transpose()
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

/// The segments of a directory, the oldest first.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut names: Vec<PathBuf> = names
        .filter(|path| path.extension().is_some_and(|end| end == "segment"))
        .collect();
    names.sort();
    names
}

/// A copy of a directory, for one experiment.
fn copy(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for segment in segments(dir) {
        fs::copy(&segment, copy.path().join(segment.file_name().unwrap())).unwrap();
    }
    copy
}
