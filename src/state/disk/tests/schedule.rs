use std::time::{Duration, Instant, UNIX_EPOCH};

use proptest::prelude::*;

use super::super::schedule::{
    CONTACT, DELTA_SPACING, Next, Outcome, RETRY, SPACING, Schedule, Served, Step,
};
use Outcome::{DeltasTooLong, Done, Failed, NeedsSnapshot};
use Step::{Contact, Delta, Journal, Promote, Snapshot};

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

    /// Takes a step that begins and ends at these milliseconds.
    #[track_caller]
    fn take(&mut self, step: Step, outcome: Outcome, (began, now): (u64, u64)) {
        let (began, now) = (self.at(began), self.at(now));
        assert_eq!(self.schedule.next(began), Next::Take(step));
        self.schedule.taken(step, outcome, began, now);
    }

    /// Takes all steps that are due.
    fn take_all(&mut self, millis: u64, outcome: Outcome) -> Vec<Step> {
        let now = self.at(millis);
        let mut taken = Vec::new();
        while let Next::Take(step) = self.schedule.next(now) {
            let outcome = if step == Delta { outcome } else { Done };
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
fn a_generation_is_journaled_and_stored_at_once_and_promoted_later() {
    assert_eq!(CONTACT, Duration::from_secs(60));
    let mut clock = Clock::new();
    clock.expect(0, Next::Wait(None));
    clock.serving(1, 0);
    clock.take(Journal, Done, (0, 2));
    clock.take(Delta, NeedsSnapshot, (2, 2));
    clock.take(Snapshot, Done, (2, 10));
    clock.serving(1, 100);
    clock.expect(100, clock.wait(30_000));
    clock.expect(29_999, clock.wait(30_000));
    clock.take(Promote(served(1)), Done, (30_000, 30_001));
    clock.expect(30_001, clock.wait(60_000));
    clock.take(Contact, Done, (60_000, 60_000));
    clock.expect(90_000, clock.wait(120_000));
}

#[test]
fn a_delta_replaces_a_snapshot() {
    assert_eq!(DELTA_SPACING, Duration::from_millis(100));
    let mut clock = Clock::new();
    clock.serving(1, 0);
    clock.take(Journal, Done, (0, 0));
    clock.take(Delta, Done, (0, 1));
    clock.expect(1, clock.wait(30_000));
    // A burst is stored as one delta.
    for number in 2..=9 {
        clock.serving(number, 10 * number);
        clock.take(Journal, Done, (10 * number, 10 * number));
        clock.expect(10 * number, clock.wait(101));
    }
    clock.take(Delta, Done, (101, 102));
    // When there are many deltas, a snapshot follows, at the spacing of snapshots.
    clock.serving(10, 300);
    clock.take(Journal, Done, (300, 300));
    clock.take(Delta, DeltasTooLong, (300, 300));
    clock.take(Snapshot, Done, (300, 1300));
    clock.serving(11, 1400);
    clock.take(Journal, Done, (1400, 1400));
    clock.take(Delta, DeltasTooLong, (1400, 1400));
    clock.expect(1400, clock.wait(21_300));
    clock.serving(12, 2000);
    clock.take(Journal, Done, (2000, 2000));
    clock.take(Delta, DeltasTooLong, (2000, 2000));
    clock.take(Snapshot, Done, (21_300, 21_300));
}

#[test]
fn of_a_burst_all_are_journaled_and_the_last_one_is_stored() {
    assert_eq!(SPACING, Duration::from_secs(1));
    let mut clock = Clock::new();
    clock.serving(1, 0);
    clock.take(Journal, Done, (0, 1));
    clock.take(Delta, NeedsSnapshot, (1, 1));
    clock.take(Snapshot, Done, (1, 30));
    for (number, millis) in [(2, 30), (3, 300), (4, 700), (5, 1000)] {
        clock.serving(number, millis);
        assert_eq!(clock.take_all(millis, NeedsSnapshot)[..1], [Journal]);
    }
    clock.expect(1000, clock.wait(1030));
    clock.take(Snapshot, Done, (1030, 1040));
    // Counted from when it began to serve.
    clock.take(Promote(served(1)), Done, (30_000, 30_000));
    clock.expect(30_000, clock.wait(31_000));
}

/// A large table that changes all the time does not keep a processor and the disk busy.
#[test]
fn writing_takes_at_most_a_twentieth_of_the_time() {
    let mut clock = Clock::new();
    clock.serving(1, 0);
    clock.take(Journal, Done, (0, 10));
    clock.take(Delta, NeedsSnapshot, (10, 10));
    clock.take(Snapshot, Done, (10, 3010));
    clock.serving(2, 3020);
    clock.take(Journal, Done, (3020, 3030));
    clock.take(Delta, NeedsSnapshot, (3030, 3050));
    clock.serving(3, 3100);
    clock.expect(3100, clock.wait(3230));
    clock.take(Journal, Done, (3230, 3230));
    clock.expect(3230, clock.wait(3450));
    clock.take(Delta, NeedsSnapshot, (3450, 3450));
    clock.expect(3450, clock.wait(30_000));
    clock.take(Promote(served(1)), Done, (30_000, 30_000));
    clock.take(Contact, Done, (60_000, 60_000));
    clock.expect(60_000, clock.wait(63_010));
    clock.take(Snapshot, Done, (63_010, 63_020));
}

#[test]
fn failed_steps_are_retried() {
    assert_eq!(RETRY, Duration::from_secs(5));
    let mut clock = Clock::new();
    clock.serving(1, 0);
    clock.take(Journal, Failed, (0, 10));
    clock.expect(20, clock.wait(5010));
    clock.serving(2, 1000);
    clock.expect(1000, clock.wait(5010));
    clock.take(Journal, Done, (5010, 5010));
    clock.take(Delta, Failed, (5010, 5100));
    clock.take(Delta, NeedsSnapshot, (10_100, 10_100));
    clock.take(Snapshot, Failed, (10_100, 10_100));
    clock.take(Snapshot, Done, (15_100, 15_200));
    clock.take(Promote(served(2)), Failed, (31_000, 31_010));
    clock.expect(31_020, clock.wait(36_010));
    clock.take(Promote(served(2)), Done, (36_010, 36_010));
}

#[test]
fn a_replaced_generation_is_promoted_as_well() {
    let mut clock = Clock::new();
    clock.serving(1, 0);
    assert_eq!(clock.take_all(0, NeedsSnapshot), [Journal, Delta, Snapshot]);
    clock.serving(2, 29_990);
    assert_eq!(
        clock.take_all(29_990, NeedsSnapshot),
        [Journal, Delta, Snapshot]
    );
    clock.expect(29_990, clock.wait(30_000));
    clock.take(Promote(served(1)), Done, (30_000, 30_000));
    clock.expect(59_989, clock.wait(59_990));
    clock.take(Promote(served(2)), Done, (59_990, 59_990));
}

#[test]
fn what_is_not_stored_is_not_promoted() {
    let mut clock = Clock::new();
    clock.serving(1, 0);
    clock.take(Journal, Done, (0, 0));
    clock.take(Delta, NeedsSnapshot, (0, 0));
    clock.take(Snapshot, Failed, (0, 0));
    clock.serving(2, 10);
    clock.take(Journal, Done, (10, 10));
    clock.take(Delta, NeedsSnapshot, (100, 100));
    clock.take(Snapshot, Done, (5000, 5000));
    clock.expect(5000, clock.wait(30_010));
}

/// Even when each generation is replaced long before `promote_after` has passed.
#[test]
fn in_a_stream_of_generations_some_are_promoted() {
    let mut clock = Clock::new();
    let mut promoted = Vec::new();
    for number in 1..1200 {
        let millis = number * 100;
        clock.serving(number, millis);
        for step in clock.take_all(millis, Done) {
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
    // The last one is promoted in any case.
    let last = clock.take_all(1199 * 100 + 30_000, Done);
    assert!(last.contains(&Promote(served(1199))), "{last:?}");
}

proptest! {
    /// Whenever generations come and whichever writes fail, the last one is promoted in the
    /// end, and none before `promote_after` has passed.
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
            let outcome = [Done, DeltasTooLong, NeedsSnapshot, Failed][*how];
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
