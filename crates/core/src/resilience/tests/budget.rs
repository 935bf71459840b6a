//! What a retry budget grants.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::super::RetryBudget;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// How many of `tries` retries are granted.
fn granted(budget: &RetryBudget, tries: usize, now: Duration) -> usize {
    (0..tries).filter(|_| budget.try_retry(now)).count()
}

#[test]
fn a_fifth_of_the_requests_and_ten_at_least() {
    for (requests, expected) in [(0, 10), (1, 10), (50, 10), (54, 10), (55, 11), (1000, 200)] {
        let budget = RetryBudget::default();
        for _ in 0..requests {
            budget.request(seconds(7));
        }
        assert_eq!(granted(&budget, 500, seconds(7)), expected, "{requests}");
    }
}

#[test]
fn what_is_ten_seconds_old_is_forgotten() {
    let budget = RetryBudget::default();
    for _ in 0..100 {
        budget.request(seconds(100));
    }
    assert_eq!(granted(&budget, 15, seconds(105)), 15);
    assert_eq!(granted(&budget, 100, Duration::from_millis(109_999)), 5);
    // The requests are gone, the twenty retries are not.
    assert_eq!(granted(&budget, 100, seconds(110)), 0);
    // Fifteen retries are gone, five are left of the ten that are always granted.
    assert_eq!(granted(&budget, 100, seconds(115)), 5);
    assert_eq!(granted(&budget, 100, seconds(1_000_000)), 10);
}

#[test]
fn no_time_is_out_of_range() {
    let budget = RetryBudget::default();
    for now in [Duration::MAX, Duration::ZERO, seconds(1 << 32), seconds(5)] {
        for _ in 0..100 {
            budget.request(now);
        }
        assert!(granted(&budget, 1000, now) <= 80, "{now:?}");
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Request,
    Retry,
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        30 => Just(Op::Request),
        15 => Just(Op::Retry),
        3 => (0..2500_u64).prop_map(Op::Pass),
        1 => (0..30_000_u64).prop_map(Op::Pass),
    ]
}

proptest! {
    #[test]
    fn a_budget_does_what_a_list_of_all_that_happened_does(
        ops in prop::collection::vec(op(), 0..600),
    ) {
        let budget = RetryBudget::default();
        let (mut now, mut requests, mut retries) = (0, Vec::new(), Vec::new());
        for op in ops {
            let of_late = |times: &[u64]| {
                times.iter().filter(|time| *time / 1000 + 10 > now / 1000).count()
            };
            match op {
                Op::Pass(milliseconds) => now += milliseconds,
                Op::Request => {
                    budget.request(Duration::from_millis(now));
                    requests.push(now);
                }
                Op::Retry => {
                    let expected = of_late(&retries) < (of_late(&requests) / 5).max(10);
                    prop_assert_eq!(budget.try_retry(Duration::from_millis(now)), expected);
                    if expected {
                        retries.push(now);
                    }
                }
            }
        }
    }
}

const THREADS: u64 = 4;

/// Runs `work` on several threads at once; it is told which.
fn race(work: impl Fn(u64) + Sync) {
    let barrier = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                barrier.wait();
                work(thread);
            });
        }
    });
}

#[test]
fn threads_that_agree_on_the_second_count_exactly() {
    let budget = RetryBudget::default();
    let retries = AtomicU64::new(0);
    race(|_| {
        for _ in 0..10_000 {
            budget.request(seconds(3));
        }
    });
    race(|_| {
        let granted = granted(&budget, 5_000, seconds(3)) as u64;
        retries.fetch_add(granted, Relaxed);
    });
    assert_eq!(retries.load(Relaxed), THREADS * 10_000 / 5);
}

/// The clocks of half the threads are ahead by a second: as far apart as they get
/// at the turn of one.
#[test]
fn threads_that_do_not_are_off_by_a_few() {
    const SECONDS: usize = 40;
    const REQUESTS: u64 = 100;
    let budget = RetryBudget::default();
    let granted = [const { AtomicU64::new(0) }; SECONDS];
    let turn = Barrier::new(THREADS as usize);
    race(|thread| {
        for (second, granted) in granted.iter().enumerate() {
            turn.wait();
            let now = seconds(second as u64 + thread % 2);
            for _ in 0..REQUESTS {
                budget.request(now);
                while budget.try_retry(now) {
                    granted.fetch_add(1, Relaxed);
                }
            }
        }
    });
    let granted = granted.map(AtomicU64::into_inner);
    let share_of = |seconds: u64| seconds * THREADS * REQUESTS / 5;
    // What is counted as the last ten seconds may be eight of them that are over,
    // or eleven.
    for nine in granted.windows(9) {
        let retries: u64 = nine.iter().sum();
        assert!(retries <= share_of(11) + THREADS, "{retries}: {granted:?}");
    }
    for eleven in granted.windows(11) {
        let retries: u64 = eleven.iter().sum();
        assert!(retries >= share_of(8), "{retries}: {granted:?}");
    }
}
