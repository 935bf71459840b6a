//! When there is something to write: a function of what happened and when.

use std::time::{Duration, Instant};

/// The least time between two writes: of generations that come in a burst, the
/// last one is kept and those in between need not be.
pub(super) const SPACING: Duration = Duration::from_secs(1);

/// How soon a write that failed is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(5);

/// What has been written of the generation that is being served.
#[derive(Debug)]
pub(super) struct Schedule {
    promote_after: Duration,
    /// The generation, and when it was first seen.
    serving: Option<(u64, Instant)>,
    stored: bool,
    promoted: bool,
    /// Nothing is written before.
    not_before: Option<Instant>,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Store,
    Promote,
    /// Nothing, before this moment or another generation.
    Wait(Option<Instant>),
}

impl Schedule {
    pub fn new(promote_after: Duration) -> Self {
        Self {
            promote_after,
            serving: None,
            stored: false,
            promoted: false,
            not_before: None,
        }
    }

    /// The generation `number` is being served.
    pub fn serving(&mut self, number: u64, now: Instant) {
        if self.serving.is_none_or(|(serving, _)| serving != number) {
            self.serving = Some((number, now));
            self.stored = false;
            self.promoted = false;
        }
    }

    pub fn next(&self, now: Instant) -> Step {
        let Some((_, since)) = self.serving else {
            return Step::Wait(None);
        };
        let (step, due) = match (self.stored, self.promoted) {
            (false, _) => (Step::Store, now),
            (true, false) => (Step::Promote, since + self.promote_after),
            (true, true) => return Step::Wait(None),
        };
        let due = self.not_before.map_or(due, |earliest| earliest.max(due));
        if due <= now {
            step
        } else {
            Step::Wait(Some(due))
        }
    }

    /// `step` was tried for the generation `number`.
    pub fn done(&mut self, step: Step, number: u64, well: bool, now: Instant) {
        self.not_before = Some(now + if well { SPACING } else { RETRY });
        if well && self.serving.is_some_and(|(serving, _)| serving == number) {
            match step {
                Step::Store => self.stored = true,
                Step::Promote => self.promoted = true,
                Step::Wait(_) => {}
            }
        }
    }
}
