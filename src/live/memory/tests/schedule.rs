use std::time::{Duration, Instant};

use super::super::schedule::{Next, RETRY, SPACING, Schedule, Step};
use Step::{Note, Promote, Store};

const PROMOTE_AFTER: Duration = Duration::from_secs(30);

struct Clock {
    start: Instant,
    schedule: Schedule,
}

impl Clock {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            schedule: Schedule::new(PROMOTE_AFTER),
        }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn serving(&mut self, number: u64, millis: u64) {
        self.schedule.serving(number, self.at(millis));
    }

    /// Takes a step, from and until when in milliseconds.
    fn take(&mut self, step: Step, number: u64, well: bool, (began, now): (u64, u64)) {
        let (began, now) = (self.at(began), self.at(now));
        assert_eq!(self.schedule.next(began), Next::Take(step));
        self.schedule.taken(step, number, well, began, now);
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
    let mut clock = Clock::new();
    clock.expect(0, Next::Wait(None));
    clock.serving(1, 0);
    clock.take(Note, 1, true, (0, 2));
    clock.take(Store, 1, true, (2, 10));
    clock.serving(1, 100);
    clock.expect(100, clock.wait(30_000));
    clock.expect(29_999, clock.wait(30_000));
    clock.take(Promote, 1, true, (30_000, 30_001));
    clock.expect(90_000, Next::Wait(None));
}

#[test]
fn of_a_burst_all_are_noted_and_the_last_one_is_stored() {
    assert_eq!(SPACING, Duration::from_secs(1));
    let mut clock = Clock::new();
    clock.serving(1, 0);
    clock.take(Note, 1, true, (0, 1));
    clock.expect(1, Next::Take(Store));
    // It is replaced while it is written, and again and again.
    clock.serving(2, 20);
    let (began, now) = (clock.at(1), clock.at(30));
    clock.schedule.taken(Store, 1, true, began, now);
    for (number, millis) in [(2, 30), (3, 300), (4, 700), (5, 1000)] {
        clock.serving(number, millis);
        clock.take(Note, number, true, (millis, millis + 1));
        clock.expect(millis + 1, clock.wait(1030));
    }
    clock.take(Store, 5, true, (1030, 1040));
    // From when it began to serve.
    clock.expect(1300, clock.wait(31_000));
}

/// Else a large table that changes all the time would keep a processor and the
/// disk busy for nothing else.
#[test]
fn writing_takes_no_more_than_a_twentieth_of_the_time() {
    let mut clock = Clock::new();
    clock.serving(1, 0);
    clock.take(Note, 1, true, (0, 10));
    clock.take(Store, 1, true, (10, 3010));
    clock.serving(2, 3020);
    clock.take(Note, 2, true, (3020, 3030));
    clock.expect(3030, clock.wait(63_010));
    clock.serving(3, 3100);
    clock.expect(3100, clock.wait(3230));
    clock.take(Note, 3, true, (3230, 3230));
    clock.take(Store, 3, true, (63_010, 63_020));
}

#[test]
fn what_fails_is_tried_again() {
    assert_eq!(RETRY, Duration::from_secs(5));
    let mut clock = Clock::new();
    clock.serving(1, 0);
    clock.take(Note, 1, false, (0, 10));
    clock.expect(20, clock.wait(5010));
    clock.serving(2, 1000);
    clock.expect(1000, clock.wait(5010));
    clock.take(Note, 2, true, (5010, 5010));
    clock.take(Store, 2, false, (5010, 5100));
    clock.take(Store, 2, true, (10_100, 10_200));
    clock.take(Promote, 2, false, (31_000, 31_010));
    clock.expect(31_020, clock.wait(36_010));
    clock.take(Promote, 2, true, (36_010, 36_010));
}

#[test]
fn a_table_that_is_replaced_is_not_promoted() {
    let mut clock = Clock::new();
    clock.serving(1, 0);
    clock.take(Note, 1, true, (0, 0));
    clock.take(Store, 1, true, (0, 0));
    clock.expect(30_000, Next::Take(Promote));
    clock.serving(2, 30_000);
    let now = clock.at(30_010);
    clock.schedule.taken(Promote, 1, true, now, now);
    clock.take(Note, 2, true, (30_010, 30_010));
    clock.take(Store, 2, true, (30_010, 30_010));
    clock.expect(59_999, clock.wait(60_000));
}
