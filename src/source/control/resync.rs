//! When to ask for a snapshot: not again while one was asked for, and less and
//! less often while asking does not help. A function of what happened and when.

use std::time::{Duration, Instant};

/// How long the answer may take: a control plane sends few snapshots at a time.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest pause between two.
const LONGEST: Duration = Duration::from_secs(60);

/// What was asked for, and what is to be.
#[derive(Debug, Default)]
pub(super) struct Resyncs {
    /// Not answered yet.
    asked: Option<Instant>,
    /// When it was asked for last, and how often since all was well.
    last: Option<(Instant, u32)>,
    /// Why one is to be asked for once that is due, and since when.
    wanted: Option<(String, Instant)>,
}

impl Resyncs {
    /// A snapshot is wanted.
    pub fn want(&mut self, reason: String, now: Instant) {
        self.wanted = Some((reason, now));
    }

    /// The reason, when it is time to ask.
    pub fn take(&mut self, now: Instant) -> Option<String> {
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        let times = self.last.map_or(0, |(_, times)| times);
        self.asked = Some(now);
        self.last = Some((now, times.saturating_add(1)));
        self.wanted.take().map(|(reason, _)| reason)
    }

    /// When it is time to ask, if anything is wanted.
    pub fn due(&self) -> Option<Instant> {
        let (_, since) = self.wanted.as_ref()?;
        let answer = self.asked.map(|asked| asked + PATIENCE);
        let pause = self.last.map(|(last, times)| last + pause(times));
        // No time at all is before any other.
        answer.max(pause).max(Some(*since))
    }

    /// How often asking did not help since all was well; the one that is being asked
    /// for is not among them.
    pub fn in_vain(&self) -> u32 {
        self.last.map_or(0, |(_, times)| times.saturating_sub(1))
    }

    /// A snapshot has begun.
    pub fn answered(&mut self) {
        self.asked = None;
        self.wanted = None;
    }

    /// What is here is what should be.
    pub fn healed(&mut self) {
        *self = Self::default();
    }
}

fn pause(times: u32) -> Duration {
    let doubled = 1_u64.checked_shl(times.saturating_sub(1));
    Duration::from_secs(doubled.unwrap_or(u64::MAX)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_asked_for_once_and_then_less_and_less_often() {
        let mut resyncs = Resyncs::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(resyncs.take(at(0)), None, "nothing is wanted");
        resyncs.want("a".to_owned(), at(0));
        assert_eq!(resyncs.take(at(0)).as_deref(), Some("a"));
        resyncs.want("b".to_owned(), at(0));
        assert_eq!(resyncs.take(at(59)), None, "it may still be answered");
        assert_eq!(resyncs.take(at(60)).as_deref(), Some("b"));

        // Answered each time, in vain.
        let mut now = 60;
        for pause in [2, 4, 8, 16, 32, 60, 60] {
            resyncs.answered();
            resyncs.want("c".to_owned(), at(now));
            assert_eq!(resyncs.due(), Some(at(now + pause)));
            assert_eq!(resyncs.take(at(now + pause - 1)), None);
            now += pause;
            assert_eq!(resyncs.take(at(now)).as_deref(), Some("c"));
        }
        assert_eq!(resyncs.in_vain(), 8);
        resyncs.healed();
        assert_eq!(resyncs.in_vain(), 0);
        assert_eq!(resyncs.due(), None);
        resyncs.want("d".to_owned(), at(now));
        assert_eq!(resyncs.take(at(now)).as_deref(), Some("d"));
    }
}
