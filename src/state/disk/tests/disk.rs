//! The files as the next process finds them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::directory::name;
use super::super::schedule::{Outcome, Served};
use super::super::{Fallback, Memory, MemoryStatus};
use super::{Fixture, at, open, version};
use crate::state::{Applied, Connection, ConnectionState};

/// An edge's life, without its requests.
pub(super) struct Process {
    pub fixture: Fixture,
    pub memory: Arc<Memory>,
    /// Whether there was something to start with.
    pub recalled: bool,
}

impl Process {
    pub fn start(dir: &Path, seconds: u64) -> Self {
        let fixture = Fixture::new();
        let memory = open(dir, &fixture.state, seconds);
        let recalled = memory.recall(at(seconds));
        if recalled {
            memory.started(at(seconds));
        }
        Self {
            fixture,
            memory,
            recalled,
        }
    }

    /// Starts one that serves this version first.
    fn serving(dir: &Path, first: &str, seconds: u64) -> Self {
        let process = Self::start(dir, seconds);
        assert!(!process.recalled);
        process.fixture.changed(&version(first));
        process.memory.started(at(seconds));
        assert!(process.store(seconds));
        process
    }

    fn apply(&self, document: &str, seconds: u64) {
        self.fixture.changed(&version(document));
        assert!(self.store(seconds));
    }

    pub fn store(&self, seconds: u64) -> bool {
        let current = self.fixture.state.current().unwrap();
        self.memory.note(&current, at(seconds))
            && match self.memory.append(&current) {
                Outcome::Well => true,
                Outcome::Long | Outcome::Whole => self.memory.store(&current),
                Outcome::Failed => false,
            }
    }

    pub fn promote(&self, seconds: u64) {
        let current = self.fixture.state.current().unwrap();
        assert!(self.memory.promote(Served::of(&current), at(seconds)));
    }

    /// The version and the number of what is being served.
    pub fn serves(&self) -> (String, u64) {
        let current = self.fixture.state.current().expect("a table is served");
        (current.table.version().to_owned(), current.number)
    }

    pub fn status(&self) -> MemoryStatus {
        self.fixture.state.status().state.expect("it is shown")
    }

    pub fn end(self) {
        self.memory.end();
    }

    /// As the system ends it: nothing is written, the lock is given back.
    pub fn crash(self) {}
}

pub(super) fn files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".generation")).collect();
    names.sort();
    names
}

pub(super) fn dir() -> (tempfile::TempDir, PathBuf) {
    let above = tempfile::tempdir().unwrap();
    let dir = above.path().join("state");
    (above, dir)
}

#[test]
fn a_restart_serves_what_was_served_last() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, "a", 0);
    process.apply("b", 5);
    process.crash();

    let process = Process::start(&dir, 10);
    assert_eq!(process.serves(), ("b".to_owned(), 2));
    let status = process.fixture.state.status();
    assert_eq!(status.last_reload_at, Some(at(0)));
    let state = status.state.unwrap();
    assert_eq!(state.stored_generation, Some(2));
    assert!(!state.promoted && state.promoted_generation.is_none());
    assert!(state.fallback.is_none() && state.error.is_none());
    assert_eq!(state.dir, dir.display().to_string());
    // The document it came from is what is served already, and the next one has
    // the next number.
    assert!(matches!(
        process.fixture.apply(&version("b")),
        Applied::Unchanged
    ));
    process.apply("c", 11);
    assert_eq!(process.serves(), ("c".to_owned(), 3));
    process.promote(41);
    assert!(process.status().promoted);
    assert_eq!(process.status().promoted_generation, Some(3));
    assert_eq!(
        process.fixture.metric("cellgate_state_generation"),
        Some(3.0)
    );
    process.end();
    assert!(Process::start(&dir, 50).status().promoted);
}

#[test]
fn nobody_else_can_read_the_tables() {
    let (_keep, dir) = dir();
    Process::serving(&dir, "a", 0).end();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o077;
    assert_eq!(mode(&dir), 0);
    for name in ["journal.json", "lock", &name(1)] {
        assert_eq!(mode(&dir.join(name)), 0, "{name}");
    }
}

