//! An edge as operators see it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::known::Sent;
use crate::protocol::{LastError, Load};
use crate::table::{Digest, Problem};

/// What is known of an edge. Times are RFC 3339. All that the edge says of itself
/// comes from outside.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EdgeView {
    /// For an edge that speaks M3, which has no name, `m3@` and its address.
    pub edge_id: String,
    /// Of its process; empty for an edge that speaks M3.
    pub instance: String,
    pub connected: bool,
    /// Its address, or that of a proxy before it.
    pub peer: String,
    /// `cellgate.v1` or `m3`.
    pub dialect: &'static str,
    /// Of the program; empty for an edge that speaks M3.
    pub version: String,
    pub labels: BTreeMap<String, String>,
    pub connected_at: String,
    pub disconnected_at: Option<String>,
    /// Why it is not connected any more.
    pub why: Option<String>,
    /// What it serves; 0 when that is no control plane's.
    pub generation: u64,
    /// Of what it serves; an edge that speaks M3 does not say.
    pub digest: Option<Digest>,
    /// Whether that is the newest generation. For an edge that left: whether it
    /// would be, if it still serves what it did.
    pub in_sync: bool,
    /// For how long it has not been known to have the newest generation.
    pub stale_seconds: u64,
    pub last_ack_at: Option<String>,
    /// The last one on this connection.
    pub last_nack: Option<NackView>,
    /// What it said of itself last.
    pub status: Option<StatusView>,
    /// On this connection.
    pub sent: Sent,
}

/// A generation that an edge refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NackView {
    pub generation: u64,
    pub at: String,
    /// The first ten.
    pub problems: Vec<Problem>,
}

/// A status as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatusView {
    /// When it came.
    pub at: String,
    pub generation: u64,
    pub serving_since: Option<String>,
    /// `file`, `control_plane` or what a later version says.
    pub source: Option<String>,
    /// For how long it had been without a control plane when it connected.
    pub stale_seconds: u64,
    /// With the first ten problems.
    pub last_error: Option<LastError>,
    /// The hundred busiest; none of an edge that left.
    pub placements: BTreeMap<String, Load>,
    /// How many it said more than these.
    pub placements_left_out: usize,
}
