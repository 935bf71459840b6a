//! Serving what an earlier process served, and refusing what crashed it.

use std::sync::Arc;

use super::disk::StateDirStatus;
use super::edge_state::EdgeState;
use super::generation::{Generation, Head};
use super::writer::Writer;
use crate::table::{Problem, RoutingTable};

/// Content that is refused.
pub(crate) struct Quarantined {
    /// Of the table.
    pub(crate) digest: String,
    /// This edge's generation that had the content.
    pub(crate) number: u64,
}

impl EdgeState {
    /// The next generation gets a number above `number`.
    pub(crate) fn number_after(&self, number: u64) {
        let mut writer = self.writer.lock();
        writer.newest = writer.newest.max(number);
    }

    /// Serves a generation of an earlier process, under the number and time that it had.
    ///
    /// # Errors
    ///
    /// Its first problem.
    pub(crate) fn restore(
        &self,
        head: Head,
        table: RoutingTable,
    ) -> Result<Arc<Generation>, String> {
        let mut writer = self.writer.lock();
        let placements = writer.registry.bind(&table).map_err(|problems| {
            let first = problems.first().map(ToString::to_string);
            first.unwrap_or_default()
        })?;
        Ok(self.swap(&mut writer, head, table, placements, "config restored"))
    }

    /// From now on, this content is refused.
    pub(crate) fn quarantine(&self, content: Vec<Quarantined>) {
        self.writer.lock().quarantined = content;
    }

    /// Shows the state directory in `/debug/config` and the metrics.
    pub(crate) fn show_state_dir(&self, status: StateDirStatus) {
        self.metrics.show_state(
            status.stored_generation,
            status.fallback.is_some(),
            status.error.is_some(),
        );
        *self.state_dir.lock() = Some(status);
    }
}

impl Writer {
    /// Refuses quarantined content.
    pub(crate) fn refuse_quarantined(&self, table: &RoutingTable) -> Result<(), Vec<Problem>> {
        if self.quarantined.is_empty() {
            return Ok(());
        }
        let digest = table.digest().to_string();
        match self.quarantined.iter().find(|it| it.digest == digest) {
            None => Ok(()),
            // The number is this edge's own; the control plane has another one.
            Some(Quarantined { number, .. }) => Err(vec![Problem::without_place(format!(
                "the content is that of this edge's generation {number} (digest {digest}), which \
                 is quarantined: the edge crashed twice within a minute while serving it (fix the \
                 cause and send it under another version to have it tried again)"
            ))]),
        }
    }
}
