//! What one edge has, and what it needs next. Pure: no clock, no socket.
//!
//! At most one push is unanswered at a time; changes that happen meanwhile are folded into the next
//! push. So a slow edge gets fewer messages, and an edge that refuses a generation gets the next
//! one on top of the generation that it kept.

use crate::control::core::{Since, Step, Truth};
use crate::protocol::Mark;

/// What is known about an edge that speaks `cellgate.v1`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SyncState {
    /// The generation that it last reported.
    held: Option<Mark>,
    /// The last generation that was sent, until it is answered.
    awaited: Option<Mark>,
    /// The last generation that it refused.
    refused: Option<u64>,
    /// It asked for a snapshot.
    asked: bool,
}

/// What to send to an edge.
#[derive(Clone, Debug)]
pub(super) enum Next {
    Nothing,
    /// Deltas for these steps, which start at `from`.
    Steps {
        from: Mark,
        steps: Vec<Step>,
    },
    /// The newest generation as a whole.
    Snapshot,
}

impl SyncState {
    /// After a hello. `newest` is the generation in the welcome: an edge that serves the same content
    /// adopts its number, whatever the source of its content.
    pub fn greeted(held: Option<Mark>, serves: Option<Mark>, newest: Option<Mark>) -> Self {
        let known = newest.filter(|newest| {
            serves.is_some_and(|serves| {
                serves.digest == newest.digest && serves.generation <= newest.generation
            })
        });
        Self {
            held: known.or(held),
            ..Self::default()
        }
    }

    /// The generation that was sent and is not answered.
    pub fn awaited(&self) -> Option<Mark> {
        self.awaited
    }

    /// `to` was sent.
    pub fn sent(&mut self, to: Mark) {
        self.awaited = Some(to);
        self.asked = false;
    }

    /// The edge serves `mark`. True: this answers the last push.
    pub fn acked(&mut self, mark: Mark) -> bool {
        self.held = Some(mark);
        let due = self
            .awaited
            .take_if(|awaited| awaited.generation <= mark.generation);
        if self
            .refused
            .is_some_and(|refused| refused <= mark.generation)
        {
            self.refused = None;
        }
        due == Some(mark)
    }

    /// The edge refuses `generation`.
    pub fn nacked(&mut self, generation: u64) {
        self.refused = Some(generation);
        self.awaited
            .take_if(|awaited| awaited.generation <= generation);
    }

    /// The edge asks for a snapshot.
    pub fn resync(&mut self) {
        self.asked = true;
        self.awaited = None;
    }

    /// The edge has not answered for too long.
    pub fn unanswered(&mut self) {
        if let Some(awaited) = self.awaited.take() {
            self.refused = Some(awaited.generation);
        }
    }

    /// What to send now.
    pub fn next(&self, truth: &Truth) -> Next {
        if self.awaited.is_some() {
            return Next::Nothing;
        }
        let Some(newest) = truth.newest() else {
            return Next::Nothing;
        };
        let generation = newest.record.generation;
        if self.asked {
            // The edge would refuse an older generation.
            let ahead = self.held.is_some_and(|held| held.generation > generation);
            return match ahead {
                true => Next::Nothing,
                false => Next::Snapshot,
            };
        }
        if self.refused == Some(generation) {
            return Next::Nothing;
        }
        match (truth.since(self.held), self.held) {
            (Since::Steps(steps), Some(from)) => Next::Steps { from, steps },
            (Since::Steps(_), None) | (Since::Whole(_), _) => Next::Snapshot,
            (Since::Same | Since::Ahead | Since::Nothing, _) => Next::Nothing,
        }
    }
}
