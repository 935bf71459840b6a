//! The format of the database.

use std::fmt::Write;
use std::path::Path;

use proptest::prelude::*;
use rusqlite::types::ValueRef;

use super::super::database::{Database, FILE};
use super::super::journal::Journal;
use super::super::record::Record;
use super::process::dir;
use super::{Fixture, at, document};
use crate::state::{Push, Pushed, Sha256, Source};
use crate::table::Delta;

/// A database of this version, as SQL. To change the format, change `FORMAT` and this file.
const GOLDEN: &str = include_str!("golden.sql");

const MAX_BYTES: u64 = 1 << 20;

/// A document with one key: keys are written in an order of the process.
fn one_key() -> Vec<u8> {
    let cells = [("one", "http://127.0.0.1:1"), ("two", "http://127.0.0.1:2")];
    document("1", &cells, &[("acme", "one")])
}

/// A snapshot of a routing file, a delta that a control plane pushed, and a journal.
fn write_sample(dir: &Path) {
    let edge = Fixture::new();
    let first = edge.changed(&one_key());
    let delta = Delta {
        set: vec![("a \"new\" kéy".to_owned(), "two".to_owned())],
        remove: vec!["acme".to_owned()],
        ..Delta::default()
    };
    let digest = first.table.apply(&delta).unwrap().digest();
    let pushed = edge
        .state
        .push(Push::Delta(delta.clone()), 77, digest, at(9));
    let Pushed::Changed(second) = pushed else {
        panic!("{pushed:?}");
    };
    let mut journal = Journal::default();
    let digest = first.table.digest().to_string();
    journal.serving(1, &digest, at(0), at(1));
    journal.promote(1, at(31));
    let digest = second.table.digest().to_string();
    for since in [40, 50] {
        journal.serving(2, &digest, at(9), at(since));
        journal.judge(at(since + 1));
    }
    journal.set_last_contact(Some(at(60)));

    std::fs::create_dir(dir).unwrap();
    let mut database = Database::open(dir, MAX_BYTES).unwrap();
    database.store(&first, false).unwrap();
    database
        .append(&Record::new(&second, Some((1, delta))))
        .unwrap();
    database.write_journal(&journal).unwrap();
}

/// The database as SQL, with the document in the place of its compressed form if `readable`.
fn dump(dir: &Path, readable: bool) -> String {
    let database = rusqlite::Connection::open(dir.join(FILE)).unwrap();
    let mut text = String::new();
    let format: i64 = database
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    writeln!(text, "PRAGMA user_version = {format};").unwrap();
    let mut schema = database
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'table' ORDER BY rowid")
        .unwrap();
    let tables: Vec<(String, String)> = schema
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for (name, sql) in tables {
        writeln!(text, "{sql};").unwrap();
        let mut rows = database.prepare(&format!("SELECT * FROM {name}")).unwrap();
        let columns = rows.column_count();
        let mut rows = rows.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values = (0..columns).map(|column| match row.get_ref(column).unwrap() {
                ValueRef::Integer(value) => value.to_string(),
                ValueRef::Text(value) => {
                    let value = std::str::from_utf8(value).unwrap();
                    format!("'{}'", value.replace('\'', "''"))
                }
                ValueRef::Blob(value) if readable => {
                    String::from_utf8(zstd::decode_all(value).unwrap()).unwrap()
                }
                ValueRef::Blob(value) => {
                    let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
                    format!("x'{hex}'")
                }
                other => panic!("{other:?}"),
            });
            let values: Vec<String> = values.collect();
            writeln!(text, "INSERT INTO {name} VALUES ({});", values.join(", ")).unwrap();
        }
    }
    text
}

#[test]
fn the_format_is_that_of_the_golden_file() {
    let (_keep, dir) = dir();
    write_sample(&dir);
    let golden = dir.with_extension("golden");
    std::fs::create_dir(&golden).unwrap();
    let database = rusqlite::Connection::open(golden.join(FILE)).unwrap();
    let loaded = database.execute_batch(GOLDEN);
    // Another version of zstd may compress differently.
    let same = loaded.is_ok() && dump(&dir, true) == dump(&golden, true);
    assert!(
        same,
        "the format has changed; now it is\n{}",
        dump(&dir, false)
    );

    // What an earlier build wrote is read.
    let database = Database::open(&golden, MAX_BYTES).unwrap();
    assert_eq!(database.numbers().unwrap(), [1, 2]);
    let first = database.read(1).unwrap();
    assert_eq!(first.head.number, 1);
    assert_eq!(first.head.source, Source::File);
    assert_eq!(first.head.sha256, Some(Sha256::of(&one_key())));
    assert_eq!(first.head.control_generation, None);
    assert_eq!(first.head.applied_at, at(0));
    assert_eq!(first.table.version(), "1");
    let second = database.read(2).unwrap();
    assert_eq!(second.head.number, 2);
    assert_eq!(second.head.source, Source::ControlPlane);
    assert_eq!(second.head.sha256, None);
    assert_eq!(second.head.control_generation, Some(77));
    assert_eq!(second.head.applied_at, at(9));
    assert_eq!(second.table.placement_of("acme"), None);
    assert_eq!(second.table.key_count(), 1);
    let journal = database.journal().unwrap();
    assert!(journal.is_promoted(1) && journal.is_quarantined(2));
    assert_eq!(journal.last_contact(), Some(at(60)));
}

proptest! {
    #[test]
    fn any_text_is_no_record(text: String) {
        prop_assert!(Record::parse(&text, 1).is_err());
    }
}
