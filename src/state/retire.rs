//! Where replaced generations go to be freed.
//!
//! Freeing a table of a million keys takes long enough to be felt by every
//! request on the same thread. So the request that happens to be the last one
//! on a generation must not be the one to free it: the writer keeps each
//! replaced generation until nobody else has it, and frees it where nobody
//! waits. What was kept for it alone (cells, series of metrics) goes with it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use pingora_core::server::ShutdownWatch;
use tokio::task::spawn_blocking;

use super::apply::{EdgeState, Writer, lock};
use super::generation::Generation;
use cellgate_core::pace;

use crate::background;

/// How often retired generations are looked at, while there are any.
const INTERVAL: Duration = Duration::from_secs(1);

/// Keys that are added or freed in a few milliseconds.
pub(crate) const FEW: usize = 4096;

impl EdgeState {
    /// Frees the retired generations that nobody holds any more, the large ones only in a
    /// chore. Says how many are left. Waits for a change that is being applied.
    pub fn free_retired(&self) -> usize {
        let mut writer = lock(&self.writer);
        self.sweep(&mut writer);
        writer.retired.len()
    }

    /// Whether freeing what can be freed takes long and leaves memory to give back, or is
    /// only what changes of a few keys have replaced.
    pub(crate) fn retired_is_large(&self) -> bool {
        let writer = lock(&self.writer);
        let Some(current) = self.current() else {
            return true;
        };
        let large = |old: &Arc<Generation>| {
            !current.shares_placements(old) || has_many_keys(old, Some(&current))
        };
        let mut retired = writer.retired.iter();
        retired.any(|old| Arc::strong_count(old) == 1 && large(old))
    }

    /// Frees what nobody holds. A large one only in a chore: others leave it to the next.
    pub(crate) fn sweep(&self, writer: &mut Writer) {
        let current = self.current();
        // A document that was refused may have left something as well.
        let mut placements_went = writer.retired.is_empty();
        // Nobody can come by a new reference to a replaced generation but from
        // one of these, so a count of one does not grow again.
        writer.retired.retain(|generation| {
            let kept = Arc::strong_count(generation) > 1
                || !pace::is_set() && has_many_keys(generation, current.as_deref());
            let shared = || {
                let current = current.as_deref();
                current.is_some_and(|current| current.shares_placements(generation))
            };
            placements_went |= !kept && !shared();
            kept
        });
        let alive = writer.retired.len() + usize::from(current.is_some());
        self.metrics
            .generations_alive
            .set(i64::try_from(alive).unwrap_or(i64::MAX));
        // So that a change of a few keys costs no more for having many placements.
        if !placements_went {
            return;
        }
        writer.cells.retain(|_, cell| Weak::strong_count(cell) > 0);
        writer
            .endpoints
            .retain(|_, endpoint| Weak::strong_count(endpoint) > 0);
        let mut names = std::collections::HashSet::new();
        for generation in writer.retired.iter().chain(current.iter()) {
            names.extend(
                generation
                    .table
                    .placements()
                    .iter()
                    .map(|placement| placement.name.as_str()),
            );
        }
        self.metrics
            .forget_placements_except(&|name| names.contains(name));
    }
}

/// Whether freeing `old` frees more than a few keys.
fn has_many_keys(old: &Generation, current: Option<&Generation>) -> bool {
    match current {
        Some(current) => !old.table.shares_all_but(FEW, &current.table),
        None => old.table.key_count() > FEW,
    }
}

/// Frees what is replaced, until the process shuts down.
pub(crate) async fn run(state: Arc<EdgeState>, mut shutdown: ShutdownWatch) {
    let mut generations = state.watch();
    loop {
        tokio::select! {
            _ = shutdown.changed() => return,
            changed = generations.changed() => if changed.is_err() { return },
        }
        loop {
            tokio::select! {
                _ = shutdown.changed() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            let state = Arc::clone(&state);
            let held = spawn_blocking(move || match state.retired_is_large() {
                true => background::wait_for(|| state.free_retired()),
                false => state.free_retired(),
            });
            if matches!(held.await, Ok(0)) {
                break;
            }
        }
    }
}
