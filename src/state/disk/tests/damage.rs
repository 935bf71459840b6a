//! Power loss at any byte, and damage at any byte.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::super::database::FILE;
use super::super::schedule::Outcome;
use super::process::{Process, damage_snapshot, dir, large, snapshots, sql};
use super::version;
use crate::state::Pushed;
use crate::table::Digest;

const LOG: &str = "state.db-wal";

/// Bytes between two places that are tried; a prime, so that all parts of a page are.
const STEP: usize = 997;

/// Copies the files of a running process, as a crash would leave them.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for name in [FILE, LOG] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

/// What a new process serves from the directory, if anything.
fn restored(dir: &Path) -> Option<Digest> {
    let process = Process::start(dir, 100);
    process.restored.then(|| process.digest())
}

#[test]
fn a_write_that_is_cut_off_at_any_byte_leaves_the_old_or_the_new_generation() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, &large("1"), 0);
    let mut known = vec![process.digest()];
    for (key, seconds) in [("a", 1), ("b", 2)] {
        process.add(key, seconds);
        known.push(process.digest());
    }
    let cut = dir.with_extension("cut");
    copy(&dir, &cut);
    let (database, log) = (
        fs::read(cut.join(FILE)).unwrap(),
        fs::read(cut.join(LOG)).unwrap(),
    );
    let mut found = Vec::new();
    for length in (0..=log.len()).step_by(STEP).chain([log.len()]) {
        fs::write(cut.join(FILE), &database).unwrap();
        fs::write(cut.join(LOG), &log[..length]).unwrap();
        let digest = restored(&cut).expect("a table");
        let nth = known.iter().position(|it| *it == digest);
        found.push(nth.expect("one that was stored"));
    }
    assert!(found.is_sorted(), "{found:?}");
    found.dedup();
    assert_eq!(found, [0, 1, 2]);
}

#[test]
fn a_snapshot_that_is_cut_off_leaves_the_generation_before() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, &large("1"), 0);
    let first = process.digest();
    process.fixture.changed(&large("2"));
    assert_eq!(process.keep(1), Outcome::NeedsSnapshot);
    let second = process.digest();
    let cut = dir.with_extension("cut");
    // A reader keeps the log from being emptied.
    let reader = rusqlite::Connection::open(dir.join(FILE)).unwrap();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM snapshots;")
        .unwrap();
    assert!(process.snapshot());
    copy(&dir, &cut);
    let (database, log) = (
        fs::read(cut.join(FILE)).unwrap(),
        fs::read(cut.join(LOG)).unwrap(),
    );
    let mut found = HashSet::new();
    for length in (0..=log.len()).step_by(STEP).chain([log.len()]) {
        fs::write(cut.join(FILE), &database).unwrap();
        fs::write(cut.join(LOG), &log[..length]).unwrap();
        found.insert(restored(&cut).expect("a table"));
    }
    assert_eq!(found, HashSet::from([first, second]));
}

#[test]
fn damage_at_any_byte_never_leads_to_another_table() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, &large("1"), 0);
    let mut known = HashSet::from([process.digest()]);
    process.fixture.changed(&large("2"));
    assert!(process.store(1));
    known.insert(process.digest());
    for (key, seconds) in [("a", 2), ("b", 3)] {
        process.add(key, seconds);
        known.insert(process.digest());
    }
    process.end();
    let whole = fs::read(dir.join(FILE)).unwrap();
    let mut nothing = 0;
    for place in (0..whole.len()).step_by(STEP) {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        for suffix in ["", "-wal", "-shm", ".unusable"] {
            let _ = fs::remove_file(dir.join(format!("{FILE}{suffix}")));
        }
        fs::write(dir.join(FILE), &bytes).unwrap();
        match restored(&dir) {
            Some(digest) => assert!(known.contains(&digest), "byte {place}"),
            None => nothing += 1,
        }
        // Whatever is damaged, the edge goes on and keeps its next table.
        let process = Process::start(&dir, 200);
        process.fixture.changed(&version("next"));
        assert!(
            process.store(201) || process.store(202),
            "byte {place}: {:?}",
            process.status().error
        );
        process.end();
        let process = Process::start(&dir, 300);
        assert_eq!(process.serves().0, "next", "byte {place}");
    }
    assert!(nothing < 20, "{nothing} of {} bytes", whole.len() / STEP);
}

#[test]
fn a_damaged_snapshot_is_skipped() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, &version("a"), 0);
    process.apply("b", 1);
    process.apply("c", 2);
    process.end();
    damage_snapshot(&dir, 3);
    let process = Process::start(&dir, 10);
    assert_eq!(process.serves(), ("b".to_owned(), 2));
    // Numbers are not used twice.
    process.apply("d", 11);
    assert_eq!(process.serves().1, 4);
    process.end();
    sql(&dir, "UPDATE snapshots SET bytes = x''");
    assert!(!Process::start(&dir, 20).restored);
}

#[test]
fn rows_under_the_wrong_number_are_skipped() {
    for statement in [
        "UPDATE generations SET number = 2; UPDATE snapshots SET generation = 2",
        "UPDATE snapshots SET generation = 2",
    ] {
        let (_keep, dir) = dir();
        Process::serving(&dir, &version("a"), 0).end();
        sql(&dir, statement);
        assert!(!Process::start(&dir, 1).restored, "{statement}");
    }
}

#[test]
fn a_database_that_cannot_be_used_is_moved_aside() {
    for (what, content) in [
        ("nonsense", vec![7; 20_000]),
        ("one page", vec![0xff; 4096]),
        ("another format", Vec::new()),
    ] {
        let (_keep, dir) = dir();
        Process::serving(&dir, &version("a"), 0).end();
        match content.is_empty() {
            true => sql(&dir, "PRAGMA user_version = 77"),
            false => fs::write(dir.join(FILE), &content).unwrap(),
        }
        let process = Process::start(&dir, 1);
        assert!(!process.restored, "{what}");
        process.fixture.changed(&version("b"));
        process.state_dir.started(super::at(1));
        assert!(process.store(1), "{what}");
        process.end();
        assert!(dir.join("state.db.unusable").exists(), "{what}");
        assert_eq!(Process::start(&dir, 2).serves().0, "b", "{what}");
    }
}

#[test]
fn an_empty_file_is_a_new_database() {
    let (_keep, dir) = dir();
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join(FILE), "").unwrap();
    let process = Process::serving(&dir, &version("a"), 0);
    assert!(matches!(process.push(&["x"]), Pushed::Changed(_)));
    process.end();
    assert_eq!(snapshots(&dir), [1]);
}
