//! Segments of which it is not known whether they are there.

use std::fs;
use std::sync::atomic::Ordering::Relaxed;

use super::super::line::Line;
use super::{Fixture, commit, copy, segments};
use crate::control::store::{AppendError, Commit};
use crate::table::Delta;

/// The change of a key as the next generation, in a segment of its own.
fn in_new_segment(line: &Line) -> Commit {
    let newest = line.newest().unwrap();
    let delta = Delta {
        set: vec![("in vain".to_owned(), "one".to_owned())],
        ..Delta::default()
    };
    let table = newest.table.apply(&delta).unwrap();
    let mark = newest.record.mark();
    commit(Some(mark), mark.generation + 1, table.into(), None)
}

/// The bytes of that segment.
fn bytes_of(vain: &Commit, fixture: &Fixture) -> Vec<u8> {
    let copy = copy(&fixture.dir());
    let mut line = fixture.try_open(copy.path()).unwrap();
    line.append(vain).unwrap();
    fs::read(segments(copy.path()).last().unwrap()).unwrap()
}

fn fail_syncs(line: &Line, count: u32) {
    line.directory.bad_syncs.store(count, Relaxed);
}

#[test]
fn a_segment_that_is_gone_for_good_was_never_there() {
    let mut fixture = Fixture::with_changes(2);
    let mut line = fixture.open();
    let vain = in_new_segment(&line);
    fail_syncs(&line, 1);
    let failed = line.append(&vain);
    assert!(matches!(failed, Err(AppendError::Failed(_))), "{failed:?}");
    assert_eq!(segments(&fixture.dir()).len(), 1);
    fixture.set(&mut line, "acme", "two");
    fixture.assert_has(&line, 4);
    drop(line);
    fixture.assert_has(&fixture.open(), 4);
}

/// Neither that it is there lasts for sure, nor that it is not. What is acknowledged
/// after it does.
#[test]
fn a_segment_that_may_be_there_takes_no_place() {
    // The third one: it cannot be removed at the next change, either.
    for bad in [2, 3] {
        let mut fixture = Fixture::with_changes(2);
        let mut line = fixture.open();
        let vain = in_new_segment(&line);
        let bytes = bytes_of(&vain, &fixture);
        fail_syncs(&line, bad);
        let unknown = line.append(&vain);
        assert!(
            matches!(unknown, Err(AppendError::Unknown(_))),
            "{unknown:?}"
        );
        assert_eq!(line.newest().unwrap().record.generation, 3);
        // Its removal did not last.
        fs::write(line.directory.segment(4), bytes).unwrap();
        for key in ["acme", "visa", "uber"] {
            fixture.set(&mut line, key, "two");
        }
        fixture.assert_has(&line, 6);
        drop(line);
        fixture.assert_has(&fixture.open(), 6);
    }
}

/// The process ends before anything is done about it.
#[test]
fn a_segment_that_may_be_there_may_be_found() {
    let fixture = Fixture::with_changes(2);
    let mut line = fixture.open();
    let vain = in_new_segment(&line);
    let bytes = bytes_of(&vain, &fixture);
    fail_syncs(&line, 2);
    assert!(matches!(line.append(&vain), Err(AppendError::Unknown(_))));
    fs::write(line.directory.segment(4), bytes).unwrap();
    drop(line);
    let line = fixture.open();
    assert_eq!(line.newest().unwrap().record, vain.record);
}

/// A later segment that was not made of it, where it could not be removed.
#[test]
fn a_later_segment_says_what_came_before() {
    let fixture = Fixture::with_changes(2);
    let mut line = fixture.open();
    let vain = in_new_segment(&line);
    let bytes = bytes_of(&vain, &fixture);
    fail_syncs(&line, 3);
    assert!(matches!(line.append(&vain), Err(AppendError::Unknown(_))));
    let third = line.newest().unwrap().clone();
    let far = commit(
        Some(third.record.mark()),
        700,
        third.table,
        Some(Delta::default()),
    );
    line.append(&far).unwrap();
    fs::write(line.directory.segment(4), bytes).unwrap();
    drop(line);
    let line = fixture.open();
    let records = line.records(None, 3);
    let numbers: Vec<u64> = records.iter().map(|record| record.generation).collect();
    assert_eq!(numbers, [700, 3, 2]);
}
