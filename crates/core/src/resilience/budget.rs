//! The retry budget of one placement.
//!
//! Retries help when one endpoint fails. When a whole cell fails, they only add load. So
//! retries are limited to a share of the recent requests, with a minimum for placements
//! with few requests.
//!
//! There are two counters for each of the last ten seconds. They are atomic, so that all
//! threads count without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The length of the window in seconds, including the current one: 9 to 10 s.
const WINDOW: u32 = 10;
/// Requests per retry: 20 %.
const REQUESTS_PER_RETRY: u64 = 5;
/// Retries that are always granted in a window.
const MINIMUM: u64 = 10;

/// The retry budget of a placement: in the last 10 seconds, at most 20 % as many retries as
/// requests, or 10 if that is more.
///
/// Counting is exact while all threads see the same second. When a second ends, a thread may
/// see a window that is one second longer or shorter, and grant one retry too many. A thread
/// that is delayed for longer than the window counts in a later second. Counting never blocks,
/// overflows or allocates.
#[derive(Debug, Default)]
pub struct RetryBudget {
    requests: Window,
    retries: Window,
}

impl RetryBudget {
    /// Counts one request, not its retries. `now` is the time since a fixed
    /// start, the same for all calls, such as the start of the process.
    pub fn request(&self, now: Duration) {
        self.requests.add(second(now));
    }

    /// Takes a retry if the budget has one. `now` as for [`RetryBudget::request`].
    pub fn try_retry(&self, now: Duration) -> bool {
        let second = second(now);
        let allowed = self.requests.sum(second) / REQUESTS_PER_RETRY;
        self.retries.add_below(second, allowed.max(MINIMUM))
    }
}

/// Time in seconds. It stops after 136 years.
fn second(now: Duration) -> u32 {
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}

/// A ring of counters, one for each second. A counter and its second share one word, so
/// that the first to count in a new second sets both at once.
#[derive(Debug, Default)]
struct Window([AtomicU64; WINDOW as usize]);

impl Window {
    fn add(&self, second: u32) {
        let counter = self.counter(second);
        let mut seen = counter.load(Relaxed);
        loop {
            let slot = Slot::read(seen);
            if slot.second >= second && slot.count < u32::MAX / 2 {
                // Other threads may add between the load and this, but not 2^31 times.
                counter.fetch_add(1, Relaxed);
                return;
            }
            let next = slot.counted(second).word();
            match counter.compare_exchange_weak(seen, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Counts one, unless the window has `limit` already.
    fn add_below(&self, second: u32, limit: u64) -> bool {
        let counter = self.counter(second);
        let mut seen = counter.load(Relaxed);
        loop {
            // Earlier seconds no longer change. If this one did not change either, the sum is
            // still right.
            if self.sum(second) >= limit {
                return false;
            }
            let next = Slot::read(seen).counted(second).word();
            match counter.compare_exchange_weak(seen, next, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
    }

    fn sum(&self, second: u32) -> u64 {
        let slots = self.0.iter().map(|word| Slot::read(word.load(Relaxed)));
        slots
            .filter(|slot| second.saturating_sub(slot.second) < WINDOW)
            .map(|slot| u64::from(slot.count))
            .sum()
    }

    fn counter(&self, second: u32) -> &AtomicU64 {
        &self.0[(second % WINDOW) as usize]
    }
}

/// One word of a [`Window`]: the second in the upper half, the count in the lower.
#[derive(Clone, Copy)]
struct Slot {
    second: u32,
    count: u32,
}

impl Slot {
    fn read(word: u64) -> Self {
        Self {
            second: (word >> 32) as u32,
            count: word as u32,
        }
    }

    fn word(self) -> u64 {
        u64::from(self.second) << 32 | u64::from(self.count)
    }

    /// This with one more, counted in `second`.
    fn counted(self, second: u32) -> Self {
        if self.second >= second {
            Self {
                count: self.count.saturating_add(1),
                ..self
            }
        } else {
            Self { second, count: 1 }
        }
    }
}
