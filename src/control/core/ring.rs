//! The last steps of the truth, for edges that missed some of them.

use std::collections::VecDeque;

use crate::control::store::{Step, memory_bytes};
use crate::protocol::Mark;

/// Most steps that are kept. An edge that missed more takes a snapshot.
const MOST_STEPS: usize = 10_000;

/// About how many bytes all kept steps may have together.
pub(super) const MOST_BYTES: usize = 96 << 20;

/// Steps that each begin where the one before ended.
#[derive(Default)]
pub(super) struct Ring {
    steps: VecDeque<Step>,
    bytes: usize,
}

/// What is kept no more, to be freed where nobody waits.
#[must_use]
#[derive(Default)]
pub(super) struct Forgotten(#[expect(dead_code, reason = "only dropped")] VecDeque<Step>);

impl Ring {
    /// Adds what came last. What does not begin at the last end begins anew.
    pub fn push(&mut self, step: Step) -> Forgotten {
        let mut forgotten = VecDeque::new();
        if self.steps.back().is_some_and(|last| last.to != step.from) {
            forgotten = self.take();
        }
        self.bytes += memory_bytes(&step.delta);
        self.steps.push_back(step);
        while self.steps.len() > MOST_STEPS || self.bytes > MOST_BYTES {
            let Some(oldest) = self.steps.pop_front() else {
                break;
            };
            self.bytes -= memory_bytes(&oldest.delta);
            forgotten.push_back(oldest);
        }
        Forgotten(forgotten)
    }

    /// Forgets all: what came last is not known as a step.
    pub fn clear(&mut self) -> Forgotten {
        Forgotten(self.take())
    }

    fn take(&mut self) -> VecDeque<Step> {
        self.bytes = 0;
        std::mem::take(&mut self.steps)
    }

    /// All steps after `from`, which lead to the newest; none if they are not known
    /// any more, or never were.
    pub fn since(&self, from: Mark) -> Option<Vec<Step>> {
        let at = self
            .steps
            .binary_search_by_key(&from.generation, |step| step.from.generation)
            .ok()?;
        let steps: Vec<Step> = self.steps.range(at..).cloned().collect();
        steps.first().filter(|first| first.from == from)?;
        Some(steps)
    }
}
