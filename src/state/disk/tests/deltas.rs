//! Tables that are large enough for their changes to be stored as deltas.

use std::fs;

use super::super::database::FILE;
use super::super::schedule::{Outcome, Step};
use super::process::{
    KEYS, Process, damage_record, damage_snapshot, dir, generations, large, select, snapshots, sql,
};
use super::version;
use crate::state::Pushed;

#[test]
fn a_change_of_a_large_table_is_a_small_record() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, &large("1"), 0);
    process.add("a", 1);
    process.add("b", 2);
    assert_eq!(process.status().stored_generation, Some(3));
    // A burst is stored as one delta.
    assert!(matches!(process.push(&["c"]), Pushed::Changed(_)));
    process.add("d", 3);
    // Nothing is written twice.
    assert_eq!(process.keep(4), Outcome::Done);
    let digest = process.digest();
    process.crash();
    assert_eq!(generations(&dir), [1, 2, 3, 5]);
    assert_eq!(snapshots(&dir), [1]);
    let largest = select(&dir, "SELECT max(length(record)) FROM generations");
    assert!(largest[0] < 300, "{largest:?} bytes");

    let process = Process::start(&dir, 10);
    let current = process.fixture.state.current().unwrap();
    assert_eq!((current.number, current.control_generation), (5, Some(104)));
    assert_eq!(process.digest(), digest);
    assert_eq!(process.status().stored_generation, Some(5));
    // It goes on there.
    process.add("e", 11);
    process.end();
    assert_eq!(snapshots(&dir), [1]);
    assert_eq!(Process::start(&dir, 20).serves().1, 6);
}

#[test]
fn tables_that_share_little_with_the_last_one_are_stored_as_snapshots() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, &large("1"), 0);
    // A document shares nothing with the last table, however alike they are.
    process.fixture.changed(&large("2"));
    assert_eq!(process.keep(1), Outcome::NeedsSnapshot);
    assert!(process.snapshot());
    process.add("a", 2);
    let many: Vec<String> = (0..KEYS).map(|key| format!("new-{key}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(matches!(process.push(&many), Pushed::Changed(_)));
    assert_eq!(process.keep(3), Outcome::NeedsSnapshot);
    assert!(process.snapshot());
    process.end();
    assert_eq!(snapshots(&dir), [1, 2, 4]);
}

#[test]
fn when_the_deltas_outweigh_the_snapshot_the_next_one_follows() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, &large("1"), 0);
    let whole = large("1").len();
    let (mut outcomes, mut deltas, mut number) = (Vec::new(), 0, 0);
    while !outcomes.ends_with(&[Outcome::NeedsSnapshot]) {
        let keys: Vec<String> = (0..10)
            .map(|nth| format!("new-{number}-{nth:0200}"))
            .collect();
        number += 1;
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        assert!(matches!(process.push(&keys), Pushed::Changed(_)));
        outcomes.push(process.keep(number));
        // The keys alone.
        deltas += 10 * 200;
        let too_long = outcomes.last() != Some(&Outcome::Done);
        assert!(!too_long || 2 * deltas > whole, "{deltas} of {whole} bytes");
        assert!(deltas < 2 * whole, "{deltas} of {whole} bytes");
    }
    outcomes.dedup();
    let expected = [
        Outcome::Done,
        Outcome::DeltasTooLong,
        Outcome::NeedsSnapshot,
    ];
    assert_eq!(outcomes, expected);
    assert!(process.snapshot());
    process.add("a", number + 1);
    let digest = process.digest();
    process.crash();
    assert_eq!(snapshots(&dir), [1, number.cast_signed() + 1]);
    assert_eq!(Process::start(&dir, number + 2).digest(), digest);
}

#[test]
fn what_follows_a_damaged_delta_is_skipped() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, &large("1"), 0);
    for (key, seconds) in [("a", 1), ("b", 2), ("c", 3)] {
        process.add(key, seconds);
    }
    process.crash();
    damage_record(&dir, 3);
    let process = Process::start(&dir, 10);
    assert_eq!(process.serves().1, 2);
    // Numbers are not used twice, and what comes next does not depend on the damage.
    process.add("d", 11);
    assert_eq!(process.serves().1, 5);
    let digest = process.digest();
    process.end();
    let process = Process::start(&dir, 20);
    assert_eq!((process.digest(), process.serves().1), (digest, 5));
}

