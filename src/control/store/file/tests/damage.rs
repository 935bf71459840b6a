//! Files that a crash tore, or that something else has been at.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::line::Line;
use super::{Fixture, copy, read, segments};
use crate::control::core::tests::document;
use crate::table;

/// Where each frame of the one segment ends.
fn ends(fixture: &Fixture) -> Vec<u64> {
    let directory = copy(&fixture.dir());
    let directory = super::super::directory::Directory::open(directory.path()).unwrap();
    let segment = super::super::segment::Segment::scan(&directory, 1).unwrap();
    let ends = segment.entries.iter().map(|entry| {
        let bytes = entry.header.frame_bytes().unwrap();
        entry.at + bytes
    });
    ends.collect()
}

fn only_segment(dir: &Path) -> std::path::PathBuf {
    let segments = segments(dir);
    assert_eq!(segments.len(), 1);
    segments.into_iter().next().unwrap()
}

/// Adds one more, and looks whether the next process has it.
fn goes_on(fixture: &Fixture, mut line: Line, dir: &Path) {
    let mut scratch = Fixture::new();
    let generation = line.newest().unwrap().record.generation;
    scratch.set(&mut line, "one more", "one");
    drop(line);
    let line = fixture.try_open(dir).unwrap();
    let newest = line.newest().unwrap();
    assert_eq!(newest.record.generation, generation + 1);
    assert_eq!(newest.table.digest(), scratch.generations[0].table.digest());
}

#[test]
fn wherever_a_write_was_cut_off_what_was_acknowledged_is_there() {
    let fixture = Fixture::with_changes(3);
    let ends = ends(&fixture);
    let near = |at: u64| ends.iter().any(|end| at.abs_diff(*end) < 2);
    for length in (0..=ends[3]).filter(|at| at % 5 == 0 || near(*at)) {
        let copy = copy(&fixture.dir());
        let file = OpenOptions::new()
            .write(true)
            .open(only_segment(copy.path()))
            .unwrap();
        file.set_len(length).unwrap();
        let opened = fixture.try_open(copy.path());
        let whole = ends.iter().filter(|end| **end <= length).count();
        if whole == 0 {
            // Never by a crash: a segment is put in place when it has its table.
            let refused = opened.map(|_| ()).unwrap_err();
            assert!(refused.contains("can be put together"), "{refused}");
            continue;
        }
        let line = opened.unwrap();
        fixture.assert_has(&line, whole);
        // At and around the ends, and now and then.
        if length % 61 == 0 || near(length) {
            goes_on(&fixture, line, copy.path());
        }
    }
}

/// Some file systems grow a file before what was written is in it.
#[test]
fn zeros_at_the_end_were_never_acknowledged() {
    let fixture = Fixture::with_changes(2);
    for zeros in [1, 47, 48, 4096] {
        let copy = copy(&fixture.dir());
        let segment = only_segment(copy.path());
        let length = fs::metadata(&segment).unwrap().len();
        let file = OpenOptions::new().write(true).open(&segment).unwrap();
        file.set_len(length + zeros).unwrap();
        let line = fixture.try_open(copy.path()).unwrap();
        fixture.assert_has(&line, 3);
        assert_eq!(fs::metadata(&segment).unwrap().len(), length);
        goes_on(&fixture, line, copy.path());
    }
}

#[test]
fn whatever_byte_is_wrong_what_is_left_comes_back_above_all_that_was() {
    let fixture = Fixture::with_changes(3);
    let ends = ends(&fixture);
    // All of the headers, and of the rest now and then.
    let of_header = |at: u64| {
        ends.iter()
            .any(|end| (0..48).contains(&at.wrapping_sub(*end)))
    };
    for at in (ends[0]..ends[3]).filter(|at| at % 11 == 0 || of_header(*at)) {
        let copy = copy(&fixture.dir());
        let segment = only_segment(copy.path());
        let damaged = flip(&segment, at);
        let line = fixture.try_open(copy.path()).unwrap();
        // The generation before the one with the wrong byte.
        let good = ends.iter().filter(|end| **end <= at).count();
        let good = &fixture.generations[good - 1];
        let newest = line.newest().unwrap();
        assert_eq!(newest.record.generation, 5, "byte {at}");
        assert_eq!(newest.record.parent, good.record.generation, "byte {at}");
        assert_eq!(newest.table.digest(), good.table.digest(), "byte {at}");
        assert_eq!(newest.record.author.who, "store");
        // The evidence stays.
        assert_eq!(fs::read(&segment).unwrap(), damaged);
        if at % 121 == 0 {
            goes_on(&fixture, line, copy.path());
        }
    }
}

/// Inverts a byte; what the file is then.
fn flip(path: &Path, at: u64) -> Vec<u8> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
    fs::read(path).unwrap()
}

#[test]
fn a_table_that_is_damaged_leaves_the_segment_before() {
    let mut fixture = Fixture::with_changes(2);
    let mut line = fixture.open();
    let table = table::compile(&document("2", &[("new", "one")])).unwrap();
    fixture.append(&mut line, table.into(), None).unwrap();
    fixture.set(&mut line, "newer", "two");
    drop(line);
    let length = fs::metadata(&segments(&fixture.dir())[1]).unwrap().len();
    for at in (0..length).step_by(13) {
        let copy = copy(&fixture.dir());
        flip(&segments(copy.path())[1], at);
        let line = fixture.try_open(copy.path()).unwrap();
        let newest = line.newest().unwrap();
        assert_eq!(newest.record.generation, 6, "byte {at}");
        let digest = newest.table.digest();
        let good = [3, 4].map(|number: usize| fixture.generations[number - 1].table.digest());
        assert!(good.contains(&digest), "byte {at}");
        goes_on(&fixture, line, copy.path());
    }
    // Of an older segment, only what was in it is gone.
    let copy = copy(&fixture.dir());
    flip(&segments(copy.path())[0], 60);
    let line = fixture.try_open(copy.path()).unwrap();
    assert_eq!(line.newest().unwrap().record, fixture.generations[4].record);
    assert!(read(&line, 4).unwrap().is_some());
    assert!(!matches!(read(&line, 2), Ok(Some(_))));
}

#[test]
fn a_generation_whose_content_is_not_its_digest_is_not_believed() {
    let mut fixture = Fixture::with_changes(1);
    let mut line = fixture.open();
    let newest = line.newest().unwrap().clone();
    // A delta that does not lead to the table that it comes with.
    let other = table::compile(&document("1", &[("acme", "two")])).unwrap();
    fixture
        .append(&mut line, other.into(), Some(Default::default()))
        .unwrap();
    drop(line);
    let line = fixture.open();
    assert_eq!(line.newest().unwrap().record.generation, 4);
    assert_eq!(line.newest().unwrap().table.digest(), newest.table.digest());
}
