//! Tables that are large enough for their changes to be kept as such.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::super::directory::{changes_name, name};
use super::super::keep::SMALL;
use super::super::schedule::Outcome;
use super::disk::{Process, dir, files};
use super::{at, document};
use crate::state::{Applied, Push, Pushed};
use crate::table::{Delta, Digest};

const KEYS: usize = 2000;

fn large(version: &str) -> Vec<u8> {
    let keys: Vec<String> = (0..KEYS).map(|key| format!("tenant-{key:020}")).collect();
    let keys: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "one")).collect();
    let places = [("one", "http://127.0.0.1:1"), ("two", "http://127.0.0.1:2")];
    document(version, &places, &keys)
}

impl Process {
    /// Starts one that serves, and keeps, a large table as generation 1.
    fn with_large(dir: &Path) -> Self {
        let process = Self::start(dir, 0);
        process.fixture.changed(&large("1"));
        process.memory.started(at(0));
        assert_eq!(process.keep(0), Outcome::Whole);
        assert!(process.store(0));
        process
    }

    /// A control plane sends this key to `two`, as its generation 100 and so many.
    fn push(&self, key: &str) -> Pushed {
        self.push_all(&[key.to_owned()])
    }

    fn push_all(&self, keys: &[String]) -> Pushed {
        let delta = Delta {
            set: keys
                .iter()
                .map(|key| (key.clone(), "two".to_owned()))
                .collect(),
            ..Delta::default()
        };
        let current = self.fixture.state.current().unwrap();
        let digest = current.table.apply(&delta).unwrap().digest();
        let push = Push::Delta(delta);
        self.fixture
            .state
            .push(push, 100 + current.number, digest, at(1))
    }

    /// As the memory does of its own, short of writing a whole table.
    fn keep(&self, seconds: u64) -> Outcome {
        let current = self.fixture.state.current().unwrap();
        assert!(self.memory.note(&current, at(seconds)));
        self.memory.append(&current)
    }

    /// Pushes and keeps it as a change.
    fn add(&self, key: &str, seconds: u64) {
        let pushed = self.push(key);
        assert!(matches!(pushed, Pushed::Changed(_)), "{pushed:?}");
        assert_eq!(self.keep(seconds), Outcome::Well);
    }

    fn digest(&self) -> Digest {
        self.fixture.state.current().unwrap().table.digest()
    }
}

fn changes_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(changes_name(number))
}

fn damage(file: &Path, place: impl Fn(&[u8]) -> usize) {
    let mut bytes = fs::read(file).unwrap();
    let place = place(&bytes);
    bytes[place] ^= 1;
    fs::write(file, bytes).unwrap();
}

fn middle(bytes: &[u8]) -> usize {
    bytes.len() / 2
}

#[test]
fn a_change_of_a_large_table_is_a_line() {
    let (_keep, dir) = dir();
    let process = Process::with_large(&dir);
    let whole = fs::metadata(dir.join(name(1))).unwrap().len();
    assert!(whole > SMALL, "{whole} bytes");
    process.add("a", 1);
    let before = fs::metadata(changes_of(&dir, 1)).unwrap().len();
    process.add("b", 2);
    let line = fs::metadata(changes_of(&dir, 1)).unwrap().len() - before;
    assert!(line < 300, "{line} bytes");
    assert_eq!(process.status().stored_generation, Some(3));
    // What comes in a burst is one line.
    assert!(matches!(process.push("c"), Pushed::Changed(_)));
    process.add("d", 3);
    // Nothing is written twice.
    assert_eq!(process.keep(4), Outcome::Well);
    let digest = process.digest();
    assert_eq!(files(&dir), [name(1)]);
    let text = fs::read_to_string(changes_of(&dir, 1)).unwrap();
    assert_eq!(text.lines().count(), 4, "{text}");
    process.crash();

    let process = Process::start(&dir, 10);
    let current = process.fixture.state.current().unwrap();
    assert_eq!((current.number, current.control_generation), (5, Some(104)));
    assert_eq!(process.digest(), digest);
    assert_eq!(process.status().stored_generation, Some(5));
    // And it goes on there.
    process.add("e", 11);
    assert_eq!(files(&dir), [name(1)]);
    process.end();
    let process = Process::start(&dir, 20);
    assert_eq!(process.serves().1, 6);
}

