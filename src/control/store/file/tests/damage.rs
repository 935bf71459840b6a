//! Files that a crash cut off, or that something else changed.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::super::history::History;
use super::{Fixture, copy, read};
use crate::control::core::tests::document;
use crate::control::store::Record;
use crate::table;

fn database(dir: &Path) -> PathBuf {
    dir.join("cellgate.db")
}

fn log(dir: &Path) -> PathBuf {
    dir.join("cellgate.db-wal")
}

/// Four generations in the database and three in the write-ahead log. The store is still
/// open: closing it would empty the log.
fn in_both_files() -> (Fixture, History) {
    let mut fixture = Fixture::with_changes(3);
    let mut history = fixture.open();
    fixture.set_many(&mut history, 3);
    assert!(fs::metadata(log(&fixture.dir())).unwrap().len() > 0);
    (fixture, history)
}

/// Adds one more, and looks whether the next process has it.
#[track_caller]
fn goes_on(fixture: &Fixture, mut history: History, dir: &Path) {
    let mut scratch = Fixture::new();
    match history.newest() {
        Some(_) => scratch.set(&mut history, "one more", "one"),
        None => scratch.found(&mut history),
    }
    let last = &scratch.generations[0];
    drop(history);
    let history = fixture.try_open(dir).unwrap();
    let newest = history.newest().unwrap();
    assert_eq!(newest.record, last.record);
    assert_eq!(newest.table.digest(), last.table.digest());
}

/// Whether `history` is one that the store can come back with: what was committed, up to
/// some generation, and if acknowledged ones after that are lost, the last of it again
/// under a number above them.
#[track_caller]
fn assert_prefix(fixture: &Fixture, history: &History, acknowledged: u64) -> usize {
    let Some(newest) = history.newest() else {
        assert_eq!(acknowledged, 0);
        return 0;
    };
    let restored = newest.record.author.who == "store";
    let last = match restored {
        true => newest.record.parent,
        false => newest.record.generation,
    };
    let good = &fixture.generations[last as usize - 1];
    assert_eq!(newest.table.digest(), good.table.digest());
    match restored {
        true => assert!(newest.record.generation > acknowledged.max(last)),
        false => {
            assert_eq!(newest.record, good.record);
            assert!(last >= acknowledged, "{last} {acknowledged}");
        }
    }
    // Of all others, what is read is right, or it is refused.
    for generation in &fixture.generations {
        if let Ok(Some(read)) = read(history, generation.record.generation) {
            assert_eq!(read.record, generation.record);
            assert_eq!(read.table.digest(), generation.table.digest());
        }
    }
    last as usize
}

fn cut(path: &Path, length: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(length).unwrap();
}

/// Inverts a byte.
fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

#[test]
fn a_crash_leaves_all_that_was_acknowledged() {
    let (fixture, history) = in_both_files();
    let copy = copy(&fixture.dir());
    let crashed = fixture.try_open(copy.path()).unwrap();
    fixture.assert_has(&crashed, 7);
    goes_on(&fixture, crashed, copy.path());
    drop(history);
}

/// A power failure in the middle of a commit: the log ends anywhere, and the number of the
/// newest acknowledged generation is that of a commit that is whole.
#[test]
fn wherever_a_write_was_cut_off_what_was_acknowledged_is_there() {
    let (fixture, _history) = in_both_files();
    let length = fs::metadata(log(&fixture.dir())).unwrap().len();
    let mut seen = Vec::new();
    for at in (0..=length).step_by(331).chain([length]) {
        let copy = copy(&fixture.dir());
        cut(&log(copy.path()), at);
        fs::remove_file(copy.path().join("lock")).unwrap();
        let opened = fixture.try_open(copy.path()).unwrap();
        let last = assert_prefix(&fixture, &opened, 4);
        fixture.assert_has(&opened, last);
        if !seen.contains(&last) {
            seen.push(last);
            goes_on(&fixture, opened, copy.path());
        }
    }
    assert_eq!(seen, [4, 5, 6, 7]);
}

/// As is left of the very first commits: all of it is in the log.
#[test]
fn wherever_the_first_writes_were_cut_off_there_is_a_store() {
    let mut fixture = Fixture::new();
    let mut history = fixture.open();
    fixture.found(&mut history);
    fixture.set_many(&mut history, 1);
    let length = fs::metadata(log(&fixture.dir())).unwrap().len();
    let mut seen = Vec::new();
    for at in (0..=length).step_by(509).chain([length]) {
        let copy = copy(&fixture.dir());
        cut(&log(copy.path()), at);
        fs::remove_file(copy.path().join("lock")).unwrap();
        let opened = fixture.try_open(copy.path()).unwrap();
        let last = assert_prefix(&fixture, &opened, 0);
        if !seen.contains(&last) {
            seen.push(last);
            goes_on(&fixture, opened, copy.path());
        }
    }
    assert_eq!(seen, [0, 1, 2]);
}

