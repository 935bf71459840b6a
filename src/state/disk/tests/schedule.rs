use std::time::{Duration, Instant, UNIX_EPOCH};

use proptest::prelude::*;

use super::super::schedule::{
    CHANGE_SPACING, CONTACT, Next, Outcome, RETRY, SPACING, Schedule, Served, Step,
};
use Outcome::{Failed, Long, Well, Whole};
use Step::{Append, Contact, Note, Promote, Store};

const PROMOTE_AFTER: Duration = Duration::from_secs(30);

struct Clock {
    start: Instant,
    schedule: Schedule,
}

fn served(number: u64) -> Served {
    Served {
        number,
        digest: format!("{number:032x}").parse().unwrap(),
        applied_at: UNIX_EPOCH,
    }
}

impl Clock {
    fn new() -> Self {
        let start = Instant::now();
        Self {
            start,
            schedule: Schedule::new(PROMOTE_AFTER, start),
        }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn serving(&mut self, number: u64, millis: u64) {
        self.schedule.serving(served(number), self.at(millis));
    }

    /// Takes a step, from and until when in milliseconds.
    #[track_caller]
    fn take(&mut self, step: Step, outcome: Outcome, (began, now): (u64, u64)) {
        let (began, now) = (self.at(began), self.at(now));
        assert_eq!(self.schedule.next(began), Next::Take(step));
        self.schedule.taken(step, outcome, began, now);
    }

    /// Takes all steps at once that there are.
    fn take_all(&mut self, millis: u64, outcome: Outcome) -> Vec<Step> {
        let now = self.at(millis);
        let mut taken = Vec::new();
        while let Next::Take(step) = self.schedule.next(now) {
            let outcome = if step == Append { outcome } else { Well };
            self.schedule.taken(step, outcome, now, now);
            taken.push(step);
        }
        taken
    }

    #[track_caller]
    fn expect(&self, millis: u64, next: Next) {
        assert_eq!(self.schedule.next(self.at(millis)), next, "at {millis} ms");
    }

    fn wait(&self, millis: u64) -> Next {
        Next::Wait(Some(self.at(millis)))
    }
}

#[test]
fn a_table_is_noted_and_stored_at_once_and_promoted_later() {
    assert_eq!(CONTACT, Duration::from_secs(60));
    let mut clock = Clock::new();
    clock.expect(0, Next::Wait(None));
    clock.serving(1, 0);
    clock.take(Note, Well, (0, 2));
    clock.take(Append, Whole, (2, 2));
    clock.take(Store, Well, (2, 10));
    clock.serving(1, 100);
    clock.expect(100, clock.wait(30_000));
    clock.expect(29_999, clock.wait(30_000));
    clock.take(Promote(served(1)), Well, (30_000, 30_001));
    clock.expect(30_001, clock.wait(60_000));
    clock.take(Contact, Well, (60_000, 60_000));
    clock.expect(90_000, clock.wait(120_000));
}

#[test]
fn a_change_that_can_be_added_is_not_written_whole() {
    assert_eq!(CHANGE_SPACING, Duration::from_millis(100));
    let mut clock = Clock::new();
    clock.serving(1, 0);
    clock.take(Note, Well, (0, 0));
    clock.take(Append, Well, (0, 1));
    clock.expect(1, clock.wait(30_000));
    // One write for all that comes in a burst.
    for number in 2..=9 {
        clock.serving(number, 10 * number);
        clock.take(Note, Well, (10 * number, 10 * number));
        clock.expect(10 * number, clock.wait(101));
    }
    clock.take(Append, Well, (101, 102));
    // Unless there are many changes already; and that is no hurry.
    clock.serving(10, 300);
    clock.take(Note, Well, (300, 300));
    clock.take(Append, Long, (300, 300));
    clock.take(Store, Well, (300, 1300));
    clock.serving(11, 1400);
    clock.take(Note, Well, (1400, 1400));
    clock.take(Append, Long, (1400, 1400));
    clock.expect(1400, clock.wait(21_300));
    clock.serving(12, 2000);
    clock.take(Note, Well, (2000, 2000));
    clock.take(Append, Long, (2000, 2000));
    clock.take(Store, Well, (21_300, 21_300));
}

#[test]
fn of_a_burst_all_are_noted_and_the_last_one_is_stored() {
    assert_eq!(SPACING, Duration::from_secs(1));
    let mut clock = Clock::new();
    clock.serving(1, 0);
    clock.take(Note, Well, (0, 1));
    clock.take(Append, Whole, (1, 1));
    clock.take(Store, Well, (1, 30));
    for (number, millis) in [(2, 30), (3, 300), (4, 700), (5, 1000)] {
        clock.serving(number, millis);
        assert_eq!(clock.take_all(millis, Whole)[..1], [Note]);
    }
    clock.expect(1000, clock.wait(1030));
    clock.take(Store, Well, (1030, 1040));
    // From when it began to serve.
    clock.take(Promote(served(1)), Well, (30_000, 30_000));
    clock.expect(30_000, clock.wait(31_000));
}

/// Else a large table that changes all the time would keep a processor and the
/// disk busy for nothing else.
#[test]
fn writing_takes_no_more_than_a_twentieth_of_the_time() {
    let mut clock = Clock::new();
    clock.serving(1, 0);
    clock.take(Note, Well, (0, 10));
    clock.take(Append, Whole, (10, 10));
    clock.take(Store, Well, (10, 3010));
    clock.serving(2, 3020);
    clock.take(Note, Well, (3020, 3030));
    clock.take(Append, Whole, (3030, 3050));
    clock.serving(3, 3100);
    clock.expect(3100, clock.wait(3230));
    clock.take(Note, Well, (3230, 3230));
    clock.expect(3230, clock.wait(3450));
    clock.take(Append, Whole, (3450, 3450));
    clock.expect(3450, clock.wait(30_000));
    clock.take(Promote(served(1)), Well, (30_000, 30_000));
    clock.take(Contact, Well, (60_000, 60_000));
    clock.expect(60_000, clock.wait(63_010));
    clock.take(Store, Well, (63_010, 63_020));
}

#[test]
fn what_fails_is_tried_again() {
    assert_eq!(RETRY, Duration::from_secs(5));
    let mut clock = Clock::new();
    clock.serving(1, 0);
    clock.take(Note, Failed, (0, 10));
    clock.expect(20, clock.wait(5010));
    clock.serving(2, 1000);
    clock.expect(1000, clock.wait(5010));
    clock.take(Note, Well, (5010, 5010));
    clock.take(Append, Failed, (5010, 5100));
    clock.take(Append, Whole, (10_100, 10_100));
    clock.take(Store, Failed, (10_100, 10_100));
    clock.take(Store, Well, (15_100, 15_200));
    clock.take(Promote(served(2)), Failed, (31_000, 31_010));
    clock.expect(31_020, clock.wait(36_010));
    clock.take(Promote(served(2)), Well, (36_010, 36_010));
}

#[test]
fn a_table_that_is_replaced_is_promoted_all_the_same() {
    let mut clock = Clock::new();
    clock.serving(1, 0);
    assert_eq!(clock.take_all(0, Whole), [Note, Append, Store]);
    clock.serving(2, 29_990);
    assert_eq!(clock.take_all(29_990, Whole), [Note, Append, Store]);
    clock.expect(29_990, clock.wait(30_000));
    clock.take(Promote(served(1)), Well, (30_000, 30_000));
    clock.expect(59_989, clock.wait(59_990));
    clock.take(Promote(served(2)), Well, (59_990, 59_990));
}

#[test]
fn what_is_not_on_disk_is_not_promoted() {
    let mut clock = Clock::new();
    clock.serving(1, 0);
    clock.take(Note, Well, (0, 0));
    clock.take(Append, Whole, (0, 0));
    clock.take(Store, Failed, (0, 0));
    clock.serving(2, 10);
    clock.take(Note, Well, (10, 10));
    clock.take(Append, Whole, (100, 100));
    clock.take(Store, Well, (5000, 5000));
    clock.expect(5000, clock.wait(30_010));
}

/// Changes that come faster than any of them can prove to be good do not keep all of
/// them from it.
#[test]
fn in_a_stream_there_is_always_a_good_one() {
    let mut clock = Clock::new();
    let mut promoted = Vec::new();
    for number in 1..1200 {
        let millis = number * 100;
        clock.serving(number, millis);
        for step in clock.take_all(millis, Well) {
            if let Promote(served) = step {
                promoted.push((served.number, number));
            }
        }
    }
    let first = promoted.first().unwrap();
    assert!((1..=2).contains(&first.0) && first.1 <= 302, "{promoted:?}");
    for pair in promoted.windows(2) {
        assert!(
            pair[1].0 > pair[0].0 && pair[1].1 - pair[0].1 <= 40,
            "{promoted:?}"
        );
    }
    for (number, when) in &promoted {
        assert!((300..=301).contains(&(when - number)), "{promoted:?}");
    }
    assert!(promoted.len() < 40, "{promoted:?}");
    // And the last one of all is.
    let last = clock.take_all(1199 * 100 + 30_000, Well);
    assert!(last.contains(&Promote(served(1199))), "{last:?}");
}

proptest! {
    /// Whenever changes come, and however it goes, the last one is promoted in the
    /// end, and none before it has served for long enough.
    #[test]
    fn the_last_one_is_promoted(
        gaps in proptest::collection::vec((1..20_000u64, 0..4usize), 1..60),
    ) {
        let mut clock = Clock::new();
        let (mut millis, mut began) = (0, vec![0]);
        let mut promoted = Vec::new();
        let ends = [(5_000, 0), (10_000, 0), (70_000, 0)];
        for (nth, (gap, how)) in gaps.iter().chain(&ends).enumerate() {
            millis += gap;
            if nth < gaps.len() {
                clock.serving(began.len() as u64, millis);
                began.push(millis);
            }
            let outcome = [Well, Long, Whole, Failed][*how];
            for step in clock.take_all(millis, outcome) {
                if let Promote(served) = step {
                    prop_assert!(millis >= began[served.number as usize] + 30_000);
                    promoted.push(served.number);
                }
            }
        }
        prop_assert_eq!(promoted.last().copied(), Some(gaps.len() as u64));
        prop_assert!(promoted.is_sorted_by(|one, next| one < next));
    }
}
