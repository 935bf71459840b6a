//! What `/metrics` shows of placements as they are when somebody looks.

use std::collections::HashSet;
use std::sync::{PoisonError, TryLockError, Weak};
use std::time::Instant;

use super::apply::EdgeState;

impl EdgeState {
    /// Brings the gauges of all placements up to date. Costs a few loads for
    /// each backend of the current generation.
    pub fn show_gauges(&self) {
        self.gauge_connection();
        let Some(generation) = self.current() else {
            return;
        };
        let now = Instant::now();
        let placements = generation.placements();
        for placement in placements {
            let (usable, unusable) = placement.count_usable(now);
            let cell = &placement.state;
            cell.metrics.show(cell.in_flight(), usable, unusable);
        }
        let writer = match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(error)) => PoisonError::into_inner(error),
            // A change is being applied; the next look will do.
            Err(TryLockError::WouldBlock) => return,
        };
        if writer.cells.len() <= placements.len() {
            return;
        }
        // Placements that only requests of replaced generations know.
        let current: HashSet<&str> = placements
            .iter()
            .map(|placement| placement.state.name.as_str())
            .collect();
        for cell in writer.cells.values().filter_map(Weak::upgrade) {
            if !current.contains(cell.name.as_str()) {
                cell.metrics.show(cell.in_flight(), 0, 0);
            }
        }
    }
}
