use proptest::prelude::*;

use super::super::changes::{self, Base, Changes};
use super::{Fixture, at, version};
use crate::state::{Generation, Push, Pushed};
use crate::table::{Delta, RoutingTable};
use std::sync::Arc;

/// A table, and the file of three generations that follow it.
fn sample() -> (Arc<Generation>, Vec<u8>, Vec<RoutingTable>) {
    let edge = Fixture::new();
    let first = edge.changed(&version("1"));
    let mut file = changes::header(Base {
        number: 1,
        digest: first.table.digest(),
    });
    let mut last = Arc::clone(&first);
    let mut tables = Vec::new();
    for (control_generation, key) in [(7, "a \"b\""), (8, "ü"), (9, "acme")] {
        let delta = Delta {
            set: vec![(key.to_owned(), "two".to_owned())],
            ..Delta::default()
        };
        let digest = last.table.apply(&delta).unwrap().digest();
        let push = Push::Delta(delta.clone());
        let Pushed::Changed(next) = edge.state.push(push, control_generation, digest, at(9)) else {
            panic!("it was not applied");
        };
        file.extend(changes::change(&next, last.number, delta));
        tables.push(next.table.clone());
        last = next;
    }
    (first, file, tables)
}

fn numbers(changes: &Changes) -> Vec<u64> {
    let changes = changes.changes.iter();
    changes.map(|change| change.generation).collect()
}

#[test]
fn are_what_their_description_says() {
    let (first, file, _) = sample();
    let text = String::from_utf8(file).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| {
            assert!(line.len() < 400, "{line}");
            let (sum, json) = line.split_once(' ').unwrap();
            assert_eq!(sum.len(), 16);
            serde_json::from_str(json).unwrap()
        })
        .collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert_eq!(
        lines[0],
        serde_json::json!({
            "cellgate_changes": 1, "generation": 1, "digest": first.table.digest().to_string(),
        })
    );
    assert_eq!(lines[1]["generation"], 2);
    assert_eq!(lines[1]["from"], 1);
    assert_eq!(lines[1]["control_generation"], 7);
    assert_eq!(lines[1]["source"], "control_plane");
    assert_eq!(lines[1]["applied_at"], "2026-01-03T20:45:21.000Z");
    assert_eq!(lines[1]["set"], serde_json::json!([["a \"b\"", "two"]]));
}

#[test]
fn what_was_written_is_read_back() {
    let (first, file, tables) = sample();
    let read = changes::read(&file).unwrap();
    assert_eq!(read.base.number, 1);
    assert_eq!(read.base.digest, first.table.digest());
    assert_eq!(read.broken, None);
    assert_eq!(numbers(&read), [2, 3, 4]);
    let mut table = first.table.clone();
    for (change, expected) in read.changes.iter().zip(&tables) {
        table = change.apply(&table).unwrap();
        assert_eq!(table.digest(), expected.digest());
    }
    let stored = read.changes[2].stored(table).unwrap();
    assert_eq!((stored.number, stored.control_generation), (4, Some(9)));
    assert_eq!(stored.applied_at, at(9));
}

#[test]
fn a_change_of_another_table_is_refused() {
    let (first, file, _) = sample();
    let read = changes::read(&file).unwrap();
    let why = read.changes[1].apply(&first.table).unwrap_err();
    assert!(why.starts_with("it leads to the digest "), "{why}");
}

/// Where each line ends.
fn ends(file: &[u8]) -> Vec<usize> {
    memchr::memchr_iter(b'\n', file)
        .map(|end| end + 1)
        .collect()
}

#[test]
fn of_a_torn_file_the_whole_lines_are_read() {
    let (_, file, _) = sample();
    let ends = ends(&file);
    for length in 0..file.len() {
        let whole = ends.iter().filter(|end| **end <= length).count();
        let read = changes::read(&file[..length]);
        assert_eq!(read.is_ok(), whole > 0, "of {length} bytes");
        if let Ok(read) = read {
            assert_eq!(read.changes.len(), whole - 1, "of {length} bytes");
            assert_eq!(read.broken.is_some(), !ends.contains(&length));
        }
    }
}

#[test]
fn of_a_damaged_file_what_is_before_the_damage_is_read() {
    let (_, file, _) = sample();
    let ends = ends(&file);
    for place in 0..file.len() {
        for damage in [0x01, 0x80] {
            let mut bytes = file.clone();
            bytes[place] ^= damage;
            let whole = ends.iter().filter(|end| **end <= place).count();
            match changes::read(&bytes) {
                Err(_) => assert_eq!(whole, 0, "byte {place}"),
                Ok(read) => {
                    assert_eq!(read.changes.len() + 1, whole, "byte {place}");
                    assert!(read.broken.is_some(), "byte {place}");
                }
            }
        }
    }
}

#[test]
fn a_line_that_is_missing_or_twice_there_ends_what_is_read() {
    let (_, file, _) = sample();
    let lines: Vec<&[u8]> = file.split_inclusive(|byte| *byte == b'\n').collect();
    for (order, expected) in [
        (vec![0, 1, 3], vec![2]),
        (vec![0, 2, 3], vec![]),
        (vec![0, 1, 1, 2], vec![2]),
        (vec![0, 1, 0, 2], vec![2]),
    ] {
        let bytes: Vec<&[u8]> = order.iter().map(|line| lines[*line]).collect();
        let read = changes::read(&bytes.concat()).unwrap();
        assert_eq!(numbers(&read), expected, "{order:?}");
        assert!(read.broken.is_some(), "{order:?}");
    }
    assert!(changes::read(lines[1]).is_err());
}

proptest! {
    #[test]
    fn any_bytes(bytes: Vec<u8>) {
        prop_assert!(changes::read(&bytes).is_err());
    }
}
