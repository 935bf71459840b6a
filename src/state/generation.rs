//! One applied routing table, and all that a request needs from it.

use std::fmt;
use std::time::SystemTime;

use prometheus::IntGauge;
use serde::{Deserialize, Serialize, Serializer};

use crate::table::{RouteReason, RoutingTable};
use crate::upstream::{Placement, Placements};
use cellgate_core::pace;

/// One applied routing table. It never changes. A request is routed by one generation and
/// keeps only its [`Placements`].
#[derive(Debug)]
pub struct Generation {
    /// From 1; the next applied document gets the next number.
    pub number: u64,
    /// Of the document, byte for byte; none when it came as something else.
    pub sha256: Option<Sha256>,
    pub source: Source,
    /// What the control plane calls it that it came from, 1 or more. None: it
    /// came from elsewhere, or from one that numbers nothing.
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

/// The SHA-256 of a document; shown in lowercase hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256(pub [u8; 32]);

/// Bytes that are hashed in well below a tenth of a millisecond.
const HASHED_AT_ONCE: usize = 64 * 1024;

impl Sha256 {
    pub fn of(document: &[u8]) -> Self {
        use sha2::Digest;
        let mut sha256 = sha2::Sha256::new();
        for piece in document.chunks(HASHED_AT_ONCE) {
            sha256.update(piece);
            pace::stride();
        }
        Self(sha256.finalize().into())
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
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

/// What a generation is called, before it has a table.
pub(crate) struct Head {
    pub(crate) number: u64,
    pub(crate) sha256: Option<Sha256>,
    pub(crate) source: Source,
    pub(crate) control_generation: Option<u64>,
    pub(crate) applied_at: SystemTime,
}
