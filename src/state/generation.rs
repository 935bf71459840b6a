//! One applied routing table, and all that a request needs from it.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderValue;
use serde::{Deserialize, Serialize, Serializer};

use crate::table::{self, PlacementId, Problem, RouteReason, RoutingTable};
use crate::upstream::Placement;
use cellgate_core::pace;

/// One applied routing table. It never changes; a request that started on it
/// finishes on it.
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
    /// By [`PlacementId`]. Shared with the generation before when that has the
    /// same head.
    placements: Arc<[Placement]>,
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
    /// Binds each placement of a table to what the edge knows of it: `bind` is
    /// given them in their order, with the header value of their name. A table
    /// that shares its head with that of `last` shares its placements as well, so
    /// that a change of a few keys costs no more for having many placements.
    ///
    /// # Errors
    ///
    /// A placement's name that cannot be a header's value.
    pub(crate) fn new(
        head: Head,
        table: RoutingTable,
        last: Option<&Self>,
        mut bind: impl FnMut(&table::Placement, HeaderValue) -> Placement,
    ) -> Result<Self, Vec<Problem>> {
        let same_head = |last: &&Self| Arc::ptr_eq(last.table.head_json(), table.head_json());
        if let Some(last) = last.filter(same_head) {
            return Ok(Self::with(head, table, Arc::clone(&last.placements)));
        }
        let mut problems = Vec::new();
        let mut placements = Vec::with_capacity(table.placements().len());
        for placement in table.placements() {
            match HeaderValue::from_str(&placement.name) {
                Ok(name) => placements.push(bind(placement, name)),
                Err(_) => problems.push(Problem::without_place(format!(
                    "the placement name {:?} cannot be a header value",
                    placement.name
                ))),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self::with(head, table, placements.into()))
    }

    fn with(head: Head, table: RoutingTable, placements: Arc<[Placement]>) -> Self {
        let Head {
            number,
            sha256,
            source,
            control_generation,
            applied_at,
        } = head;
        Self {
            number,
            sha256,
            source,
            control_generation,
            applied_at,
            table,
            placements,
        }
    }

    /// Whether the two have the very same placements.
    pub(crate) fn shares_placements(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.placements, &other.placements)
    }

    /// The placement `id` of this generation's table.
    ///
    /// # Panics
    ///
    /// May panic when `id` is another table's.
    pub fn placement(&self, id: PlacementId) -> &Placement {
        &self.placements[id.index()]
    }

    /// All placements, by [`PlacementId`].
    pub fn placements(&self) -> &[Placement] {
        &self.placements
    }

    /// Where `key` goes in this generation, and why.
    pub fn route(&self, key: &[u8]) -> (&Placement, RouteReason) {
        let route = self.table.route(key);
        (self.placement(route.placement), route.reason)
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
