use std::time::SystemTime;

use proptest::prelude::*;

use super::super::journal::{Journal, KEPT, SnapshotSize};
use super::at;

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A process begins to serve this generation.
    Serves(u64, u64),
    /// The generation has served for `promote_after`.
    Promoted(u64, u64),
    /// The process ends in order.
    Ends,
    /// Another process starts. If the one before did not end in order, it crashed.
    Starts(u64),
}
use Event::{Ends, Promoted, Serves, Starts};

/// Returns the journal, and what was quarantined on the way.
fn play(events: &[Event]) -> (Journal, Vec<u64>) {
    let mut journal = Journal::default();
    let mut quarantined = Vec::new();
    for event in events {
        match *event {
            Serves(number, time) => serve(&mut journal, number, at(time)),
            Promoted(number, time) => journal.promote(number, at(time)),
            Ends => journal.end(),
            Starts(time) => quarantined.extend(journal.judge(at(time))),
        }
    }
    (journal, quarantined)
}

/// As the next process reads it.
fn again(journal: &Journal) -> Journal {
    serde_json::from_str(&serde_json::to_string(journal).unwrap()).unwrap()
}

fn serve(journal: &mut Journal, number: u64, now: SystemTime) {
    journal.serving(number, &format!("{number:032x}"), now, now);
}

#[test]
fn a_burst_does_not_evict_promoted_and_quarantined_generations() {
    let mut events = vec![Serves(1, 0), Promoted(1, 30), Serves(2, 40), Starts(41)];
    events.extend([Serves(2, 42), Starts(43)]);
    events.extend((3..60).map(|number| Serves(number, 40 + number)));
    let (journal, quarantined) = play(&events);
    assert_eq!(quarantined, [2]);
    assert!(journal.is_promoted(1));
    assert!(journal.is_quarantined(2));
    assert_eq!(journal.highest(), 59);
    let text = serde_json::to_string(&journal).unwrap();
    assert!(text.len() < 5_000, "{} bytes", text.len());
}

#[test]
fn two_crashes_within_a_minute_quarantine() {
    for (what, events, quarantined) in [
        ("nothing was served", vec![Starts(1)], vec![]),
        (
            "it ended in order",
            vec![Serves(1, 0), Ends, Starts(1), Serves(1, 1), Ends, Starts(2)],
            vec![],
        ),
        ("one crash", vec![Serves(1, 0), Starts(9)], vec![]),
        (
            "two crashes",
            vec![Serves(1, 0), Starts(9), Serves(1, 10), Starts(20)],
            vec![1],
        ),
        (
            "a minute between them",
            vec![Serves(1, 0), Starts(9), Serves(1, 60), Starts(99)],
            vec![1],
        ),
        (
            "more than a minute between them",
            vec![Serves(1, 0), Starts(9), Serves(1, 61), Starts(62)],
            vec![],
        ),
        (
            "and then another",
            vec![
                Serves(1, 0),
                Starts(9),
                Serves(1, 61),
                Starts(62),
                Serves(1, 63),
                Starts(64),
            ],
            vec![1],
        ),
        (
            "the clock was set back between them",
            vec![Serves(1, 50), Starts(51), Serves(1, 2), Starts(3)],
            vec![1],
        ),
        (
            "an end in order between them",
            vec![
                Serves(1, 0),
                Starts(1),
                Serves(1, 2),
                Ends,
                Starts(3),
                Serves(1, 4),
                Starts(5),
            ],
            vec![1],
        ),
        (
            "it had proved to be good",
            vec![
                Serves(1, 0),
                Promoted(1, 30),
                Starts(31),
                Serves(1, 32),
                Starts(33),
                Serves(1, 34),
                Starts(35),
            ],
            vec![],
        ),
        (
            "it proved to be good between them",
            vec![
                Serves(1, 0),
                Starts(1),
                Serves(1, 2),
                Promoted(1, 32),
                Starts(33),
            ],
            vec![],
        ),
        (
            "each with another generation, none of which is proven",
            vec![Serves(1, 0), Starts(1), Serves(2, 2), Starts(3)],
            vec![2, 1],
        ),
        (
            "each further on in a stream of changes",
            vec![
                Serves(1, 0),
                Promoted(1, 30),
                Serves(2, 40),
                Serves(3, 41),
                Starts(42),
                // The last one that was written.
                Serves(2, 42),
                Serves(4, 43),
                Starts(44),
            ],
            vec![4, 3],
        ),
        (
            "one further on, after the stream was given up",
            vec![
                Serves(1, 0),
                Promoted(1, 30),
                Serves(2, 40),
                Starts(41),
                Serves(2, 42),
                Starts(43),
                Serves(1, 43),
                Serves(3, 50),
                Starts(51),
            ],
            vec![2, 3],
        ),
        (
            "one proved to be good between them",
            vec![
                Serves(1, 0),
                Starts(1),
                Serves(2, 2),
                Serves(3, 20),
                Promoted(2, 32),
                Serves(4, 33),
                Starts(34),
            ],
            vec![],
        ),
        (
            "of a good one, with others after it that have crashed",
            vec![
                Serves(1, 0),
                Promoted(1, 30),
                Serves(2, 40),
                Starts(41),
                Serves(1, 42),
                Starts(43),
            ],
            vec![],
        ),
        (
            "started on a good one, crashed on the new one, twice",
            vec![
                Serves(1, 0),
                Promoted(1, 30),
                Serves(2, 40),
                Starts(41),
                Serves(1, 42),
                Serves(2, 43),
                Starts(44),
            ],
            vec![2],
        ),
        (
            "a crash is judged once",
            vec![Serves(1, 0), Starts(1), Starts(2), Starts(3)],
            vec![],
        ),
        (
            "quarantined once is enough",
            vec![
                Serves(1, 0),
                Starts(1),
                Serves(1, 2),
                Starts(3),
                Serves(1, 4),
                Starts(5),
                Serves(1, 6),
                Starts(7),
            ],
            vec![1],
        ),
    ] {
        assert_eq!(play(&events).1, quarantined, "{what}");
    }
}

