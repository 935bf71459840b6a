//! Changes that a control plane pushes: deltas and whole tables, not documents.

use std::sync::Arc;
use std::time::SystemTime;

use super::edge_state::EdgeState;
use super::failure::Cause;
use super::generation::{Generation, Source};
use super::writer::{Change, FEW, Stop};
use crate::table::{Delta, Digest, Problem, RoutingTable};

/// A change from a control plane.
#[derive(Debug)]
pub enum Push {
    /// A change of the current table. Costs what it changes.
    Delta(Delta),
    /// A table in place of the current one.
    Table(RoutingTable),
}

impl Push {
    /// Whether it takes long and frees much memory, so that it belongs in the background.
    pub fn is_large(&self) -> bool {
        match self {
            Self::Delta(delta) => delta.set.len() + delta.remove.len() > FEW,
            Self::Table(_) => true,
        }
    }
}

/// What became of a [`Push`].
#[derive(Debug)]
pub enum Pushed {
    /// It is being served, as this generation.
    Changed(Arc<Generation>),
    /// It cannot be served, and nothing has changed. Never empty.
    Refused(Vec<Problem>),
    /// It leads to a table of this digest and not of the one that was announced. Nothing has
    /// changed.
    Differs(Digest),
}

/// The largest table that pushes may lead to.
#[derive(Clone, Copy, Debug)]
pub struct PushLimits {
    /// Most routing keys.
    pub keys: u64,
    /// Most bytes of the keys and the head together.
    pub bytes: u64,
}

impl Default for PushLimits {
    /// No limit.
    fn default() -> Self {
        Self {
            keys: u64::MAX,
            bytes: u64::MAX,
        }
    }
}

impl PushLimits {
    fn admit(&self, table: &RoutingTable) -> Result<(), Vec<Problem>> {
        let (keys, bytes) = (table.key_count() as u64, table.content_bytes());
        let (has, most) = match () {
            () if keys > self.keys => (format!("{keys} keys"), self.keys),
            () if bytes > self.bytes => (format!("{bytes} bytes of keys and head"), self.bytes),
            () => return Ok(()),
        };
        Err(vec![Problem::without_place(format!(
            "the table would have {has} (at most {most}; see limits.routing_file_bytes of this edge)"
        ))])
    }
}

impl EdgeState {
    /// Makes `push` the routing table of all requests that start from now on, or changes
    /// nothing. `generation` is the control plane's number, which must not be below that of
    /// the current generation; `digest` is that of the resulting table.
    ///
    /// A delta costs what it changes: it reads no key that it does not name, and as long as
    /// the head stays the same, so do the placements. A table costs as much as comparing it
    /// with the current one.
    pub fn push(&self, push: Push, generation: u64, digest: Digest, now: SystemTime) -> Pushed {
        let made = self.transact(Self::pushed(generation, now), |current| {
            // The caller has checked that, but another change may have come in between.
            let held = current.and_then(|current| current.control_generation);
            if let Some(held) = held.filter(|held| *held > generation) {
                return Err(Stop::Refused(vec![Problem::without_place(format!(
                    "older generation {generation} (this edge has {held}; generations only grow)"
                ))]));
            }
            let made = match push {
                Push::Table(table) => Ok(table),
                Push::Delta(delta) => match current {
                    Some(current) => current.table.apply(&delta),
                    None => RoutingTable::founded_by(&delta),
                },
            };
            let table = made.map_err(Stop::Refused)?;
            if table.digest() != digest {
                return Err(Stop::Other(table.digest()));
            }
            self.push_limits.admit(&table).map_err(Stop::Refused)?;
            Ok(table)
        });
        match made {
            Ok(generation) => Pushed::Changed(generation),
            Err(Stop::Refused(problems)) => Pushed::Refused(problems),
            Err(Stop::Other(digest)) => Pushed::Differs(digest),
        }
    }

    /// Records why the control plane's `generation` is refused, without trying it.
    pub fn refuse_push(&self, generation: u64, problems: &[Problem], now: SystemTime) {
        let cause = Cause::Pushed(generation);
        self.refused(cause, Source::ControlPlane, problems, now);
    }

    fn pushed(generation: u64, now: SystemTime) -> Change {
        Change {
            cause: Cause::Pushed(generation),
            source: Source::ControlPlane,
            sha256: None,
            control_generation: Some(generation),
            now,
        }
    }
}
