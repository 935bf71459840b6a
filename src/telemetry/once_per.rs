//! Repeated log lines, at most one in a period.

use std::time::{Duration, Instant};

/// Lets the first of many equal log lines through, then one in each period, and
/// counts the others.
#[derive(Debug)]
pub struct OncePer {
    period: Duration,
    last: Option<Instant>,
    suppressed: u64,
}

impl OncePer {
    pub fn new(period: Duration) -> OncePer {
        OncePer {
            period,
            last: None,
            suppressed: 0,
        }
    }

    /// `Some(n)`: log it; `n` were suppressed since the last one. `None`: suppress
    /// it.
    pub fn allow(&mut self, now: Instant) -> Option<u64> {
        let early = self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < self.period);
        if early {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_period_with_the_count_of_those_suppressed() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut complaints = OncePer::new(Duration::from_secs(60));
        for (second, expected) in [
            (0, Some(0)),
            (1, None),
            (59, None),
            (60, Some(2)),
            (119, None),
            (1000, Some(1)),
            (1060, Some(0)),
        ] {
            assert_eq!(complaints.allow(at(second)), expected, "second {second}");
        }
    }
}
