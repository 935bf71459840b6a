//! What is kept, and for how long.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rusqlite::Connection;

use super::super::{FileOptions, FileStore};
use super::{Fixture, commit, read};
use crate::control::store::{AppendError, News, Store};
use crate::protocol::Mark;
use crate::table::{self, Delta};

#[test]
fn a_directory_begins_empty() {
    let fixture = Fixture::new();
    let history = fixture.open();
    fixture.assert_has(&history, 0);
    assert!(read(&history, 1).unwrap().is_none());
    assert!(read(&history, u64::MAX).unwrap().is_none());
}

#[test]
fn a_restart_finds_everything() {
    let mut fixture = Fixture::with_changes(5);
    let mut history = fixture.open();
    fixture.assert_has(&history, 6);
    fixture.set(&mut history, "acme", "two");
    // Another head, and a key with characters that JSON escapes.
    let head = history.newest().unwrap().table.head_json();
    let head = head.replace(":1\"", ":3\"");
    fixture.change(
        &mut history,
        Delta {
            head: Some(head),
            set: vec![("a \"key\" of ütf-8".to_owned(), "one".to_owned())],
            remove: vec!["acme".to_owned()],
        },
    );
    drop(history);
    fixture.assert_has(&fixture.open(), 8);
}

#[test]
fn a_content_of_many_parts() {
    let mut fixture = Fixture::with_changes(0);
    let mut history = fixture.open();
    let table = fixture.generations[0]
        .table
        .apply(&large(0, 60_000))
        .unwrap();
    fixture.append(&mut history, table.into(), None).unwrap();
    fixture.change(&mut history, large(1, 40_000));
    let parts = |generation: u64| -> u64 {
        let query = "SELECT count(*) FROM content WHERE generation = ?1";
        let connection = &history.database.connection;
        connection
            .query_row(query, [generation], |row| row.get(0))
            .unwrap()
    };
    assert_eq!((parts(2), parts(3)), (3, 2));
    fixture.assert_has(&history, 3);
    drop(history);
    fixture.assert_has(&fixture.open(), 3);
}

#[test]
fn nobody_else_can_read_the_tables() {
    let fixture = Fixture::with_changes(1);
    let _history = fixture.open();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o077;
    assert_eq!(mode(fixture.dir()), 0);
    for name in ["lock", "cellgate.db", "cellgate.db-wal", "cellgate.db-shm"] {
        assert_eq!(mode(fixture.dir().join(name)), 0, "{name}");
    }
}

#[test]
fn only_what_is_made_of_the_newest_is_added() {
    let mut fixture = Fixture::with_changes(2);
    let mut history = fixture.open();
    let newest = history.newest().unwrap().clone();
    let mark = newest.record.mark();
    let mut parents: Vec<Option<Mark>> = [1, 2, 4]
        .map(|generation| Some(Mark { generation, ..mark }))
        .into();
    // The number of the newest, and another content.
    let digest = fixture.generations[0].record.digest;
    parents.extend([None, Some(Mark { digest, ..mark })]);
    for parent in parents {
        let late = commit(parent, 9, newest.table.clone(), Some(Delta::default()));
        assert_eq!(
            history.append(&late),
            Err(AppendError::Conflict),
            "{parent:?}"
        );
    }
    fixture.set(&mut history, "acme", "two");
    // Numbers may leave some out.
    let fourth = history.newest().unwrap().clone();
    let far = commit(
        Some(fourth.record.mark()),
        700,
        fourth.table,
        Some(Delta::default()),
    );
    assert_eq!(history.append(&far), Ok(()));
    drop(history);
    let records = fixture.open().database.records(None, 3).unwrap();
    let numbers: Vec<u64> = records.iter().map(|record| record.generation).collect();
    assert_eq!(numbers, [700, 4, 3]);
}

#[test]
fn what_was_not_added_leaves_nothing_behind() {
    let mut fixture = Fixture::with_changes(2);
    let mut history = fixture.open();
    let newest = history.newest().unwrap().clone();
    // The number is taken: the last statement of the transaction fails.
    let mark = newest.record.mark();
    let taken = commit(Some(mark), 3, newest.table, Some(Delta::default()));
    let failed = history.append(&taken);
    assert!(matches!(failed, Err(AppendError::Failed(_))), "{failed:?}");
    fixture.assert_has(&history, 3);
    fixture.set(&mut history, "acme", "two");
    fixture.assert_has(&history, 4);
}

