//! What one edge has, and what it is to be sent next. No clock, no socket.
//!
//! One answer is waited for at a time: what happens meanwhile is folded into what
//! is sent after it. So an edge that is slow gets fewer messages, and one that
//! refuses a generation gets the next on top of what it kept.

use crate::control::core::{Since, Step, Truth};
use crate::protocol::Mark;

/// What is known of an edge that speaks `cellgate.v1`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// What it has, as far as it said.
    held: Option<Mark>,
    /// What it was sent last, and has not answered.
    awaited: Option<Mark>,
    /// What it refused last.
    refused: Option<u64>,
    /// It asked for a snapshot.
    asked: bool,
}

/// What an edge is to be sent.
#[derive(Clone, Debug)]
pub(super) enum Next {
    Nothing,
    /// What these steps do, which begin at `from`.
    Steps {
        from: Mark,
        steps: Vec<Step>,
    },
    /// All of the newest generation.
    Snapshot,
}

impl Standing {
    /// After a hello. `newest` is what the welcome says: an edge that serves the
    /// same content takes that as its own, wherever it had it from.
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

    /// What it has been sent and has not answered.
    pub fn awaited(&self) -> Option<Mark> {
        self.awaited
    }

    /// It was sent what leads to `to`.
    pub fn sent(&mut self, to: Mark) {
        self.awaited = Some(to);
        self.asked = false;
    }

    /// It serves `mark`. True: that is what was waited for.
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

    /// It refuses `generation`.
    pub fn nacked(&mut self, generation: u64) {
        self.refused = Some(generation);
        self.awaited
            .take_if(|awaited| awaited.generation <= generation);
    }

    /// It asks for a snapshot.
    pub fn resync(&mut self) {
        self.asked = true;
        self.awaited = None;
    }

    /// It has not answered for too long.
    pub fn unanswered(&mut self) {
        if let Some(awaited) = self.awaited.take() {
            self.refused = Some(awaited.generation);
        }
    }

    /// What it is to be sent now.
    pub fn next(&self, truth: &Truth) -> Next {
        if self.awaited.is_some() {
            return Next::Nothing;
        }
        let Some(newest) = truth.newest() else {
            return Next::Nothing;
        };
        let generation = newest.record.generation;
        if self.asked {
            // It would refuse an older one.
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
