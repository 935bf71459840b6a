//! The format of the files, which a later release has to read.

use std::fs;

use rusqlite::types::Value;
use rusqlite::{Connection, params};

use super::Fixture;
use crate::table::Delta;

const GOLDEN: &str = include_str!("format.txt");

/// The schema and the rows of a small store. A change of this file is a change of the
/// format: it takes another `user_version`, and reading this one.
#[test]
fn the_stored_format_is_the_golden_one() {
    let mut fixture = Fixture::with_changes(0);
    let mut history = fixture.open();
    let head = history.newest().unwrap().table.head_json();
    let head = head.replace(":1\"", ":3\"");
    let delta = Delta {
        head: Some(head),
        set: vec![("visa \"x\"".to_owned(), "two".to_owned())],
        remove: vec!["acme".to_owned()],
    };
    fixture.change(&mut history, delta);
    drop(history);
    let connection = Connection::open(fixture.dir().join("cellgate.db")).unwrap();
    let mut dump = String::new();
    for pragma in ["application_id", "user_version", "journal_mode"] {
        dump += &format!(
            "{pragma}: {:?}\n",
            one(&connection, &format!("PRAGMA {pragma}"))
        );
    }
    let lock = fs::read_to_string(fixture.dir().join("lock")).unwrap();
    dump += &format!("lock: {lock:?}\n\n");
    let mut rows = connection
        .prepare("SELECT sql FROM sqlite_schema WHERE sql NOT NULL ORDER BY name")
        .unwrap();
    let rows = rows.query_map((), |row| row.get::<_, String>(0)).unwrap();
    for sql in rows {
        dump += &format!("{};\n\n", sql.unwrap());
    }
    for query in [
        "SELECT * FROM generation ORDER BY number",
        "SELECT generation, part, CAST(bytes AS TEXT) FROM content ORDER BY generation, part",
    ] {
        let mut rows = connection.prepare(query).unwrap();
        let columns = rows.column_count();
        let mut rows = rows.query(params![]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for column in 0..columns {
                let value: Value = row.get(column).unwrap();
                dump += &format!("{value:?}\n");
            }
            dump.push('\n');
        }
    }
    if dump != GOLDEN {
        let found = std::env::temp_dir().join("cellgate-store-format.txt");
        fs::write(&found, &dump).unwrap();
        panic!(
            "another format than format.txt: it is in {}",
            found.display()
        );
    }
}

fn one(connection: &Connection, query: &str) -> Value {
    connection.query_row(query, (), |row| row.get(0)).unwrap()
}

#[test]
fn a_store_of_the_previous_format_is_refused() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.dir()).unwrap();
    fs::write(fixture.dir().join("00000000000000000001.segment"), "CGF1").unwrap();
    let refused = fixture.try_open(&fixture.dir()).unwrap_err();
    assert!(
        refused.contains("format of an earlier release"),
        "{refused}"
    );
    assert!(!fixture.dir().join("cellgate.db").exists());
}

#[test]
fn a_database_of_a_later_format_or_of_another_program_is_refused() {
    for (sql, expected) in [
        (
            "PRAGMA user_version = 2",
            "its user_version is 2 (valid: 1)",
        ),
        ("PRAGMA application_id = 5", "its application_id is 5"),
    ] {
        let fixture = Fixture::with_changes(1);
        let path = fixture.dir().join("cellgate.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(sql).unwrap();
        drop(connection);
        let before = fs::read(&path).unwrap();
        let refused = fixture.try_open(&fixture.dir()).unwrap_err();
        assert!(refused.contains(expected), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
    let fixture = Fixture::new();
    fs::create_dir(fixture.dir()).unwrap();
    fs::write(fixture.dir().join("cellgate.db"), "a text".repeat(1000)).unwrap();
    let refused = fixture.try_open(&fixture.dir()).unwrap_err();
    assert!(refused.contains("file is not a database"), "{refused}");
}
