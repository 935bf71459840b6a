//! What is kept, and for how long.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::super::tail::Tail;
use super::super::{FileOptions, FileStore};
use super::{Fixture, commit, copy, read, segments};
use crate::control::core::tests::document;
use crate::control::store::{AppendError, News, Store};
use crate::protocol::Mark;
use crate::table::{self, Delta};

#[test]
fn a_directory_begins_empty() {
    let fixture = Fixture::new();
    let line = fixture.open();
    assert!(line.newest().is_none());
    assert!(line.records(None, 10).is_empty());
    assert!(matches!(line.since(0), Ok(News::Nothing)));
    assert!(read(&line, 1).unwrap().is_none());
}

#[test]
fn a_restart_finds_everything() {
    let mut fixture = Fixture::with_changes(5);
    let mut line = fixture.open();
    fixture.assert_has(&line, 6);
    fixture.set(&mut line, "acme", "two");
    // Another head, and a key with signs in it that JSON escapes.
    let head = line
        .newest()
        .unwrap()
        .table
        .head_json()
        .replace(":1\"", ":3\"");
    fixture.change(
        &mut line,
        Delta {
            head: Some(head),
            set: vec![("a \"key\" of ütf-8".to_owned(), "one".to_owned())],
            remove: vec!["acme".to_owned()],
        },
    );
    drop(line);
    fixture.assert_has(&fixture.open(), 8);
}

#[test]
fn nobody_else_can_read_the_tables() {
    let fixture = Fixture::with_changes(1);
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o077;
    assert_eq!(mode(fixture.dir()), 0);
    for name in ["lock", "00000000000000000001.segment"] {
        assert_eq!(mode(fixture.dir().join(name)), 0, "{name}");
    }
}

#[test]
fn only_what_is_made_of_the_newest_is_added() {
    let mut fixture = Fixture::with_changes(2);
    let mut line = fixture.open();
    let newest = line.newest().unwrap().clone();
    let mark = newest.record.mark();
    let mut parents: Vec<Option<Mark>> = [1, 2, 4]
        .map(|generation| Some(Mark { generation, ..mark }))
        .into();
    // The number of the newest, and another content.
    let digest = fixture.generations[0].record.digest;
    parents.extend([None, Some(Mark { digest, ..mark })]);
    for parent in parents {
        let late = commit(parent, 9, newest.table.clone(), Some(Delta::default()));
        assert_eq!(line.append(&late), Err(AppendError::Conflict), "{parent:?}");
    }
    fixture.set(&mut line, "acme", "two");
    // Numbers may leave some out.
    let fourth = line.newest().unwrap().clone();
    let far = commit(
        Some(fourth.record.mark()),
        700,
        fourth.table,
        Some(Delta::default()),
    );
    assert_eq!(line.append(&far), Ok(()));
    drop(line);
    let numbers = |line: &super::Line| -> Vec<u64> {
        let records = line.records(None, 3);
        records.iter().map(|record| record.generation).collect()
    };
    assert_eq!(numbers(&fixture.open()), [700, 4, 3]);
}