#[test]
fn a_damaged_snapshot_is_made_from_the_deltas_before_it() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, &large("1"), 0);
    process.add("a", 1);
    assert!(process.snapshot(), "as when there are many deltas");
    process.add("b", 2);
    let digest = process.digest();
    process.crash();
    assert_eq!(snapshots(&dir), [1, 2]);
    damage_snapshot(&dir, 2);
    let process = Process::start(&dir, 10);
    assert_eq!((process.digest(), process.serves().1), (digest, 3));
    // What comes next does not depend on it.
    assert!(matches!(process.push(&["c"]), Pushed::Changed(_)));
    assert_eq!(process.keep(11), Outcome::NeedsSnapshot);
    process.crash();

    // If that delta is damaged as well, the generation before it is served.
    damage_record(&dir, 2);
    let process = Process::start(&dir, 20);
    assert_eq!(process.serves().1, 1);
    process.crash();
    damage_snapshot(&dir, 1);
    assert!(!Process::start(&dir, 30).restored);
}

#[test]
fn a_delta_of_another_table_is_not_applied() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, &large("1"), 0);
    process.add("a", 1);
    process.crash();
    let other = dir.with_extension("other");
    Process::serving(&other, &large("another"), 0).end();
    sql(
        &other,
        &format!(
            "ATTACH '{}' AS first; INSERT INTO generations
             SELECT * FROM first.generations WHERE number = 2",
            dir.join(FILE).display()
        ),
    );
    let process = Process::start(&other, 10);
    assert_eq!(process.serves(), ("another".to_owned(), 1));
}

#[test]
fn a_crash_loop_leads_back_to_a_promoted_generation_among_the_deltas() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, &large("1"), 0);
    process.promote();
    process.add("a", 31);
    process.promote();
    let good = process.digest();
    for (key, seconds) in [("b", 62), ("c", 63)] {
        process.add(key, seconds);
    }
    // The crash comes after the last one is journaled and before it is stored.
    assert!(matches!(process.push(&["poison"]), Pushed::Changed(_)));
    assert_eq!(process.take(Step::Journal, 64), Outcome::Done);
    process.crash();
    let process = Process::start(&dir, 65);
    assert_eq!(process.serves().1, 4, "one crash may be chance");
    assert!(matches!(process.push(&["poison"]), Pushed::Changed(_)));
    assert_eq!(process.take(Step::Journal, 66), Outcome::Done);
    process.crash();

    let process = Process::start(&dir, 67);
    assert_eq!((process.digest(), process.serves().1), (good, 2));
    let fallback = process.status().fallback.unwrap();
    assert_eq!((fallback.from, fallback.to), (6, 2));
    assert_eq!(process.status().promoted_generation, Some(2));
    // The same content is refused; other content is kept, and found.
    let refused = process.push(&["b", "c", "poison"]);
    assert!(matches!(refused, Pushed::Refused(_)), "{refused:?}");
    process.add("d", 68);
    assert_eq!(process.serves().1, 7);
    let digest = process.digest();
    process.end();
    let process = Process::start(&dir, 70);
    assert_eq!((process.digest(), process.serves().1), (digest, 7));
    assert_eq!(process.status().fallback, None);
}

#[test]
fn a_promoted_generation_among_the_deltas_is_not_deleted() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, &large("1"), 0);
    process.add("a", 1);
    process.promote();
    for number in 3..12 {
        process.fixture.changed(&large(&number.to_string()));
        assert!(process.store(30 + number));
    }
    process.end();
    assert_eq!(snapshots(&dir), [1, 8, 9, 10, 11]);
    assert_eq!(generations(&dir), [1, 2, 8, 9, 10, 11]);
}

#[test]
fn after_an_upgrade_nothing_is_added_to_what_the_old_process_wrote() {
    let (_keep, dir) = dir();
    let old = Process::serving(&dir, &large("1"), 0);
    old.add("a", 1);
    let new = Process::start(&dir, 2);
    assert_eq!(new.serves().1, 2);
    old.add("b", 3);
    old.add("e", 3);
    old.end();
    // It is another generation 3.
    assert!(matches!(new.push(&["c"]), Pushed::Changed(_)));
    assert_eq!(new.keep(4), Outcome::NeedsSnapshot);
    assert!(new.snapshot());
    new.add("d", 5);
    let digest = new.digest();
    new.crash();
    assert_eq!(generations(&dir), [1, 2, 3, 4]);
    let next = Process::start(&dir, 6);
    assert_eq!((next.digest(), next.serves().1), (digest, 4));
}

#[test]
fn a_large_log_is_copied_into_the_database() {
    let (_keep, dir) = dir();
    let process = Process::serving(&dir, &version("0"), 0);
    let log_bytes = || fs::metadata(dir.join("state.db-wal")).map_or(0, |log| log.len());
    assert_eq!(log_bytes(), 0);
    let (mut before, mut largest) = (0, 0);
    for seconds in 1.. {
        process.fixture.changed(&version(&seconds.to_string()));
        assert_eq!(process.take(Step::Journal, seconds), Outcome::Done);
        let bytes = log_bytes();
        largest = largest.max(bytes);
        if bytes < before {
            break;
        }
        before = bytes;
        assert!(largest < 5 << 20, "{largest} bytes");
    }
    assert!(largest > 1 << 20, "{largest} bytes");
}