/// Before it is read, its digest is not known.
#[test]
fn a_generation_whose_reading_crashes_the_process_is_quarantined() {
    let mut journal = Journal::default();
    for (time, quarantined) in [(0, vec![]), (1, vec![7])] {
        journal.trying(7, at(time));
        assert_eq!(journal.judge(at(time)), quarantined);
    }
    assert_eq!(journal.candidates(&[5, 7]), [5]);
    // Once it was read, the digest is added.
    journal.list(7, "d", at(9));
    assert!(journal.is_quarantined(7));
    assert_eq!(journal.quarantined().next().unwrap().digest, "d");
}

#[test]
fn promoted_generations_do_not_evict_quarantined_ones() {
    let mut events = vec![Serves(2, 0), Starts(1), Serves(2, 2), Starts(3)];
    for number in 3..90 {
        events.extend([Serves(number, 40 + number), Promoted(number, 70 + number)]);
    }
    events.extend((90..120).map(|number| Serves(number, 40 + number)));
    let (journal, _) = play(&events);
    assert!(journal.is_quarantined(2));
    assert_eq!(journal.newest_promoted(), Some(89));
    assert!(journal.is_promoted(85) && !journal.is_promoted(70));
    assert_eq!(journal.highest(), 119);
}

/// In a stream, a generation may be forgotten before it is promoted.
#[test]
fn a_forgotten_generation_can_be_promoted() {
    let (mut journal, _) = play(&(1..100).map(|it| Serves(it, it)).collect::<Vec<_>>());
    journal.list(3, "d", at(3));
    journal.promote(3, at(101));
    assert_eq!(journal.newest_promoted(), Some(3));
    serve(&mut journal, 100, at(101));
    assert!(journal.is_promoted(3));
    assert_eq!(journal.last_served(), Some(100));
}

#[test]
fn the_last_contact_is_remembered() {
    let mut journal = Journal::default();
    assert_eq!(journal.last_contact(), None);
    journal.set_last_contact(Some(at(5)));
    journal.set_last_contact(None);
    assert_eq!(again(&journal).last_contact(), Some(at(5)));
}

#[test]
fn another_table_under_the_same_number_is_not_promoted() {
    let mut journal = play(&[Serves(1, 0), Promoted(1, 30), Ends]).0;
    journal.serving(1, "another", at(40), at(40));
    assert!(!journal.is_promoted(1));
    assert_eq!(journal.highest(), 1);
}

#[test]
fn the_best_one_comes_first() {
    let crash_2 = [Serves(2, 50), Starts(51), Serves(2, 52), Starts(53)];
    let after = |events: &[Event]| play(&[events, &crash_2].concat()).0;
    for (what, journal, stored, expected) in [
        (
            "no journal",
            Journal::default(),
            vec![3, 5, 4],
            vec![5, 4, 3],
        ),
        (
            "the last one served",
            play(&[Serves(1, 0), Promoted(1, 30), Serves(2, 40), Ends]).0,
            vec![1, 2],
            vec![2, 1],
        ),
        (
            "it is not on disk: a good one before an unproven one",
            play(&[
                Serves(1, 0),
                Promoted(1, 30),
                Serves(2, 40),
                Serves(3, 41),
                Serves(4, 42),
            ])
            .0,
            vec![1, 2],
            vec![2, 1],
        ),
        (
            "it is damaged: the next in line is the good one",
            play(&[Serves(1, 0), Promoted(1, 30), Serves(2, 40), Serves(3, 41)]).0,
            vec![1, 2, 3],
            vec![3, 1, 2],
        ),
        (
            "a quarantined one is none",
            after(&[Serves(1, 0), Promoted(1, 30)]),
            vec![1, 2],
            vec![1],
        ),
        ("even the only one", after(&[]), vec![2], vec![]),
        (
            "it was never on disk: a good one before what it was built on",
            play(&[
                Serves(1, 0),
                Promoted(1, 30),
                Serves(2, 40),
                Starts(41),
                Serves(4, 42),
                Starts(43),
            ])
            .0,
            vec![1, 2, 3],
            vec![1, 3],
        ),
        (
            "after a fallback, what it fell back to",
            {
                let mut journal = after(&[Serves(0, 0), Promoted(0, 30), Serves(1, 40)]);
                serve(&mut journal, 0, at(60));
                journal.end();
                journal
            },
            vec![0, 1, 2],
            vec![0, 1],
        ),
    ] {
        assert_eq!(journal.candidates(&stored), expected, "{what}");
    }
}

