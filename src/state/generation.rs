//! One applied routing table, bound to its placements.

use std::fmt;
use std::time::SystemTime;

use prometheus::IntGauge;
use serde::{Deserialize, Serialize};

use crate::files::Sha256;
use crate::table::{RouteReason, RoutingTable};
use crate::upstream::{Placement, Placements};

/// One applied routing table. It never changes. A request is routed by one generation and
/// keeps only its [`Placements`].
#[derive(Debug)]
pub struct Generation {
    /// This edge's number, from 1; each change that is applied gets the next one.
    pub number: u64,
    /// Of the bytes of the document; none if the table did not come as one.
    pub sha256: Option<Sha256>,
    pub source: Source,
    /// The control plane's number, from 1; none if the table came from elsewhere, or from a
    /// control plane without numbers.
    pub control_generation: Option<u64>,
    pub applied_at: SystemTime,
    pub table: RoutingTable,
    /// What requests keep of the generation. Shared with the generation before when that
    /// has the same head.
    pub placements: Placements,
    /// The last field: dropped when the table is.
    _alive: Alive,
}

/// Where a document came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    File,
    ControlPlane,
}

impl Source {
    /// `file` or `control_plane`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::ControlPlane => "control_plane",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Generation {
    pub(super) fn new(
        head: Head,
        table: RoutingTable,
        placements: Placements,
        alive: &IntGauge,
    ) -> Self {
        alive.inc();
        Self {
            number: head.number,
            sha256: head.sha256,
            source: head.source,
            control_generation: head.control_generation,
            applied_at: head.applied_at,
            table,
            placements,
            _alive: Alive(alive.clone()),
        }
    }

    /// Where `key` goes in this generation, and why.
    pub fn route(&self, key: &[u8]) -> (&Placement, RouteReason) {
        let route = self.table.route(key);
        (self.placements.get(route.placement), route.reason)
    }
}

/// Counts a generation as one in memory.
#[derive(Debug)]
struct Alive(IntGauge);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What is known of a generation before its table is.
pub(crate) struct Head {
    pub(crate) number: u64,
    pub(crate) sha256: Option<Sha256>,
    pub(crate) source: Source,
    pub(crate) control_generation: Option<u64>,
    pub(crate) applied_at: SystemTime,
}
