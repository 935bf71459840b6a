//! Restarts, crashes and upgrades.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::Fallback;
use super::super::database::FILE;
use super::super::schedule::{Outcome, Step};
use super::process::{Process, dir, open, snapshots, sql};
use super::{Fixture, at, document, version};
use crate::state::{Applied, Connection, ConnectionState};

#[test]
fn a_restart_serves_what_was_served_last() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, &version("a"), 0);
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
    // The document that it came from is served already; the next one gets the next number.
    assert!(matches!(
        process.fixture.apply(&version("b")),
        Applied::Unchanged
    ));
    process.apply("c", 11);
    assert_eq!(process.serves(), ("c".to_owned(), 3));
    process.promote();
    assert!(process.status().promoted);
    assert_eq!(process.status().promoted_generation, Some(3));
    assert_eq!(
        process.fixture.metric("cellgate_state_generation"),
        Some(3.0)
    );
    process.end();
    assert!(Process::start(&dir, 50).status().promoted);
}

/// SQLite's locks do not survive a fork: another process would remove the write-ahead log of
/// a database that it takes for unused.
#[test]
fn a_daemon_opens_the_database_again_after_its_fork() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, &version("a"), 0);
    process.state_dir.close_before_fork();
    let database = dir.join(FILE).canonicalize().unwrap();
    let open_here = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(Result::ok);
    let mut open_here = open_here.filter_map(|fd| fs::read_link(fd.path()).ok());
    assert!(!open_here.any(|path| path == database), "it is still open");
    assert_eq!(snapshots(&dir), [1], "another process reads it");
    process.apply("b", 5);
    assert!(process.status().error.is_none());
    process.end();
    let process = Process::start(&dir, 10);
    assert_eq!(process.serves(), ("b".to_owned(), 2));
    process.state_dir.close_before_fork();
    // An orderly end before the next write is no crash either.
    process.end();
    assert_eq!(Process::start(&dir, 11).serves(), ("b".to_owned(), 2));
}

#[test]
fn nobody_else_can_read_the_tables() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, &version("a"), 0);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o077;
    assert_eq!(mode(&dir), 0);
    let files = fs::read_dir(&dir).unwrap();
    let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    assert!(files.len() > 2, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0, "{file:?}");
    }
    process.end();
}

#[test]
fn without_its_journal_the_newest_is_served() {
    for statement in [
        "DELETE FROM journal",
        "UPDATE journal SET record = '{}'",
        "UPDATE journal SET record = replace(record, '2026', '2027')",
    ] {
        let (_keep, dir) = dir();
        let process = Process::serving(&dir, &version("a"), 0);
        process.apply("b", 1);
        process.end();
        sql(&dir, statement);
        let process = Process::start(&dir, 2);
        assert_eq!(process.serves(), ("b".to_owned(), 2), "{statement}");
    }
}

#[test]
fn the_last_contact_with_the_control_plane_survives_a_restart() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, &version("a"), 0);
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
    assert_eq!(process.take(Step::Contact, 0), Outcome::Done);
    process.crash();
    for _ in 0..2 {
        let process = Process::start(&dir, 10);
        let ago = process.fixture.state.first_heard().elapsed().as_secs();
        assert!((999..1100).contains(&ago), "{ago} s");
        process.end();
    }
}

