//! The last steps of the truth, for edges that missed some of them.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::protocol::Mark;
use crate::routing::Delta;

/// Most steps that are kept. An edge that missed more takes a snapshot.
const MOST_STEPS: usize = 10_000;

/// Most keys and bytes of heads that all kept steps have together. Each key takes
/// some 100 bytes; a head is counted as a key for each 100 bytes of it.
const MOST_WEIGHT: usize = 1_000_000;

/// What made a generation of the one before it.
#[derive(Clone, Debug)]
pub struct Step {
    pub from: Mark,
    pub to: Mark,
    pub delta: Arc<Delta>,
}

impl Step {
    fn weight(&self) -> usize {
        let head = self.delta.head.as_deref().map_or(0, str::len) / 100;
        1 + self.delta.set.len() + self.delta.remove.len() + head
    }
}

/// Steps that each begin where the one before ended.
#[derive(Default)]
pub(super) struct Ring {
    steps: VecDeque<Step>,
    weight: usize,
}

impl Ring {
    /// Adds what came last. What does not begin at the last end begins anew.
    pub fn push(&mut self, step: Step) {
        if self.steps.back().is_some_and(|last| last.to != step.from) {
            self.clear();
        }
        self.weight += step.weight();
        self.steps.push_back(step);
        while self.steps.len() > MOST_STEPS || self.weight > MOST_WEIGHT {
            let Some(oldest) = self.steps.pop_front() else {
                break;
            };
            self.weight -= oldest.weight();
        }
    }

    /// Forgets all: what came last is not known as a step.
    pub fn clear(&mut self) {
        self.steps.clear();
        self.weight = 0;
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