#[tokio::test]
async fn what_follows_a_generation() {
    let fixture = Fixture::with_changes(3);
    let store = FileStore::open(options(&fixture)).unwrap();
    assert!(matches!(store.since(4).await, Ok(News::Nothing)));
    match store.since(2).await.unwrap() {
        News::Whole(newest) => assert_eq!(newest.record, fixture.generations[3].record),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_last_steps() {
    let fixture = Fixture::with_changes(3);
    let store = FileStore::open(options(&fixture)).unwrap();
    let steps = store.recent(9, usize::MAX).await.unwrap();
    let mut table = fixture.generations[0].table.clone();
    for (step, pair) in steps.iter().zip(fixture.generations.windows(2)) {
        assert_eq!(
            (step.from, step.to),
            (pair[0].record.mark(), pair[1].record.mark())
        );
        table = table.apply(&step.delta).unwrap().into();
    }
    assert_eq!(table.digest(), fixture.generations[3].table.digest());
    let numbers = async |most, most_bytes| -> Vec<u64> {
        let steps = store.recent(most, most_bytes).await.unwrap();
        steps.iter().map(|step| step.to.generation).collect()
    };
    assert_eq!(numbers(9, usize::MAX).await, [2, 3, 4]);
    assert_eq!(numbers(2, usize::MAX).await, [3, 4]);
    assert_eq!(numbers(9, 300).await, [3, 4]);
    assert!(numbers(0, usize::MAX).await.is_empty());
}

/// A loss of power takes nothing that was acknowledged.
#[test]
fn every_commit_is_synced() {
    let history = Fixture::new().open();
    let pragma = |name| -> String {
        let connection = &history.database.connection;
        connection
            .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
            .map(|value| format!("{value:?}"))
            .unwrap()
    };
    assert_eq!(pragma("synchronous"), "Integer(2)");
    assert_eq!(pragma("journal_mode"), "Text(\"wal\")");
}

#[test]
fn pages_of_records() {
    let fixture = Fixture::with_changes(5);
    let history = fixture.open();
    let page = |before, limit| -> Vec<u64> {
        let records = history.database.records(before, limit).unwrap();
        records.iter().map(|record| record.generation).collect()
    };
    assert_eq!(page(None, 2), [6, 5]);
    assert_eq!(page(Some(5), 2), [4, 3]);
    assert_eq!(page(Some(2), 9), [1]);
    assert!(page(Some(1), 9).is_empty());
    assert_eq!(page(Some(u64::MAX), 1), [6]);
}

/// A delta that sets this many keys, some 45 bytes each.
fn large(round: usize, keys: usize) -> Delta {
    let keys = (0..keys).map(|key| format!("a-key-that-is-rather-long-{key:010}"));
    let home = ["one", "two"][round % 2];
    Delta {
        set: keys.map(|key| (key, home.to_owned())).collect(),
        ..Delta::default()
    }
}

fn tables(fixture: &Fixture) -> u64 {
    let connection = Connection::open(fixture.dir().join("cellgate.db")).unwrap();
    let query = "SELECT count(*) FROM generation WHERE content = 'table'";
    connection.query_row(query, (), |row| row.get(0)).unwrap()
}

#[test]
fn deltas_that_outweigh_the_table_lead_to_a_new_table() {
    let mut fixture = Fixture::with_changes(0);
    let mut history = fixture.open();
    history.least = 20_000;
    for round in 0..20 {
        fixture.change(&mut history, large(round, 100));
    }
    assert!((3..10).contains(&tables(&fixture)));
    fixture.assert_has(&history, 21);
    drop(history);
    fixture.assert_has(&fixture.open(), 21);
}

#[test]
fn old_generations_go_when_there_is_history_enough() {
    let mut fixture = Fixture::with_changes(0);
    fixture.history = 2;
    let mut history = fixture.open();
    history.least = 20_000;
    for round in 0..20 {
        fixture.change(&mut history, large(round, 100));
        let kept = history.database.records(None, usize::MAX).unwrap().len();
        assert!(kept >= 2.min(round + 2), "{kept} after {round}");
    }
    assert!(history.database.records(None, usize::MAX).unwrap().len() < 12);
    assert!(read(&history, 1).unwrap().is_none());
    assert!(tables(&fixture) <= 2);
    let orphans =
        "SELECT count(*) FROM content WHERE generation NOT IN (SELECT number FROM generation)";
    let connection = &history.database.connection;
    let orphans: u64 = connection.query_row(orphans, (), |row| row.get(0)).unwrap();
    assert_eq!(orphans, 0);
    drop(history);
    let history = fixture.open();
    assert_eq!(history.newest().unwrap().record.generation, 21);
}

#[test]
fn old_generations_go_when_they_take_too_much_space() {
    let mut fixture = Fixture::with_changes(0);
    fixture.history_bytes = 60_000;
    let mut history = fixture.open();
    history.least = 20_000;
    for round in 0..30 {
        fixture.change(&mut history, large(round, 100));
    }
    let kept = history.database.records(None, usize::MAX).unwrap().len();
    assert!((2..15).contains(&kept), "{kept}");
    // The space of those that went is used again.
    let bytes = fs::metadata(fixture.dir().join("cellgate.db"))
        .unwrap()
        .len();
    assert!(bytes < 300_000, "{bytes}");
}

/// The backup that docs/control-plane.md describes.
#[test]
fn a_backup_is_made_while_the_store_is_open() {
    let mut fixture = Fixture::with_changes(3);
    let mut history = fixture.open();
    let backup = tempfile::tempdir().unwrap();
    let copy = backup.path().join("cellgate.db");
    let other = Connection::open(fixture.dir().join("cellgate.db")).unwrap();
    other
        .execute("VACUUM INTO ?1", [copy.to_str().unwrap()])
        .unwrap();
    fixture.set(&mut history, "later", "two");
    fixture.assert_has(&history, 5);
    let restored = fixture.try_open(backup.path()).unwrap();
    fixture.assert_has(&restored, 4);
}

/// A generation that is being read stays, although it is removed meanwhile; and whoever
/// reads it does not hold up whoever adds the next one.
#[test]
fn a_reader_and_the_writer_do_not_wait_for_each_other() {
    let mut fixture = Fixture::with_changes(2);
    let mut history = fixture.open();
    let reader = Connection::open(fixture.dir().join("cellgate.db")).unwrap();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM generation")
        .unwrap();
    let numbers = |sql: &str| -> u64 { reader.query_row(sql, (), |row| row.get(0)).unwrap() };
    fixture.set(&mut history, "acme", "two");
    history.database.remove_below(3).unwrap();
    assert_eq!(numbers("SELECT count(*) FROM generation"), 3);
    assert_eq!(numbers("SELECT count(*) FROM content"), 3);
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(numbers("SELECT count(*) FROM generation"), 2);
}

fn options(fixture: &Fixture) -> FileOptions {
    FileOptions {
        data_dir: fixture.dir(),
        history: 10,
        history_bytes: u64::MAX,
    }
}

#[tokio::test]
async fn a_directory_is_for_one() {
    let fixture = Fixture::new();
    let store = FileStore::open(options(&fixture)).unwrap();
    let refused = FileStore::open(options(&fixture))
        .map(|_| ())
        .unwrap_err()
        .0;
    assert!(refused.contains("another control plane"), "{refused}");
    assert!(store.newest().await.unwrap().is_none());
    drop(store);
    FileStore::open(options(&fixture)).unwrap();
}

#[test]
fn a_directory_that_cannot_be_created_is_named() {
    let options = FileOptions {
        data_dir: "/proc/cellgate".into(),
        history: 10,
        history_bytes: u64::MAX,
    };
    let refused = FileStore::open(options).map(|_| ()).unwrap_err().0;
    assert!(
        refused.starts_with("/proc/cellgate: cannot be created: "),
        "{refused}"
    );
}

/// Table compiled anew, so that the two share nothing.
#[test]
fn a_table_without_a_delta() {
    let mut fixture = Fixture::with_changes(2);
    let mut history = fixture.open();
    let other = table::compile(&super::document("other", &[("acme", "two")])).unwrap();
    fixture.append(&mut history, other.into(), None).unwrap();
    fixture.set(&mut history, "visa", "one");
    drop(history);
    fixture.assert_has(&fixture.open(), 5);
}
