//! When and where to reconnect.

use std::time::Duration;

/// The bound of the first wait.
const FIRST: Duration = Duration::from_secs(1);
/// The largest bound.
const LAST: Duration = Duration::from_secs(60);
/// A connection that lasted this long resets the backoff. A shorter one does not: the control plane
/// may accept connections and then fail.
const GOOD: Duration = Duration::from_secs(10);

/// Exponential backoff with full jitter over a list of addresses. Each wait is a random time up to a
/// bound, so that edges that lose their control plane together do not reconnect together. The bound
/// is 1 s, and doubles up to 60 s each time all addresses have failed.
#[derive(Clone, Debug)]
pub struct Backoff {
    addresses: usize,
    /// The index of the next address.
    next: usize,
    /// Failed attempts since the last reset.
    failed: u32,
}

impl Backoff {
    /// For a list of `addresses`, at least one. `first` is taken modulo `addresses`; random values
    /// spread edges over the list.
    pub fn new(addresses: usize, first: usize) -> Self {
        let addresses = addresses.max(1);
        Self {
            addresses,
            next: first % addresses,
            failed: 0,
        }
    }

    /// The index of the address to connect to.
    pub fn address(&self) -> usize {
        self.next
    }

    /// An attempt failed, or a connection that lasted for `held` was lost. Returns the wait before the
    /// next attempt, which is at the next address. `random` must be uniformly distributed.
    pub fn failed(&mut self, held: Duration, random: u64) -> Duration {
        if held >= GOOD {
            self.failed = 0;
        }
        let rounds = self.failed as usize / self.addresses;
        self.failed = self.failed.saturating_add(1);
        self.next = (self.next + 1) % self.addresses;
        let doubled = 1_u32.checked_shl(u32::try_from(rounds).unwrap_or(u32::MAX));
        let bound = doubled.map_or(LAST, |times| FIRST.saturating_mul(times).min(LAST));
        // The upper 53 bits, the precision of an `f64`.
        let share = (random >> 11) as f64 / (1_u64 << 53) as f64;
        bound.mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Duration = Duration::ZERO;
    const MOST: u64 = u64::MAX;

    fn seconds(wait: Duration) -> u64 {
        wait.as_secs_f64().round() as u64
    }

    #[test]
    fn the_bound_doubles_to_a_minute_and_stays() {
        let mut backoff = Backoff::new(1, 7);
        let bounds: Vec<_> = (0..9)
            .map(|_| seconds(backoff.failed(NONE, MOST)))
            .collect();
        assert_eq!(bounds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        backoff.failed = u32::MAX;
        assert_eq!(seconds(backoff.failed(NONE, MOST)), 60);
        assert_eq!(
            seconds(backoff.failed(GOOD, MOST)),
            1,
            "after a long connection"
        );
        assert_eq!(
            seconds(backoff.failed(GOOD - Duration::from_millis(1), MOST)),
            2
        );
    }

    #[test]
    fn all_addresses_are_tried_before_the_bound_doubles() {
        let mut backoff = Backoff::new(3, 5);
        let mut seen = Vec::new();
        for _ in 0..7 {
            let address = backoff.address();
            seen.push((address, seconds(backoff.failed(NONE, MOST))));
        }
        assert_eq!(
            seen,
            [(2, 1), (0, 1), (1, 1), (2, 2), (0, 2), (1, 2), (2, 4)]
        );
    }

    #[test]
    fn waits_are_spread_up_to_the_bound() {
        let mut backoff = Backoff::new(1, 0);
        backoff.failed = 3;
        for (random, expected) in [(0, 0.0), (1 << 63, 0.5), (3 << 62, 0.75)] {
            let wait = backoff.clone().failed(NONE, random).as_secs_f64();
            assert!((wait - 8.0 * expected).abs() < 1e-6, "{wait}");
        }
        let wait = backoff.failed(NONE, MOST);
        assert!(wait <= Duration::from_secs(8), "{wait:?}");
    }
}