#[test]
fn the_newest_is_quarantined_until_another_comes() {
    let mut journal = play(&[
        Serves(1, 0),
        Serves(2, 1),
        Starts(2),
        Serves(2, 3),
        Starts(4),
    ])
    .0;
    let newest_if_quarantined =
        |journal: &Journal| journal.newest_if_quarantined().map(|entry| entry.number);
    assert_eq!(newest_if_quarantined(&journal), Some(2));
    serve(&mut journal, 1, at(5));
    assert_eq!(newest_if_quarantined(&journal), Some(2));
    serve(&mut journal, 3, at(6));
    assert_eq!(newest_if_quarantined(&journal), None);
    let quarantined: Vec<u64> = journal.quarantined().map(|entry| entry.number).collect();
    assert_eq!(quarantined, [2], "it is still refused");
}

#[test]
fn only_so_much_is_kept() {
    let files = |sizes: &[(u64, u64)]| -> Vec<SnapshotSize> {
        let file = |(number, bytes): &(u64, u64)| SnapshotSize {
            number: *number,
            bytes: *bytes,
        };
        sizes.iter().map(file).collect()
    };
    let good_1 = play(&[Serves(1, 0), Promoted(1, 30), Serves(7, 40)]).0;
    for (what, journal, stored, expected) in [
        ("few", &good_1, files(&[(1, 1), (2, 1), (7, 1)]), vec![]),
        (
            "many: the oldest go, but for the good one",
            &good_1,
            files(&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1)]),
            vec![3, 2],
        ),
        (
            "large",
            &good_1,
            files(&[(1, 40), (5, 40), (6, 40), (7, 40)]),
            vec![6, 5],
        ),
        (
            "a small one behind a large one stays",
            &good_1,
            files(&[(1, 40), (5, 10), (6, 40), (7, 40)]),
            vec![6],
        ),
        (
            "what is served and what is good are among the changes of a file",
            &play(&[Serves(4, 0), Promoted(4, 30), Serves(9, 40)]).0,
            files(&[(1, 40), (3, 40), (5, 10), (6, 40), (7, 40)]),
            vec![6, 1],
        ),
        (
            "too large, but needed",
            &good_1,
            files(&[(1, 400), (7, 400)]),
            vec![],
        ),
        (
            "nothing is known of them",
            &Journal::default(),
            files(&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1)]),
            vec![1],
        ),
    ] {
        assert_eq!(journal.superfluous(&stored, 100), expected, "{what}");
    }
}

fn event() -> impl Strategy<Value = Event> {
    let (number, time) = (1..9u64, 0..200u64);
    prop_oneof![
        4 => (number.clone(), time.clone()).prop_map(|(number, time)| Serves(number, time)),
        2 => (number, time.clone()).prop_map(|(number, time)| Promoted(number, time)),
        1 => Just(Ends),
        4 => time.prop_map(Starts),
    ]
}

proptest! {
    #[test]
    fn whatever_happens(
        events in proptest::collection::vec(event(), 0..60),
        sizes in proptest::collection::vec(0..60u64, 9),
    ) {
        let journal = play(&events).0;
        prop_assert_eq!(&again(&journal), &journal);

        let stored: Vec<u64> = (1..10).collect();
        let candidates = journal.candidates(&stored);
        let quarantined: Vec<u64> = journal.quarantined().map(|entry| entry.number).collect();
        prop_assert_eq!(candidates.len() + quarantined.len(), stored.len());
        prop_assert!(candidates.iter().all(|number| !quarantined.contains(number)));
        prop_assert!(quarantined.iter().all(|number| !journal.is_promoted(*number)));

        let files: Vec<SnapshotSize> = stored
            .iter()
            .zip(sizes)
            .map(|(number, bytes)| SnapshotSize { number: *number, bytes })
            .collect();
        let gone = journal.superfluous(&files, 100);
        let kept: Vec<&SnapshotSize> = files.iter().filter(|file| !gone.contains(&file.number)).collect();
        prop_assert!(kept.len() <= KEPT);
        let serving = journal.last_served();
        let good = stored.iter().copied().filter(|number| journal.is_promoted(*number)).max();
        for needed in serving.into_iter().chain(good) {
            prop_assert!(!gone.contains(&needed));
        }
        let others = kept.iter().filter(|file| Some(file.number) != serving && Some(file.number) != good);
        let bytes: u64 = kept.iter().map(|file| file.bytes).sum();
        prop_assert!(bytes <= 100 || others.count() == 0);
    }
}