#[test]
fn a_damaged_table_is_skipped() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, "a", 0);
    process.apply("b", 1);
    process.apply("c", 2);
    process.end();
    let file = |number| dir.join(name(number));
    let whole = fs::read(file(3)).unwrap();
    fs::write(file(3), &whole[..whole.len() / 2]).unwrap();
    let process = Process::start(&dir, 10);
    assert_eq!(process.serves(), ("b".to_owned(), 2));
    // Numbers are not used twice.
    process.apply("d", 11);
    assert_eq!(process.serves().1, 4);
    process.end();

    for number in [1, 2, 4] {
        fs::write(file(number), "").unwrap();
    }
    assert!(!Process::start(&dir, 20).recalled);
}

#[test]
fn a_table_under_the_wrong_name_is_skipped() {
    let (_keep, dir) = dir();
    Process::serving(&dir, "a", 0).end();
    fs::rename(dir.join(name(1)), dir.join(name(2))).unwrap();
    assert!(!Process::start(&dir, 1).recalled);
}

#[test]
fn without_its_journal_the_newest_is_served() {
    for content in [None, Some(""), Some("{}"), Some("nonsense")] {
        let (_keep, dir) = dir();
        let process = Process::serving(&dir, "a", 0);
        process.apply("b", 1);
        process.end();
        let journal = dir.join("journal.json");
        match content {
            None => fs::remove_file(&journal).unwrap(),
            Some(content) => fs::write(&journal, content).unwrap(),
        }
        let process = Process::start(&dir, 2);
        assert_eq!(process.serves(), ("b".to_owned(), 2), "{content:?}");
    }
}

#[test]
fn when_a_control_plane_was_last_heard_is_remembered() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, "a", 0);
    let edge = &process.fixture.state;
    assert!(
        edge.first_heard().elapsed().as_secs() < 900,
        "it is not known"
    );
    let heard = Instant::now()
        .checked_sub(Duration::from_secs(1000))
        .unwrap();
    edge.show_connection(Connection {
        state: ConnectionState::Disconnected,
        url: String::new(),
        dialect: Some("m3"),
        control_id: None,
        since: at(0),
        heard,
        newest: None,
        retries: 1,
        last_error: None,
    });
    assert!(process.memory.note_contact());
    process.crash();
    for _ in 0..2 {
        let process = Process::start(&dir, 10);
        let ago = process.fixture.state.first_heard().elapsed().as_secs();
        assert!((999..1100).contains(&ago), "{ago} s");
        process.end();
    }
}

#[test]
fn a_table_that_crashes_the_edge_is_given_up() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, "a", 0);
    process.promote(30);
    process.apply("b", 40);
    process.crash();
    let process = Process::start(&dir, 42);
    assert_eq!(process.serves().0, "b", "once may be chance");
    process.crash();

    let process = Process::start(&dir, 44);
    assert_eq!(process.serves(), ("a".to_owned(), 1));
    let fallback = Fallback {
        from: 2,
        to: 1,
        why: "twice within a minute, the edge crashed before generation 2 had served for 30s"
            .to_owned(),
    };
    assert_eq!(process.status().fallback, Some(fallback.clone()));
    assert_eq!(process.fixture.metric("cellgate_state_fallback"), Some(1.0));
    // Whoever sent it sends it again.
    match process.fixture.apply(&version("b")) {
        Applied::Refused(problems) => {
            let message = problems[0].to_string();
            assert!(
                message.starts_with("this is what was this edge's generation 2 (digest "),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(process.serves().0, "a");
    process.end();

    // It is remembered, and a good table ends it.
    let process = Process::start(&dir, 4000);
    assert_eq!(process.serves(), ("a".to_owned(), 1));
    assert_eq!(process.status().fallback, Some(fallback));
    process.apply("c", 4001);
    assert_eq!(process.serves(), ("c".to_owned(), 3));
    assert_eq!(process.status().fallback, None);
    assert_eq!(process.fixture.metric("cellgate_state_fallback"), Some(0.0));
    process.end();
    let process = Process::start(&dir, 4010);
    assert_eq!(process.status().fallback, None);
    let again = process.fixture.apply(&version("b"));
    assert!(matches!(again, Applied::Refused(_)), "{again:?}");
}

#[test]
fn for_want_of_another_a_condemned_table_is_served() {
    let (_keep, dir) = dir();
    Process::serving(&dir, "a", 0).crash();
    Process::start(&dir, 1).crash();
    let process = Process::start(&dir, 2);
    assert!(!process.recalled);
    assert!(process.memory.recall_condemned(at(2)));
    process.memory.started(at(2));
    assert_eq!(process.serves(), ("a".to_owned(), 1));
    assert_eq!(process.status().fallback, None, "it is no other table");
    process.promote(40);
    process.end();
    assert!(Process::start(&dir, 50).recalled, "it proved to be good");
}

#[test]
fn so_many_generations_are_kept() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, "0", 0);
    process.promote(30);
    for number in 1..=9 {
        process.apply(&number.to_string(), 30 + number);
    }
    let expected: Vec<String> = [1, 7, 8, 9, 10].map(name).into();
    assert_eq!(files(&dir), expected);
}