#[test]
fn other_tables_are_written_whole() {
    let (_keep, dir) = dir();
    let process = Process::with_large(&dir);
    // A document shares nothing with the last one, however alike they are.
    process.fixture.changed(&large("2"));
    assert_eq!(process.keep(1), Outcome::Whole);
    assert!(process.store(1));
    process.add("a", 2);
    let many: Vec<String> = (0..KEYS).map(|key| format!("new-{key}")).collect();
    assert!(matches!(process.push_all(&many), Pushed::Changed(_)));
    assert_eq!(process.keep(3), Outcome::Whole);
    assert!(process.store(3));
    assert_eq!(files(&dir), [1, 2, 4].map(name));
}

#[test]
fn when_the_changes_outweigh_the_table_the_next_is_whole() {
    let (_keep, dir) = dir();
    let process = Process::with_large(&dir);
    let whole = fs::metadata(dir.join(name(1))).unwrap().len();
    let mut outcomes = Vec::new();
    let mut number = 0;
    while !outcomes.ends_with(&[Outcome::Whole]) {
        let keys: Vec<String> = (0..10)
            .map(|nth| format!("new-{number}-{nth:0200}"))
            .collect();
        number += 1;
        assert!(matches!(process.push_all(&keys), Pushed::Changed(_)));
        outcomes.push(process.keep(number));
        let changes = fs::metadata(changes_of(&dir, 1)).map_or(0, |changes| changes.len());
        assert!(changes <= 2 * whole, "{changes} of {whole} bytes");
        let long = outcomes.last() == Some(&Outcome::Long);
        assert!(!long || changes > whole, "{changes} of {whole} bytes");
        assert!(number < 1000);
    }
    outcomes.dedup();
    assert_eq!(outcomes, [Outcome::Well, Outcome::Long, Outcome::Whole]);
    assert!(process.store(number));
    process.add("a", number + 1);
    assert_eq!(files(&dir), [1, number + 1].map(name));
    assert!(changes_of(&dir, number + 1).exists());
    let digest = process.digest();
    process.crash();
    let process = Process::start(&dir, number + 2);
    assert_eq!(process.digest(), digest);
}

#[test]
fn of_torn_or_damaged_changes_those_before_are_served() {
    for (what, served) in [("torn", 3), ("damaged", 2), ("garbage", 4)] {
        let (_keep, dir) = dir();
        let process = Process::with_large(&dir);
        for (key, seconds) in [("a", 1), ("b", 2), ("c", 3)] {
            process.add(key, seconds);
        }
        process.crash();
        let file = changes_of(&dir, 1);
        let bytes = fs::read(&file).unwrap();
        match what {
            "torn" => fs::write(&file, &bytes[..bytes.len() - 5]).unwrap(),
            "damaged" => damage(&file, |bytes| {
                let lines = memchr::memchr_iter(b'\n', bytes);
                lines.take(2).last().unwrap() + 30
            }),
            _ => {
                let mut file = OpenOptions::new().append(true).open(&file).unwrap();
                file.write_all(&[0; 100]).unwrap();
            }
        }
        let process = Process::start(&dir, 10);
        assert_eq!(process.serves().1, served, "{what}");
        // Nothing is added behind what cannot be read.
        assert!(matches!(process.push("d"), Pushed::Changed(_)));
        assert_eq!(process.keep(11), Outcome::Whole, "{what}");
        assert!(process.store(11));
        let (digest, number) = (process.digest(), process.serves().1);
        assert_eq!(number, 5, "{what}: numbers are not used twice");
        process.end();
        let process = Process::start(&dir, 20);
        assert_eq!(
            (process.digest(), process.serves().1),
            (digest, 5),
            "{what}"
        );
    }
}

#[test]
fn a_damaged_table_is_made_of_the_changes_before_it() {
    let (_keep, dir) = dir();
    let process = Process::with_large(&dir);
    process.add("a", 1);
    let current = process.fixture.state.current().unwrap();
    assert!(
        process.memory.store(&current),
        "as when there are many changes"
    );
    process.add("b", 2);
    let digest = process.digest();
    process.crash();
    damage(&dir.join(name(2)), middle);
    let process = Process::start(&dir, 10);
    assert_eq!((process.digest(), process.serves().1), (digest, 3));
    // What comes next does not depend on it.
    assert!(matches!(process.push("c"), Pushed::Changed(_)));
    assert_eq!(process.keep(11), Outcome::Whole);
    process.crash();

    // If that is damaged as well, the last one before the damage is served.
    damage(&changes_of(&dir, 1), middle);
    let process = Process::start(&dir, 20);
    assert_eq!(process.serves().1, 1);
    process.crash();
    damage(&dir.join(name(1)), middle);
    assert!(!Process::start(&dir, 30).recalled);
}

