use std::time::SystemTime;

use proptest::prelude::*;

use super::super::journal::{File, Journal, KEPT};
use super::at;

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A process begins to serve this generation.
    Serves(u64, u64),
    /// The generation has served for long enough.
    Promoted(u64, u64),
    /// The process ends as it should.
    Ends,
    /// Another process starts. Did it not end, the one before crashed.
    Starts(u64),
}
use Event::{Ends, Promoted, Serves, Starts};

/// What was condemned on the way.
fn play(events: &[Event]) -> (Journal, Vec<u64>) {
    let mut journal = Journal::default();
    let mut condemned = Vec::new();
    for event in events {
        match *event {
            Serves(number, time) => serve(&mut journal, number, at(time)),
            Promoted(number, time) => journal.promote(number, at(time)),
            Ends => journal.end(),
            Starts(time) => condemned.extend(journal.judge(at(time))),
        }
    }
    (journal, condemned)
}

fn serve(journal: &mut Journal, number: u64, now: SystemTime) {
    journal.serving(number, &format!("{number:032x}"), now, now);
}

#[test]
fn a_burst_of_changes_does_not_drive_out_what_is_known() {
    let mut events = vec![Serves(1, 0), Promoted(1, 30), Serves(2, 40), Starts(41)];
    events.extend([Serves(2, 42), Starts(43)]);
    events.extend((3..60).map(|number| Serves(number, 40 + number)));
    let (journal, condemned) = play(&events);
    assert_eq!(condemned, [2]);
    assert!(journal.is_promoted(1));
    assert!(journal.is_condemned(2));
    assert_eq!(journal.highest(), 59);
    let text = journal.to_json();
    assert!(text.len() < 20_000, "{} bytes", text.len());
}

#[test]
fn two_crashes_within_a_minute_condemn() {
    for (what, events, condemned) in [
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
            "condemned once is enough",
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
        assert_eq!(play(&events).1, condemned, "{what}");
    }
}

/// As the version before wrote them.
#[test]
fn a_crash_that_was_noted_by_generation_counts() {
    let text = br#"{"format":1,"run":{"serving":1,"since":"2026-01-03T20:45:20Z","ended":false},
        "generations":[{"number":1,"digest":"d","applied_at":"2026-01-03T20:45:00Z",
        "promoted_at":null,"crashed":"2026-01-03T20:45:10Z","condemned_at":null}]}"#;
    let mut journal = Journal::parse(text).unwrap();
    assert_eq!(journal.judge(at(60)), [1]);
}

/// Of what is on disk, nothing may be known when it is tried.
#[test]
fn a_generation_that_cannot_be_read_without_a_crash_is_given_up() {
    let mut journal = Journal::default();
    for (time, condemned) in [(0, vec![]), (1, vec![7])] {
        journal.trying(7, at(time));
        assert_eq!(journal.judge(at(time)), condemned);
    }
    assert_eq!(journal.candidates(&[5, 7]), [5]);
    // It has the digest that it turns out to have.
    journal.know(7, "d", at(9));
    assert!(journal.is_condemned(7));
    assert_eq!(journal.condemned().next().unwrap().digest, "d");
}

#[test]
fn good_ones_do_not_drive_out_bad_ones() {
    let mut events = vec![Serves(2, 0), Starts(1), Serves(2, 2), Starts(3)];
    for number in 3..90 {
        events.extend([Serves(number, 40 + number), Promoted(number, 70 + number)]);
    }
    events.extend((90..120).map(|number| Serves(number, 40 + number)));
    let (journal, _) = play(&events);
    assert!(journal.is_condemned(2));
    assert_eq!(journal.newest_promoted(), Some(89));
    assert!(journal.is_promoted(85) && !journal.is_promoted(70));
    assert_eq!(journal.highest(), 119);
}

/// In a stream, a generation is long forgotten when it has proved to be good.
#[test]
fn what_was_forgotten_can_be_promoted() {
    let (mut journal, _) = play(&(1..100).map(|it| Serves(it, it)).collect::<Vec<_>>());
    journal.know(3, "d", at(3));
    journal.promote(3, at(101));
    assert_eq!(journal.newest_promoted(), Some(3));
    serve(&mut journal, 100, at(101));
    assert!(journal.is_promoted(3));
    assert_eq!(journal.last_served(), Some(100));
}

#[test]
fn the_last_contact_is_remembered() {
    let mut journal = Journal::default();
    assert_eq!(journal.contact(), None);
    journal.heard(Some(at(5)));
    journal.heard(None);
    let again = Journal::parse(&journal.to_json()).unwrap();
    assert_eq!(again.contact(), Some(at(5)));
}

#[test]
fn another_table_under_the_number_begins_anew() {
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
            "a condemned one is none",
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
fn the_newest_is_given_up_until_another_comes() {
    let mut journal = play(&[
        Serves(1, 0),
        Serves(2, 1),
        Starts(2),
        Serves(2, 3),
        Starts(4),
    ])
    .0;
    let given_up = |journal: &Journal| journal.given_up().map(|entry| entry.number);
    assert_eq!(given_up(&journal), Some(2));
    serve(&mut journal, 1, at(5));
    assert_eq!(given_up(&journal), Some(2));
    serve(&mut journal, 3, at(6));
    assert_eq!(given_up(&journal), None);
    let condemned: Vec<u64> = journal.condemned().map(|entry| entry.number).collect();
    assert_eq!(condemned, [2], "it is still refused");
}

#[test]
fn only_so_much_is_kept() {
    let files = |sizes: &[(u64, u64)]| -> Vec<File> {
        let file = |(number, bytes): &(u64, u64)| File {
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

#[test]
fn what_is_no_journal_is_refused() {
    assert!(Journal::parse(b"").is_err());
    assert!(Journal::parse(b"{}").is_err());
    let later = Journal::parse(br#"{"format":2,"run":null,"generations":[]}"#);
    assert_eq!(later.unwrap_err(), "it has the format 2 (known: 1)");
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
        let again = Journal::parse(&journal.to_json()).unwrap();
        prop_assert_eq!(again.to_json(), journal.to_json());

        let stored: Vec<u64> = (1..10).collect();
        let candidates = journal.candidates(&stored);
        let condemned: Vec<u64> = journal.condemned().map(|entry| entry.number).collect();
        prop_assert_eq!(candidates.len() + condemned.len(), stored.len());
        prop_assert!(candidates.iter().all(|number| !condemned.contains(number)));
        prop_assert!(condemned.iter().all(|number| !journal.is_promoted(*number)));

        let files: Vec<File> = stored
            .iter()
            .zip(sizes)
            .map(|(number, bytes)| File { number: *number, bytes })
            .collect();
        let gone = journal.superfluous(&files, 100);
        let kept: Vec<&File> = files.iter().filter(|file| !gone.contains(&file.number)).collect();
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
