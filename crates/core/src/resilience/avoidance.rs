//! Avoids a backend after a failed connect, as long as there is another.
//!
//! Without it, balancing by requests in flight would prefer the dead backend, which has none.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The first pause; it doubles with each failed trial.
const FIRST: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(10);

/// Whether a backend is to be avoided. Shared by all threads without a lock. `now` is the
/// time since a fixed start.
#[derive(Debug, Default)]
pub struct Avoidance {
    /// The end of the pause in microseconds; 0 if there is none.
    until: AtomicU64,
    /// Pauses in a row.
    pauses: AtomicU32,
}

impl Avoidance {
    /// Records that connecting failed. An attempt that fails during a pause began before it
    /// and does not extend it.
    pub fn failed(&self, now: Duration) {
        let until = self.until.load(Relaxed);
        if until <= micros(now) {
            let _ = self.pause(until, now);
        }
    }

    /// Records that connecting succeeded.
    pub fn connected(&self) {
        if self.until.load(Relaxed) != 0 {
            self.until.store(0, Relaxed);
            self.pauses.store(0, Relaxed);
        }
    }

    /// Whether other backends are preferred.
    pub fn avoided(&self, now: Duration) -> bool {
        self.until.load(Relaxed) > micros(now)
    }

    /// Claims the use of the backend. Succeeds always if there was no pause. After a pause, it
    /// succeeds only for the first caller, whose attempt is the trial; the next pause begins.
    pub fn claim(&self, now: Duration) -> Option<Claim> {
        match self.until.load(Relaxed) {
            0 => Some(Claim(0)),
            until if until > micros(now) => None,
            until => self.pause(until, now).map(Claim),
        }
    }

    /// Gives back a trial that ended without an outcome, so that the next caller gets it.
    pub fn give_back(&self, claim: Claim, now: Duration) {
        if claim.is_trial() {
            // Fails when the pause ended or another began meanwhile.
            let _ = self
                .until
                .compare_exchange(claim.0, micros(now), Relaxed, Relaxed);
        }
    }

    /// Begins a pause, unless another thread did so first. Returns its end.
    fn pause(&self, last: u64, now: Duration) -> Option<u64> {
        let pauses = self.pauses.load(Relaxed);
        let pause = FIRST.saturating_mul(1 << pauses.min(16)).min(LONGEST);
        let until = micros(now + pause);
        self.until
            .compare_exchange(last, until, Relaxed, Relaxed)
            .ok()?;
        self.pauses.store(pauses.saturating_add(1), Relaxed);
        Some(until)
    }
}

/// The right to use a backend; after a pause, the right to try it.
#[derive(Clone, Copy, Debug)]
#[must_use = "a trial without an outcome must be given back"]
pub struct Claim(u64);

impl Claim {
    /// A claim that is not a trial.
    pub const NONE: Claim = Claim(0);

    /// Whether it is a trial.
    pub fn is_trial(self) -> bool {
        self.0 != 0
    }
}

/// Never 0, which stands for none.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn there_is_one_trial_after_each_pause() {
        let backend = Avoidance::default();
        let may = |now| backend.claim(at(now)).is_some();
        assert!(may(0) && may(0));
        let mut now = 5;
        backend.failed(at(now));
        for pause in [1_000, 2_000, 4_000, 8_000, 10_000, 10_000] {
            assert!(backend.avoided(at(now)));
            assert!(!may(now + pause - 1), "{pause}");
            assert!(!backend.avoided(at(now + pause)), "{pause}");
            now += pause;
            assert!(may(now));
            assert!(!may(now), "a second one waits");
            // The trial fails, and then attempts that began before the pause.
            backend.failed(at(now + 10));
            backend.failed(at(now + 20));
        }
        backend.connected();
        assert!(!backend.avoided(at(now)) && may(now));
        backend.failed(at(now));
        assert!(!backend.avoided(at(now + 1_000)), "short again");
    }

    #[test]
    fn a_burst_of_failures_is_one_pause() {
        let backend = Avoidance::default();
        for _ in 0..1000 {
            backend.failed(at(1));
        }
        assert!(backend.avoided(at(1_000)));
        assert!(!backend.avoided(at(1_001)));
    }

    #[test]
    fn a_trial_without_an_outcome_goes_to_the_next_caller() {
        let backend = Avoidance::default();
        backend.failed(at(0));
        let first = backend.claim(at(1_000)).expect("the pause is over");
        assert!(backend.avoided(at(1_001)));
        backend.give_back(first, at(1_001));
        let second = backend.claim(at(1_001)).expect("it came back");
        // A success in the meantime stays.
        backend.connected();
        backend.give_back(second, at(1_002));
        assert!(backend.claim(at(1_002)).is_some() && backend.claim(at(1_002)).is_some());
    }

    #[test]
    fn one_of_many_threads_gets_the_trial() {
        let backend = Avoidance::default();
        backend.failed(at(0));
        let claims: usize = std::thread::scope(|scope| {
            let claim = || usize::from(backend.claim(at(2_000)).is_some());
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(claim)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(claims, 1);
    }
}
