//! One applied routing table, and all that a request needs from it.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderValue;
use serde::{Serialize, Serializer};

use super::cell::Cell;
use crate::routing::{PlacementId, Problem, RouteReason, RoutingTable};
use crate::telemetry::metrics::{Metrics, PlacementMetrics};

/// One applied routing table. It never changes; a request that started on it
/// finishes on it.
#[derive(Debug)]
pub struct Generation {
    /// From 1; the next applied document gets the next number.
    pub number: u64,
    /// Of the document, byte for byte.
    pub sha256: Sha256,
    pub source: Source,
    pub applied_at: SystemTime,
    pub table: RoutingTable,
    /// By [`PlacementId`].
    placements: Vec<LivePlacement>,
}

/// A placement, with everything that a request to it would otherwise have to
/// put together.
#[derive(Debug)]
pub struct LivePlacement {
    /// The value of `X-Routed-To`.
    pub name_header: HeaderValue,
    /// The endpoint as a URL, for the access log.
    pub url: String,
    pub cell: Arc<Cell>,
    pub metrics: PlacementMetrics,
}

/// Where a document came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
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

impl Sha256 {
    pub fn of(document: &[u8]) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(document).into())
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
    /// Binds a table to the cells that `cell` gives for its placements, in
    /// their order.
    ///
    /// # Errors
    ///
    /// A placement's name that cannot be a header's value.
    pub(super) fn new(
        head: Head,
        table: RoutingTable,
        mut cell: impl FnMut(&crate::routing::Endpoint) -> Arc<Cell>,
        metrics: &Metrics,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut placements = Vec::with_capacity(table.placements().len());
        for placement in table.placements() {
            match HeaderValue::from_str(&placement.name) {
                Ok(name_header) => placements.push(LivePlacement {
                    name_header,
                    url: placement.endpoints[0].endpoint.to_string(),
                    cell: cell(&placement.endpoints[0].endpoint),
                    metrics: metrics.placement(&placement.name),
                }),
                Err(_) => problems.push(Problem::without_place(format!(
                    "the placement name {:?} cannot be a header value",
                    placement.name
                ))),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let Head {
            number,
            sha256,
            source,
            applied_at,
        } = head;
        Ok(Self {
            number,
            sha256,
            source,
            applied_at,
            table,
            placements,
        })
    }

    /// The placement `id` of this generation's table.
    ///
    /// # Panics
    ///
    /// May panic when `id` is another table's.
    pub fn live_placement(&self, id: PlacementId) -> &LivePlacement {
        &self.placements[id.index()]
    }

    /// All placements, by [`PlacementId`].
    pub fn live_placements(&self) -> &[LivePlacement] {
        &self.placements
    }

    /// Where `key` goes in this generation, and why.
    pub fn route(&self, key: &[u8]) -> (&LivePlacement, RouteReason) {
        let route = self.table.route(key);
        (self.live_placement(route.placement), route.reason)
    }
}

/// What a generation is called, before it has a table.
pub(super) struct Head {
    pub(super) number: u64,
    pub(super) sha256: Sha256,
    pub(super) source: Source,
    pub(super) applied_at: SystemTime,
}