#[test]
fn what_follows_on_a_generation() {
    let fixture = Fixture::with_changes(3);
    let line = fixture.open();
    match line.since(2).unwrap() {
        News::Steps(steps) => {
            let numbers: Vec<u64> = steps.iter().map(|(record, _)| record.generation).collect();
            assert_eq!(numbers, [3, 4]);
            let base = read(&line, 2).unwrap().unwrap().table;
            let mut table = base;
            for (_, delta) in steps {
                table = table.apply(&delta).unwrap().into();
            }
            assert_eq!(table.digest(), fixture.generations[3].table.digest());
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(line.since(4).unwrap(), News::Nothing));
    assert!(matches!(line.since(0).unwrap(), News::Whole(_)));
    // Not one of the line's.
    let fixture = Fixture::with_changes(0);
    let mut line = fixture.open();
    let first = line.newest().unwrap().clone();
    let far = commit(
        Some(first.record.mark()),
        9,
        first.table,
        Some(Delta::default()),
    );
    line.append(&far).unwrap();
    assert!(matches!(line.since(5).unwrap(), News::Whole(_)));
}

#[test]
fn pages_of_records() {
    let fixture = Fixture::with_changes(5);
    let line = fixture.open();
    let page = |before, limit| -> Vec<u64> {
        let records = line.records(before, limit);
        records.iter().map(|record| record.generation).collect()
    };
    assert_eq!(page(None, 2), [6, 5]);
    assert_eq!(page(Some(5), 2), [4, 3]);
    assert_eq!(page(Some(2), 9), [1]);
    assert!(page(Some(1), 9).is_empty());
}

/// A delta that sets many keys, some 5 KB of it.
fn large(round: usize) -> Delta {
    let keys = (0..100).map(|key| format!("a-key-that-is-rather-long-{key:010}"));
    let home = ["one", "two"][round % 2];
    Delta {
        set: keys.map(|key| (key, home.to_owned())).collect(),
        ..Delta::default()
    }
}

#[test]
fn changes_that_outweigh_the_table_begin_a_new_segment() {
    let mut fixture = Fixture::with_changes(0);
    let mut line = fixture.open();
    line.least = 20_000;
    for round in 0..20 {
        fixture.change(&mut line, large(round));
    }
    assert!(segments(&fixture.dir()).len() >= 3);
    fixture.assert_has(&line, 21);
    drop(line);
    fixture.assert_has(&fixture.open(), 21);
}

#[test]
fn old_segments_go_when_there_is_history_enough() {
    let mut fixture = Fixture::with_changes(0);
    fixture.history = 2;
    let mut line = fixture.open();
    line.least = 20_000;
    for round in 0..20 {
        fixture.change(&mut line, large(round));
        let kept = line.records(None, usize::MAX).len();
        assert!(kept >= 2.min(round + 2), "{kept} after {round}");
    }
    assert!(line.records(None, usize::MAX).len() < 12);
    assert!(read(&line, 1).unwrap().is_none());
    assert!(segments(&fixture.dir()).len() <= 2);
    drop(line);
    let line = fixture.open();
    assert_eq!(line.newest().unwrap().record.generation, 21);
}

/// As a crash leaves it between a new segment and the removal of an old one, or
/// in the middle of writing a new one.
#[test]
fn segments_that_overlap_or_were_never_finished() {
    let fixture = Fixture::with_changes(3);
    let copy = copy(&fixture.dir());
    let directory = super::super::directory::Directory::open(copy.path()).unwrap();
    let other = table::compile(&document("other", &[("acme", "two")])).unwrap();
    let third = fixture.generations[2].record.mark();
    let other = commit(Some(third), 4, other.into(), None);
    let other = crate::control::store::Generation {
        record: other.record,
        table: other.table,
    };
    Tail::begin(&directory, &other).unwrap();
    drop(directory);
    fs::write(copy.path().join(".segment.new"), "half a segment").unwrap();
    let mut line = fixture.try_open(copy.path()).unwrap();
    assert_eq!(line.newest().unwrap().record, other.record);
    let numbers: Vec<u64> = line.records(None, 9).iter().map(|r| r.generation).collect();
    assert_eq!(numbers, [4, 3, 2, 1]);
    let read = read(&line, 4).unwrap().unwrap();
    assert_eq!(read.table.version(), "other");
    let next = commit(Some(other.record.mark()), 5, other.table, None);
    assert_eq!(line.append(&next), Ok(()));
}

#[tokio::test]
async fn a_directory_is_for_one() {
    let above = tempfile::tempdir().unwrap();
    let options = FileOptions {
        data_dir: above.path().join("data"),
        history: 10,
        history_bytes: u64::MAX,
    };
    let store = FileStore::open(options.clone()).unwrap();
    let refused = FileStore::open(options.clone()).map(|_| ()).unwrap_err().0;
    assert!(refused.contains("another control plane"), "{refused}");
    assert!(store.newest().await.unwrap().is_none());
    drop(store);
    FileStore::open(options).unwrap();
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let options = FileOptions {
        data_dir: "/proc/cellgate".into(),
        history: 10,
        history_bytes: u64::MAX,
    };
    let refused = FileStore::open(options).map(|_| ()).unwrap_err().0;
    assert!(
        refused.starts_with("/proc/cellgate: cannot be made: "),
        "{refused}"
    );
}