#[test]
fn changes_of_another_table_are_not_applied() {
    let (_keep, dir) = dir();
    let process = Process::with_large(&dir);
    process.add("a", 1);
    process.crash();
    let changes = fs::read(changes_of(&dir, 1)).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    let process = Process::start(&dir, 0);
    process.fixture.changed(&large("another"));
    process.memory.started(at(0));
    assert!(process.store(0));
    process.crash();
    fs::write(changes_of(&dir, 1), changes).unwrap();
    let process = Process::start(&dir, 10);
    assert_eq!(process.serves(), ("another".to_owned(), 1));
    assert!(matches!(process.push("b"), Pushed::Changed(_)));
    assert_eq!(process.keep(11), Outcome::Whole);
}

#[test]
fn a_crash_loop_leads_back_to_a_good_one_among_the_changes() {
    let (_keep, dir) = dir();
    let process = Process::with_large(&dir);
    process.promote(30);
    process.add("a", 31);
    process.promote(61);
    let good = process.digest();
    for (key, seconds) in [("b", 62), ("c", 63)] {
        process.add(key, seconds);
    }
    // The last one is noted, but the crash comes before it is written.
    assert!(matches!(process.push("poison"), Pushed::Changed(_)));
    let current = process.fixture.state.current().unwrap();
    assert!(process.memory.note(&current, at(64)));
    process.crash();
    let process = Process::start(&dir, 65);
    assert_eq!(process.serves().1, 4, "once may be chance");
    assert!(matches!(process.push("poison"), Pushed::Changed(_)));
    let current = process.fixture.state.current().unwrap();
    assert!(process.memory.note(&current, at(66)));
    process.crash();

    let process = Process::start(&dir, 67);
    assert_eq!((process.digest(), process.serves().1), (good, 2));
    let fallback = process.status().fallback.unwrap();
    assert_eq!((fallback.from, fallback.to), (6, 2));
    assert_eq!(process.status().promoted_generation, Some(2));
    // The same again is refused; something else is kept, and found.
    let all = ["b", "c", "poison"].map(str::to_owned);
    let refused = process.push_all(&all);
    assert!(matches!(refused, Pushed::Refused(_)), "{refused:?}");
    assert!(matches!(process.push("d"), Pushed::Changed(_)));
    assert_eq!(process.serves().1, 7);
    assert_eq!(process.keep(68), Outcome::Whole);
    assert!(process.store(68));
    let digest = process.digest();
    process.end();
    let process = Process::start(&dir, 70);
    assert_eq!((process.digest(), process.serves().1), (digest, 7));
    assert_eq!(process.status().fallback, None);
}

#[test]
fn a_good_one_among_changes_is_not_removed() {
    let (_keep, dir) = dir();
    let process = Process::with_large(&dir);
    process.add("a", 1);
    process.promote(30);
    for number in 3..12 {
        process.fixture.changed(&large(&number.to_string()));
        assert!(process.store(30 + number));
    }
    let expected: Vec<String> = [1, 8, 9, 10, 11].map(name).into();
    assert_eq!(files(&dir), expected);
    assert!(changes_of(&dir, 1).exists());
    fs::write(changes_of(&dir, 3), "").unwrap();
    process.fixture.changed(&large("12"));
    assert!(process.store(50));
    assert!(!changes_of(&dir, 3).exists(), "of no table");
}

#[test]
fn after_an_upgrade_nothing_is_added_to_what_the_old_process_wrote() {
    let (_keep, dir) = dir();
    let old = Process::with_large(&dir);
    old.add("a", 1);
    let new = Process::start(&dir, 2);
    assert_eq!(new.serves().1, 2);
    old.add("b", 3);
    old.end();
    // It is another generation 3.
    assert!(matches!(new.push("c"), Pushed::Changed(_)));
    assert_eq!(new.keep(4), Outcome::Whole);
    assert!(new.store(4));
    new.add("d", 5);
    let digest = new.digest();
    new.crash();
    let next = Process::start(&dir, 6);
    assert_eq!((next.digest(), next.serves().1), (digest, 4));
}

/// What the version before has written is where this one goes on.
#[test]
fn a_table_without_changes_is_added_to() {
    let (_keep, dir) = dir();
    Process::with_large(&dir).end();
    assert!(!changes_of(&dir, 1).exists());
    let process = Process::start(&dir, 1);
    process.add("a", 2);
    assert_eq!(files(&dir), [name(1)]);
    // Should somebody take it away, it is written again.
    fs::remove_file(dir.join(name(1))).unwrap();
    assert!(matches!(process.push("b"), Pushed::Changed(_)));
    assert_eq!(process.keep(3), Outcome::Whole);
    assert!(process.store(3));
    assert!(matches!(
        process.fixture.apply(&large("1")),
        Applied::Changed(_)
    ));
}