#[test]
fn a_table_that_crashes_the_edge_twice_is_quarantined() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, &version("a"), 0);
    process.promote();
    process.apply("b", 40);
    process.crash();
    let process = Process::start(&dir, 42);
    assert_eq!(process.serves().0, "b", "one crash may be chance");
    process.crash();

    let process = Process::start(&dir, 44);
    assert_eq!(process.serves(), ("a".to_owned(), 1));
    let fallback = Fallback {
        from: 2,
        to: 1,
        why: "the edge crashed twice within a minute before generation 2 had served for 30s"
            .to_owned(),
    };
    assert_eq!(process.status().fallback, Some(fallback.clone()));
    assert_eq!(process.fixture.metric("cellgate_state_fallback"), Some(1.0));
    // The source sends it again.
    match process.fixture.apply(&version("b")) {
        Applied::Refused(problems) => {
            let message = problems[0].to_string();
            assert!(
                message.starts_with("the content is that of this edge's generation 2 (digest "),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(process.serves().0, "a");
    process.end();

    // That survives a restart, and ends with another table.
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
fn without_another_table_a_quarantined_one_is_served() {
    let (_keep, dir) = dir();
    Process::serving(&dir, &version("a"), 0).crash();
    Process::start(&dir, 1).crash();
    let process = Process::start(&dir, 2);
    assert!(!process.restored);
    assert!(process.state_dir.restore_quarantined(at(2)));
    process.state_dir.started(at(2));
    assert_eq!(process.serves(), ("a".to_owned(), 1));
    assert_eq!(process.status().fallback, None, "it is the same table");
    process.promote();
    process.end();
    assert!(Process::start(&dir, 50).restored, "it was promoted");
}

#[test]
fn five_snapshots_are_kept() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, &version("0"), 0);
    process.promote();
    for number in 1..=9 {
        process.apply(&number.to_string(), 30 + number);
    }
    process.end();
    assert_eq!(snapshots(&dir), [1, 7, 8, 9, 10]);
}

#[test]
fn one_process_may_write_at_a_time() {
    let (_keep, dir) = dir();
    let old = Process::serving(&dir, &version("a"), 0);
    // The new process of an upgrade: the old one is alive, so it did not crash.
    let new = Process::start(&dir, 1);
    assert_eq!(new.serves(), ("a".to_owned(), 1));
    assert!(!new.store(2));
    let error = new.status().error.unwrap();
    assert!(
        error.starts_with("another process holds the lock"),
        "{error}"
    );
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
fn a_failed_write_is_shown_and_retried() {
    let above = tempfile::tempdir().unwrap();
    let missing = above.path().join("missing");
    let dir = missing.join("state");
    let process = Process::start(&dir, 0);
    assert!(!process.restored);
    process.fixture.changed(&version("a"));
    process.state_dir.started(at(0));
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

/// Otherwise what is written would be lost with the file.
#[test]
fn a_directory_that_is_replaced_while_the_edge_runs_is_written_anew() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, &version("a"), 0);
    process.promote();
    fs::remove_dir_all(&dir).unwrap();
    process.apply("b", 1);
    assert_eq!(process.status().error, None);
    process.end();
    assert_eq!(snapshots(&dir), [2]);
    let process = Process::start(&dir, 2);
    assert_eq!(process.serves(), ("b".to_owned(), 2));
    assert_eq!(process.status().promoted_generation, Some(1));
}

#[test]
fn a_table_that_is_too_large_is_not_kept() {
    let (_keep, dir) = dir();
    let fixture = Fixture::new();
    // The limit of the written document is 64 KiB higher.
    let state_dir = open(&dir, &fixture.state, 100, 0);
    let small = fixture.changed(&version("a"));
    state_dir.started(at(0));
    let take = |step, generation| state_dir.take(step, generation, at(0));
    assert_eq!(take(Step::Journal, &small), Outcome::Done);
    assert_eq!(take(Step::Snapshot, &small), Outcome::Done);
    let keys: Vec<String> = (0..5000).map(|key| format!("key-{key:010}")).collect();
    let keys: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "one")).collect();
    let large = document("b", &[("one", "http://127.0.0.1:1")], &keys);
    let large = fixture.changed(&large);
    assert_eq!(take(Step::Journal, &large), Outcome::Done);
    assert_eq!(take(Step::Snapshot, &large), Outcome::Failed);
    let error = fixture.state.status().state.unwrap().error.unwrap();
    assert!(error.contains("limits.routing_file_bytes"), "{error}");
    state_dir.end();
    assert_eq!(snapshots(&dir), [1]);
}

/// Of an earlier version of Cellgate.
#[test]
fn files_of_the_old_format_are_neither_read_nor_removed() {
    let (_keep, dir) = dir();
    fs::create_dir(&dir).unwrap();
    let names = ["00000000000000000001.generation", "journal.json"];
    for name in names {
        fs::write(dir.join(name), "of another time").unwrap();
    }
    Process::serving(&dir, &version("a"), 0).end();
    assert!(names.iter().all(|name| dir.join(name).exists()));
    assert!(Process::start(&dir, 1).restored);
    assert!(dir.join(FILE).exists());
}
