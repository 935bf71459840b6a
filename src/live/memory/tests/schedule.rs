use std::time::{Duration, Instant};

use super::super::schedule::{RETRY, SPACING, Schedule, Step};

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

    fn done(&mut self, step: Step, number: u64, well: bool, millis: u64) {
        self.schedule.done(step, number, well, self.at(millis));
    }

    #[track_caller]
    fn expect(&self, millis: u64, step: Step) {
        assert_eq!(self.schedule.next(self.at(millis)), step, "at {millis} ms");
    }

    fn wait(&self, millis: u64) -> Step {
        Step::Wait(Some(self.at(millis)))
    }
}

#[test]
fn a_table_is_stored_at_once_and_promoted_later() {
    let mut clock = Clock::new();
    clock.expect(0, Step::Wait(None));
    clock.serving(1, 0);
    clock.expect(0, Step::Store);
    clock.done(Step::Store, 1, true, 100);
    clock.serving(1, 100);
    clock.expect(100, clock.wait(30_000));
    clock.expect(29_999, clock.wait(30_000));
    clock.expect(30_000, Step::Promote);
    clock.done(Step::Promote, 1, true, 30_001);
    clock.expect(90_000, Step::Wait(None));
}

#[test]
fn of_a_burst_the_last_one_is_stored() {
    assert_eq!(SPACING, Duration::from_secs(1));
    let mut clock = Clock::new();
    clock.serving(1, 0);
    clock.expect(0, Step::Store);
    // It was replaced while it was written, and again and again.
    clock.serving(2, 50);
    clock.done(Step::Store, 1, true, 100);
    for (number, millis) in [(3, 300), (4, 700), (5, 1000)] {
        clock.serving(number, millis);
        clock.expect(millis, clock.wait(1100));
    }
    clock.expect(1100, Step::Store);
    clock.done(Step::Store, 5, true, 1200);
    // From when it began to serve.
    clock.expect(1300, clock.wait(31_000));
}

#[test]
fn what_fails_is_tried_again() {
    assert_eq!(RETRY, Duration::from_secs(5));
    let mut clock = Clock::new();
    clock.serving(1, 0);
    clock.done(Step::Store, 1, false, 10);
    clock.expect(20, clock.wait(5010));
    clock.serving(2, 1000);
    clock.expect(1000, clock.wait(5010));
    clock.expect(5010, Step::Store);
    clock.done(Step::Store, 2, true, 5100);
    clock.expect(31_000, Step::Promote);
    clock.done(Step::Promote, 2, false, 31_010);
    clock.expect(31_020, clock.wait(36_010));
    clock.expect(36_010, Step::Promote);
}

#[test]
fn a_table_that_is_replaced_is_not_promoted() {
    let mut clock = Clock::new();
    clock.serving(1, 0);
    clock.done(Step::Store, 1, true, 0);
    clock.expect(30_000, Step::Promote);
    clock.serving(2, 30_000);
    clock.done(Step::Promote, 1, true, 30_010);
    clock.done(Step::Store, 2, true, 31_010);
    clock.expect(59_999, clock.wait(60_000));
}
