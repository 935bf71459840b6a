//! What each placement has served so far.

use crate::state::Generation;

/// What a placement has served since it was first named, and serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Requests that are over.
    pub requests: u64,
    /// Those of them that were answered with 500 or above.
    pub errors: u64,
    pub in_flight: usize,
}

impl Generation {
    /// All placements by name.
    pub fn traffic(&self) -> impl Iterator<Item = (&str, Traffic)> {
        self.placements().iter().map(|placement| {
            let state = &placement.state;
            let (requests, errors) = state.metrics.requests();
            let traffic = Traffic {
                requests,
                errors,
                in_flight: state.in_flight(),
            };
            (state.name.as_str(), traffic)
        })
    }
}
