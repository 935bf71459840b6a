//! Putting back what an earlier process served, and refusing what ended it.

use std::sync::Arc;

use super::disk::{MemoryStatus, Stored};
use super::edge_state::EdgeState;
use super::generation::{Generation, Head};
use super::writer::Writer;
use crate::table::{Problem, RoutingTable};

/// Content that is not to be served.
pub(crate) struct Barred {
    /// Of the table.
    pub(crate) digest: String,
    /// The generation that it was.
    pub(crate) number: u64,
}

impl EdgeState {
    /// The next generation gets a number above `number`.
    pub(crate) fn number_after(&self, number: u64) {
        let mut writer = self.writer.lock();
        writer.newest = writer.newest.max(number);
    }

    /// Serves a generation of an earlier process, as what it was then.
    ///
    /// # Errors
    ///
    /// Why it cannot be.
    pub(crate) fn restore(&self, stored: Stored) -> Result<Arc<Generation>, String> {
        let mut writer = self.writer.lock();
        let head = Head {
            number: stored.number,
            sha256: stored.sha256,
            source: stored.source,
            control_generation: stored.control_generation,
            applied_at: stored.applied_at,
        };
        let placements = writer.registry.bind(&stored.table).map_err(|problems| {
            let first = problems.first().map(ToString::to_string);
            first.unwrap_or_default()
        })?;
        Ok(self.swap(
            &mut writer,
            head,
            stored.table,
            placements,
            "config restored",
        ))
    }

    /// From now on, none of this is served.
    pub(crate) fn bar(&self, barred: Vec<Barred>) {
        self.writer.lock().barred = barred;
    }

    /// What is shown of the memory.
    pub(crate) fn show_memory(&self, status: MemoryStatus) {
        self.metrics.show_state(
            status.stored_generation,
            status.fallback.is_some(),
            status.error.is_some(),
        );
        *self.memory.lock() = Some(status);
    }
}

impl Writer {
    /// Refuses what is barred.
    pub(crate) fn refuse_barred(&self, table: &RoutingTable) -> Result<(), Vec<Problem>> {
        if self.barred.is_empty() {
            return Ok(());
        }
        let digest = table.digest().to_string();
        match self.barred.iter().find(|barred| barred.digest == digest) {
            None => Ok(()),
            // The number is this edge's own, which a control plane knows nothing of.
            Some(Barred { number, .. }) => Err(vec![Problem::without_place(format!(
                "this is what was this edge's generation {number} (digest {digest}), with which it \
                 crashed twice within a minute (once the cause is mended, give it another version \
                 to have it tried again)"
            ))]),
        }
    }
}
