//! An edge as operators see it.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::known::Sent;
use crate::protocol::{LastError, Load};
use crate::table::{Digest, Problem};

/// What is known of an edge. Times are RFC 3339. All that the edge says of itself
/// comes from outside.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Edge)]
pub struct EdgeView {
    /// For an edge that speaks M3, which has no name, `m3@` and its address.
    pub edge_id: String,
    /// Of its process; empty for an edge that speaks M3.
    pub instance: String,
    pub connected: bool,
    /// Its address, or that of a proxy before it.
    pub peer: String,
    /// `cellgate.v1` or `m3`.
    #[schema(pattern = r"^(cellgate\.v1|m3)$")]
    pub dialect: &'static str,
    /// Of the program; empty for an edge that speaks M3.
    pub version: String,
    pub labels: BTreeMap<String, String>,
    #[schema(format = DateTime)]
    pub connected_at: String,
    #[schema(required, format = DateTime)]
    pub disconnected_at: Option<String>,
    /// Why it is not connected any more.
    #[schema(required)]
    pub why: Option<String>,
    /// What it serves; 0 when that is no control plane's.
    pub generation: u64,
    /// Of what it serves; an edge that speaks M3 does not say.
    #[schema(required)]
    pub digest: Option<Digest>,
    /// Whether that is the newest generation. For an edge that left: whether it
    /// would be, if it still serves what it did.
    pub in_sync: bool,
    /// For how long it has not been known to have the newest generation.
    pub stale_seconds: u64,
    #[schema(required, format = DateTime)]
    pub last_ack_at: Option<String>,
    /// The last one on this connection.
    #[schema(required)]
    pub last_nack: Option<NackView>,
    /// What it said of itself last.
    #[schema(required)]
    pub status: Option<StatusView>,
    /// On this connection.
    pub sent: Sent,
}

/// A generation that an edge refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Nack)]
pub struct NackView {
    pub generation: u64,
    #[schema(format = DateTime)]
    pub at: String,
    /// The first ten.
    pub problems: Vec<Problem>,
}

/// A status as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = EdgeStatus)]
pub struct StatusView {
    /// When it came.
    #[schema(format = DateTime)]
    pub at: String,
    pub generation: u64,
    #[schema(required)]
    pub serving_since: Option<String>,
    /// `file`, `control_plane` or what a later version says.
    #[schema(required)]
    pub source: Option<String>,
    /// For how long it had been without a control plane when it connected.
    pub stale_seconds: u64,
    /// With the first ten problems.
    #[schema(required)]
    pub last_error: Option<LastError>,
    /// The hundred busiest; none of an edge that left.
    pub placements: BTreeMap<String, Load>,
    /// How many it said more than these.
    pub placements_left_out: usize,
}