#[test]
fn two_processes_do_not_write_at_once() {
    let (_keep, dir) = dir();
    let old = Process::serving(&dir, "a", 0);
    // Started for an upgrade: the old one is alive, so it did not crash.
    let new = Process::start(&dir, 1);
    assert_eq!(new.serves(), ("a".to_owned(), 1));
    assert!(!new.store(2));
    let error = new.status().error.unwrap();
    assert!(error.starts_with("another process has it"), "{error}");
    old.apply("b", 3);
    old.end();
    new.fixture.changed(&version("c"));
    assert!(new.store(4));
    assert_eq!(new.status().error, None);
    new.crash();
    let next = Process::start(&dir, 5);
    assert_eq!(next.serves().0, "c");
}

#[test]
fn what_cannot_be_written_is_said_and_tried_again() {
    let above = tempfile::tempdir().unwrap();
    let missing = above.path().join("not there");
    let dir = missing.join("state");
    let process = Process::start(&dir, 0);
    assert!(!process.recalled);
    process.fixture.changed(&version("a"));
    process.memory.started(at(0));
    assert!(!process.store(0));
    let error = process.status().error.unwrap();
    assert!(error.starts_with("No such file or directory"), "{error}");
    assert_eq!(process.fixture.metric("cellgate_state_error"), Some(1.0));
    assert_eq!(process.status().stored_generation, None);
    fs::create_dir(&missing).unwrap();
    assert!(process.store(1));
    assert_eq!(process.status().error, None);
    assert_eq!(process.status().stored_generation, Some(1));
    assert_eq!(process.fixture.metric("cellgate_state_error"), Some(0.0));
}

#[test]
fn a_table_that_is_too_large_is_not_kept() {
    let (_keep, dir) = dir();
    let fixture = Fixture::new();
    let options = super::MemoryOptions {
        dir: dir.clone(),
        // Of which there are 64 KiB more.
        max_bytes: 100,
        promote_after: std::time::Duration::from_secs(30),
    };
    let memory = Memory::open(options, Arc::clone(&fixture.state), at(0));
    let small = fixture.changed(&version("a"));
    memory.started(at(0));
    assert!(memory.note(&small, at(0)) && memory.store(&small));
    let keys: Vec<String> = (0..5000).map(|key| format!("key-{key:010}")).collect();
    let keys: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "one")).collect();
    let large = super::document("b", &[("one", "http://127.0.0.1:1")], &keys);
    let large = fixture.changed(&large);
    assert!(memory.note(&large, at(1)) && !memory.store(&large));
    let error = fixture.state.status().state.unwrap().error.unwrap();
    assert!(error.contains("limits.routing_file_bytes"), "{error}");
    assert_eq!(files(&dir), [name(1)]);
    assert!(!dir.join(".new").exists());
}