/// SQLite takes a damaged log for one that ends earlier. What was acknowledged after that
/// is known to be lost, and its number is not used again.
#[test]
fn whatever_byte_of_the_log_is_wrong_what_is_left_comes_back_above_all_that_was() {
    let (fixture, _history) = in_both_files();
    let length = fs::metadata(log(&fixture.dir())).unwrap().len();
    let mut seen = Vec::new();
    for at in (0..length).step_by(397) {
        let copy = copy(&fixture.dir());
        flip(&log(copy.path()), at);
        let opened = fixture.try_open(copy.path()).unwrap();
        let last = assert_prefix(&fixture, &opened, 7);
        let newest = &opened.newest().unwrap().record;
        if last < 7 {
            assert_eq!(
                (newest.generation, newest.parent),
                (8, last as u64),
                "byte {at}"
            );
        }
        if !seen.contains(&last) {
            seen.push(last);
            goes_on(&fixture, opened, copy.path());
        }
    }
    seen.sort_unstable();
    assert!(seen.starts_with(&[4, 5, 6]), "{seen:?}");
}

#[test]
fn whatever_is_left_of_the_database_is_no_other_than_was_stored() {
    let (fixture, _history) = in_both_files();
    let length = fs::metadata(database(&fixture.dir())).unwrap().len();
    let mut refused = 0;
    for at in (0..length).step_by(1021) {
        let copy = copy(&fixture.dir());
        cut(&database(copy.path()), at);
        match fixture.try_open(copy.path()) {
            Ok(opened) => drop(assert_prefix(&fixture, &opened, 7)),
            Err(why) => {
                assert!(why.contains("cellgate.db: "), "{why}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
}

#[test]
fn whatever_byte_of_the_database_is_wrong_no_other_content_comes_of_it() {
    let fixture = Fixture::with_changes(6);
    let length = fs::metadata(database(&fixture.dir())).unwrap().len();
    let (mut refused, mut restored) = (0, 0);
    for at in (0..length).step_by(61) {
        let copy = copy(&fixture.dir());
        flip(&database(copy.path()), at);
        match fixture.try_open(copy.path()) {
            Ok(opened) => {
                let last = assert_prefix(&fixture, &opened, 7);
                if last < 7 {
                    restored += 1;
                    goes_on(&fixture, opened, copy.path());
                }
            }
            Err(why) => {
                assert!(why.contains("cellgate.db: "), "byte {at}: {why}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && restored > 0, "{refused} {restored}");
}

/// Changes the database by `sql`, as a bad disk may, or somebody with `sqlite3`.
fn tamper(fixture: &Fixture, sql: &str) -> tempfile::TempDir {
    let copy = copy(&fixture.dir());
    let connection = Connection::open(database(copy.path())).unwrap();
    connection
        .pragma_update(None, "foreign_keys", false)
        .unwrap();
    connection
        .pragma_update(None, "ignore_check_constraints", true)
        .unwrap();
    assert!(connection.execute(sql, ()).unwrap() > 0, "{sql}");
    copy
}

#[test]
fn a_generation_that_is_damaged_leaves_the_one_before() {
    let fixture = Fixture::with_changes(4);
    for sql in [
        "UPDATE content SET bytes = x'7b7d' WHERE generation = 4",
        "DELETE FROM content WHERE generation = 4",
        "DELETE FROM generation WHERE number = 4",
        "UPDATE generation SET author = 'somebody' WHERE number = 4",
        "UPDATE generation SET time = 'never' WHERE number = 4",
        "UPDATE generation SET keys = -1 WHERE number = 4",
        "UPDATE generation SET digest = replace(digest, substr(digest, 1, 1), 'f') WHERE number = 4",
        "UPDATE generation SET parent = 2 WHERE number = 4",
        "UPDATE generation SET content = 'table' WHERE number = 4",
        "UPDATE generation SET content_bytes = 1 WHERE number = 4",
    ] {
        let copy = tamper(&fixture, sql);
        let history = fixture.try_open(copy.path()).unwrap();
        let newest = history.newest().unwrap();
        assert_eq!(
            (newest.record.generation, newest.record.parent),
            (6, 3),
            "{sql}"
        );
        assert_eq!(newest.record.author.who, "store");
        let third = &fixture.generations[2];
        assert_eq!(newest.table.digest(), third.table.digest(), "{sql}");
        // The rows that are damaged stay as they are, and are not believed.
        assert!(!matches!(read(&history, 5), Ok(Some(_))), "{sql}");
        assert_eq!(read(&history, 3).unwrap().unwrap().record, third.record);
        goes_on(&fixture, history, copy.path());
    }
}

#[test]
fn a_table_that_is_damaged_leaves_the_one_before() {
    let mut fixture = Fixture::with_changes(2);
    let mut history = fixture.open();
    let table = table::compile(&document("2", &[("new", "one")])).unwrap();
    fixture.append(&mut history, table.into(), None).unwrap();
    fixture.set(&mut history, "newer", "two");
    drop(history);
    let copy = tamper(
        &fixture,
        "UPDATE content SET bytes = x'7b7d' WHERE generation = 4",
    );
    let opened = fixture.try_open(copy.path()).unwrap();
    let newest = &opened.newest().unwrap().record;
    assert_eq!((newest.generation, newest.parent), (6, 3));
    goes_on(&fixture, opened, copy.path());
    // Of an older run, only what was in it is gone.
    let copy = tamper(
        &fixture,
        "UPDATE content SET bytes = x'7b7d' WHERE generation = 1",
    );
    let opened = fixture.try_open(copy.path()).unwrap();
    assert_eq!(
        opened.newest().unwrap().record,
        fixture.generations[4].record
    );
    assert!(read(&opened, 4).unwrap().is_some());
    let broken = read(&opened, 2).unwrap_err();
    assert_eq!(broken.generation, 1);
}

#[test]
fn nothing_that_can_be_read_is_refused() {
    let fixture = Fixture::with_changes(2);
    for sql in [
        "DELETE FROM content",
        "DELETE FROM content WHERE generation = 1",
    ] {
        let copy = tamper(&fixture, sql);
        let refused = fixture.try_open(copy.path()).unwrap_err();
        assert!(
            refused.contains("none of its generations can be read"),
            "{refused}"
        );
    }
    let copy = tamper(&fixture, "DELETE FROM generation");
    let refused = fixture.try_open(copy.path()).unwrap_err();
    assert!(
        refused.contains("generation 3 was acknowledged"),
        "{refused}"
    );
}

/// SQLite would remove the log of an empty database, and all would be gone.
#[test]
fn a_database_that_is_gone_is_not_begun_anew() {
    let (fixture, _history) = in_both_files();
    for gone in [true, false] {
        let copy = copy(&fixture.dir());
        match gone {
            true => fs::remove_file(database(copy.path())).unwrap(),
            false => cut(&database(copy.path()), 0),
        }
        let before = fs::read(log(copy.path())).unwrap();
        let refused = fixture.try_open(copy.path()).unwrap_err();
        assert!(
            refused.contains("generation 7 was acknowledged"),
            "{refused}"
        );
        assert_eq!(fs::read(log(copy.path())).unwrap(), before);
    }
}

/// A damaged content, and a damaged page that nobody has read yet: what is left is not
/// written into.
#[test]
fn a_database_whose_structure_is_damaged_is_left_as_it_is() {
    let fixture = Fixture::with_changes(4);
    let copy = tamper(
        &fixture,
        "UPDATE content SET bytes = x'7b7d' WHERE generation = 4",
    );
    // In the header: the number of pages that are free.
    flip(&database(copy.path()), 39);
    let before = fs::read(database(copy.path())).unwrap();
    let refused = fixture.try_open(copy.path()).unwrap_err();
    assert!(refused.contains("it is damaged: "), "{refused}");
    assert_eq!(fs::read(database(copy.path())).unwrap(), before);
}

#[test]
fn a_generation_whose_content_is_not_its_digest_is_not_believed() {
    let mut fixture = Fixture::with_changes(1);
    let mut history = fixture.open();
    let newest = history.newest().unwrap().clone();
    // A delta that does not lead to the table that it comes with.
    let other = table::compile(&document("1", &[("acme", "two")])).unwrap();
    fixture
        .append(&mut history, other.into(), Some(Default::default()))
        .unwrap();
    drop(history);
    let history = fixture.open();
    let record: &Record = &history.newest().unwrap().record;
    assert_eq!(record.generation, 4);
    assert_eq!(record.digest, newest.record.digest);
}

/// A backup that was put back beside the number of what was acknowledged since.
#[test]
fn a_backup_that_is_restored_in_place_comes_back_above_what_was_lost() {
    let mut fixture = Fixture::with_changes(2);
    let copy = copy(&fixture.dir());
    let mut history = fixture.open();
    fixture.set_many(&mut history, 4);
    drop(history);
    fs::copy(database(copy.path()), database(&fixture.dir())).unwrap();
    let history = fixture.open();
    let newest = &history.newest().unwrap().record;
    assert_eq!((newest.generation, newest.parent), (8, 3));
}
