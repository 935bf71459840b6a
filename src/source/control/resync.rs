//! When to request a snapshot: one request at a time, with growing pauses while
//! snapshots do not help. A pure state machine: the time is passed in.

use std::time::{Duration, Instant};

/// How long an answer may take: a control plane sends few snapshots at a time.
const ANSWER: Duration = Duration::from_secs(60);

/// The longest pause between two requests.
const LONGEST: Duration = Duration::from_secs(60);

/// The requests since the table was last known to be right.
#[derive(Debug, Default)]
pub(super) struct Resyncs {
    /// When the unanswered request was sent.
    asked: Option<Instant>,
    /// When the last request was sent, and how many were.
    last: Option<(Instant, u32)>,
    /// Why a snapshot is needed, and since when.
    wanted: Option<(String, Instant)>,
}

impl Resyncs {
    /// A snapshot is needed.
    pub fn want(&mut self, reason: String, now: Instant) {
        self.wanted = Some((reason, now));
    }

    /// The reason of the request to send now, if one is due.
    pub fn take(&mut self, now: Instant) -> Option<String> {
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        let times = self.last.map_or(0, |(_, times)| times);
        self.asked = Some(now);
        self.last = Some((now, times.saturating_add(1)));
        self.wanted.take().map(|(reason, _)| reason)
    }

    /// When the next request is due, if a snapshot is needed.
    pub fn due(&self) -> Option<Instant> {
        let (_, since) = self.wanted.as_ref()?;
        let answer = self.asked.map(|asked| asked + ANSWER);
        let pause = self.last.map(|(last, times)| last + pause(times));
        // None sorts before any time.
        answer.max(pause).max(Some(*since))
    }

    /// How many requests did not help. The last one is not counted: it may still.
    pub fn in_vain(&self) -> u32 {
        self.last.map_or(0, |(_, times)| times.saturating_sub(1))
    }

    /// A snapshot begins.
    pub fn answered(&mut self) {
        self.asked = None;
        self.wanted = None;
    }

    /// The edge has the table that it should have.
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
    fn one_request_at_a_time_with_growing_pauses() {
        let mut resyncs = Resyncs::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(resyncs.take(at(0)), None, "nothing is needed");
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
