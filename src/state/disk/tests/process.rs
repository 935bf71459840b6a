//! The life of an edge, without its requests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::super::database::FILE;
use super::super::schedule::{Outcome, Served, Step};
use super::super::{StateDir, StateDirOptions, StateDirStatus};
use super::{Fixture, at, document, version};
use crate::state::{EdgeState, Push, Pushed};
use crate::table::{Delta, Digest};

pub(super) struct Process {
    pub fixture: Fixture,
    pub state_dir: Arc<StateDir>,
    /// Whether a stored table is served.
    pub restored: bool,
}

pub(super) fn open(
    dir: &Path,
    edge: &Arc<EdgeState>,
    max_bytes: u64,
    seconds: u64,
) -> Arc<StateDir> {
    let options = StateDirOptions {
        dir: dir.to_owned(),
        max_bytes,
        promote_after: Duration::from_secs(30),
    };
    StateDir::open(options, Arc::clone(edge), at(seconds))
}

/// The state directory, and what removes it.
pub(super) fn dir() -> (tempfile::TempDir, PathBuf) {
    let above = tempfile::tempdir().unwrap();
    let dir = above.path().join("state");
    (above, dir)
}

/// Keys of a table of which changes are stored as deltas.
pub(super) const KEYS: usize = 2000;

pub(super) fn large(version: &str) -> Vec<u8> {
    let keys: Vec<String> = (0..KEYS).map(|key| format!("tenant-{key:020}")).collect();
    let keys: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "one")).collect();
    let endpoints = [("one", "http://127.0.0.1:1"), ("two", "http://127.0.0.1:2")];
    document(version, &endpoints, &keys)
}

/// Runs SQL on the database; no process has it open.
#[track_caller]
pub(super) fn sql(dir: &Path, statements: &str) {
    let database = rusqlite::Connection::open(dir.join(FILE)).unwrap();
    database.execute_batch(statements).unwrap();
}

/// The numbers that this SQL selects.
#[track_caller]
pub(super) fn select(dir: &Path, query: &str) -> Vec<i64> {
    let database = rusqlite::Connection::open(dir.join(FILE)).unwrap();
    let mut statement = database.prepare(query).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

#[track_caller]
pub(super) fn snapshots(dir: &Path) -> Vec<i64> {
    select(
        dir,
        "SELECT DISTINCT generation FROM snapshots ORDER BY generation",
    )
}

#[track_caller]
pub(super) fn generations(dir: &Path) -> Vec<i64> {
    select(dir, "SELECT number FROM generations ORDER BY number")
}

/// Flips a bit in the middle of the snapshot.
#[track_caller]
pub(super) fn damage_snapshot(dir: &Path, generation: u64) {
    sql(
        dir,
        &format!(
            "UPDATE snapshots SET bytes = CAST(substr(bytes, 1, length(bytes) / 2) || x'00' ||
             substr(bytes, length(bytes) / 2 + 2) AS BLOB) WHERE generation = {generation}"
        ),
    );
}

/// Changes a digit in the record.
#[track_caller]
pub(super) fn damage_record(dir: &Path, generation: u64) {
    sql(
        dir,
        &format!(
            "UPDATE generations SET record = replace(record, '2026-01', '2027-01')
             WHERE number = {generation}"
        ),
    );
}

impl Process {
    pub fn start(dir: &Path, seconds: u64) -> Self {
        let fixture = Fixture::new();
        let state_dir = open(dir, &fixture.state, 1 << 20, seconds);
        let restored = state_dir.restore(at(seconds));
        if restored {
            state_dir.started(at(seconds));
        }
        Self {
            fixture,
            state_dir,
            restored,
        }
    }

    /// Starts one that serves this document first, and stores it.
    #[track_caller]
    pub fn serving(dir: &Path, first: &[u8], seconds: u64) -> Self {
        let process = Self::start(dir, seconds);
        assert!(!process.restored);
        process.fixture.changed(first);
        process.state_dir.started(at(seconds));
        assert!(process.store(seconds));
        process
    }

    #[track_caller]
    pub fn apply(&self, document: &str, seconds: u64) {
        self.fixture.changed(&version(document));
        assert!(self.store(seconds));
    }

    /// Sends these keys to `two`, as a control plane does, as its generation 100 and so many.
    pub fn push(&self, keys: &[&str]) -> Pushed {
        let set = keys.iter().map(|key| ((*key).to_owned(), "two".to_owned()));
        let delta = Delta {
            set: set.collect(),
            ..Delta::default()
        };
        let current = self.fixture.state.current().unwrap();
        let digest = current.table.apply(&delta).unwrap().digest();
        let push = Push::Delta(delta);
        let state = &self.fixture.state;
        state.push(push, 100 + current.number, digest, at(1))
    }

    /// Pushes the key, and stores that as a delta.
    #[track_caller]
    pub fn add(&self, key: &str, seconds: u64) {
        let pushed = self.push(&[key]);
        assert!(matches!(pushed, Pushed::Changed(_)), "{pushed:?}");
        assert_eq!(self.keep(seconds), Outcome::Done);
    }

    pub fn take(&self, step: Step, seconds: u64) -> Outcome {
        let current = self.fixture.state.current().unwrap();
        self.state_dir.take(step, &current, at(seconds))
    }

    /// Journals the current generation, and stores it as a delta if possible.
    pub fn keep(&self, seconds: u64) -> Outcome {
        match self.take(Step::Journal, seconds) {
            Outcome::Done => self.take(Step::Delta, seconds),
            outcome => outcome,
        }
    }

    /// Journals and stores the current generation. Returns whether that succeeded.
    pub fn store(&self, seconds: u64) -> bool {
        match self.keep(seconds) {
            Outcome::DeltasTooLong | Outcome::NeedsSnapshot => self.snapshot(),
            outcome => outcome == Outcome::Done,
        }
    }

    pub fn snapshot(&self) -> bool {
        self.take(Step::Snapshot, 0) == Outcome::Done
    }

    #[track_caller]
    pub fn promote(&self) {
        let served = Served::of(&self.fixture.state.current().unwrap());
        assert_eq!(self.take(Step::Promote(served), 0), Outcome::Done);
    }

    /// The version and the number of what is served.
    pub fn serves(&self) -> (String, u64) {
        let current = self.fixture.state.current().expect("a table is served");
        (current.table.version().to_owned(), current.number)
    }

    pub fn digest(&self) -> Digest {
        self.fixture.state.current().unwrap().table.digest()
    }

    pub fn status(&self) -> StateDirStatus {
        self.fixture.state.status().state.expect("it is shown")
    }

    pub fn end(self) {
        self.state_dir.end();
    }

    /// Ends without writing anything; the lock is released.
    pub fn crash(self) {}
}
