//! When there is something to write: a function of what happened and when.

use std::time::{Duration, Instant};

/// The least time between two tables that are written: of generations that come
/// in a burst, the last one is kept and those in between need not be.
pub(super) const SPACING: Duration = Duration::from_secs(1);

/// How soon a write that failed is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(5);

/// Writing takes at most one part in so many of the time, however large tables
/// are and however often they change.
const SHARE: u32 = 20;

/// What has been written of the generation that is being served.
#[derive(Debug)]
pub(super) struct Schedule {
    promote_after: Duration,
    /// The generation, and when it was first seen.
    serving: Option<(u64, Instant)>,
    /// How many of [`STEPS`] are done for it.
    done: usize,
    /// Before when none of [`STEPS`] is taken again.
    not_before: [Option<Instant>; STEPS.len()],
}

/// What is to be done for a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Note that it is being served: at once, because it may be what ends the
    /// process.
    Note,
    /// Write its table.
    Store,
    /// Note that it has served for long enough.
    Promote,
}

const STEPS: [Step; 3] = [Step::Note, Step::Store, Step::Promote];

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Take(Step),
    /// Nothing, before this moment or another generation.
    Wait(Option<Instant>),
}

impl Schedule {
    pub fn new(promote_after: Duration) -> Self {
        Self {
            promote_after,
            serving: None,
            done: 0,
            not_before: [None; STEPS.len()],
        }
    }

    /// The generation `number` is being served.
    pub fn serving(&mut self, number: u64, now: Instant) {
        if self.serving.is_none_or(|(serving, _)| serving != number) {
            self.serving = Some((number, now));
            self.done = 0;
        }
    }

    /// When the current generation began to be served, as far as this knows.
    pub fn since(&self) -> Option<Instant> {
        self.serving.map(|(_, since)| since)
    }

    pub fn next(&self, now: Instant) -> Next {
        let (Some((_, since)), Some(step)) = (self.serving, STEPS.get(self.done)) else {
            return Next::Wait(None);
        };
        let due = match step {
            Step::Note | Step::Store => now,
            Step::Promote => since + self.promote_after,
        };
        let earliest = self.not_before.get(self.done).copied().flatten();
        let due = earliest.map_or(due, |earliest| earliest.max(due));
        if due <= now {
            Next::Take(*step)
        } else {
            Next::Wait(Some(due))
        }
    }

    /// `step` was taken for the generation `number`, from `began` until `now`.
    pub fn taken(&mut self, step: Step, number: u64, well: bool, began: Instant, now: Instant) {
        let busy = now.saturating_duration_since(began).saturating_mul(SHARE);
        let pause = match (well, step) {
            (false, _) => RETRY,
            (true, Step::Store) => busy.max(SPACING),
            (true, Step::Note | Step::Promote) => busy,
        };
        let index = step as usize;
        if let Some(not_before) = self.not_before.get_mut(index) {
            *not_before = now.checked_add(pause);
        }
        if well && self.serving.is_some_and(|(serving, _)| serving == number) {
            self.done = index + 1;
        }
    }
}
