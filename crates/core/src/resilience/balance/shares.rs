//! Members' weights as shares of a line: each member owns as many points of `0..total` as
//! its weight.
//!
//! A random point draws a member by weight. Round robin walks the line in steps that have
//! no divisor in common with its length: it visits each point once a cycle, so each member
//! exactly as often as its weight says, and keeps no schedule. How evenly a member's turns
//! are spread depends on the step. The golden ratio of the line would be best (Knuth, The
//! Art of Computer Programming, volume 3, section 6.4), because its continued fraction has
//! only ones; of the whole numbers close to it, the one with the smallest quotients is taken.

/// The golden ratio's inverse.
const GOLDEN: f64 = 0.618_033_988_749_894_9;
/// How far around the golden ratio of the line to look for a step. Of 65 numbers
/// in a row, one at least has no divisor in common with any total below 10^11.
const SEARCH: u64 = 32;

#[derive(Debug)]
pub(super) struct Shares {
    /// Where each member's share ends, ascending. Empty if all weights are equal:
    /// then each member owns the point that is its index.
    ends: Box<[u64]>,
    total: u64,
    step: u64,
}

impl Shares {
    /// `weights` are at least 1.
    pub(super) fn new(weights: impl ExactSizeIterator<Item = u32> + Clone) -> Self {
        let divisor = weights.clone().map(u64::from).fold(0, gcd).max(1);
        let shares = weights.map(|weight| u64::from(weight) / divisor);
        if shares.clone().all(|share| share == 1) {
            return Self {
                ends: Box::default(),
                total: shares.len() as u64,
                step: 1,
            };
        }
        let ends: Box<[u64]> = shares
            .scan(0, |end, share| {
                *end += share;
                Some(*end)
            })
            .collect();
        let total = ends.last().copied().unwrap_or_default();
        Self {
            ends,
            total,
            step: step(total),
        }
    }

    /// The length of the line, and of a cycle of turns; 0 only without members.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Whether all members have the same weight.
    pub(super) fn are_equal(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whose `point` is; `point` is below the total.
    pub(super) fn at(&self, point: u64) -> usize {
        if self.are_equal() {
            point as usize
        } else {
            self.ends.partition_point(|end| *end <= point)
        }
    }

    /// Whose turn it is. None only without members.
    pub(super) fn of_turn(&self, turn: u64) -> Option<usize> {
        // Both factors are below the total, so that the product fits.
        let distance = turn.checked_rem(self.total)?.wrapping_mul(self.step);
        Some(self.at(distance.checked_rem(self.total)?))
    }
}

/// How far to go on the line from one turn to the next.
fn step(total: u64) -> u64 {
    let middle = (total as f64 * GOLDEN) as u64;
    let close = middle.saturating_sub(SEARCH).max(1)..(middle + SEARCH).min(total);
    close
        .filter(|step| gcd(total, *step) == 1)
        .min_by_key(|step| (largest_quotient(total, *step), step.abs_diff(middle)))
        .unwrap_or(1)
}

/// The largest quotient in the continued fraction of `a / b`.
fn largest_quotient(mut a: u64, mut b: u64) -> u64 {
    let mut largest = 0;
    while let Some(quotient) = a.checked_div(b) {
        largest = largest.max(quotient);
        (a, b) = (b, a % b);
    }
    largest
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
