//! What `GET /debug/config` shows.

use std::time::SystemTime;

use serde::Serialize;

use super::connection::ConnectionStatus;
use super::disk::StateDirStatus;
use super::failure::LastError;
use super::generation::{Generation, Source};
use crate::files::Sha256;
use crate::telemetry::time;

/// What is being served, and how the last attempt to change it went. As JSON, the body of
/// `GET /debug/config`, in this order of fields.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigStatus {
    /// None before the first generation, like all fields but the last three.
    pub version: Option<String>,
    #[serde(serialize_with = "time::serialize_option")]
    pub last_reload_at: Option<SystemTime>,
    pub source: Option<Source>,
    pub generation: Option<u64>,
    /// Of the document; none for a table that a control plane pushed.
    pub sha256: Option<Sha256>,
    pub keys: Option<usize>,
    pub placements: Option<usize>,
    /// Why the newest document is not the one being served.
    pub last_error: Option<LastError>,
    /// What a restart would find in the state directory; none without one.
    pub state: Option<StateDirStatus>,
    /// The connection to the control plane; none if none is configured.
    pub control_plane: Option<ConnectionStatus>,
}

impl ConfigStatus {
    pub(crate) fn new(
        generation: Option<&Generation>,
        last_error: Option<LastError>,
        state: Option<StateDirStatus>,
        control_plane: Option<ConnectionStatus>,
    ) -> Self {
        Self {
            version: generation.map(|generation| generation.table.version().to_owned()),
            last_reload_at: generation.map(|generation| generation.applied_at),
            source: generation.map(|generation| generation.source),
            generation: generation.map(|generation| generation.number),
            sha256: generation.and_then(|generation| generation.sha256),
            keys: generation.map(|generation| generation.table.key_count()),
            placements: generation.map(|generation| generation.table.placements().len()),
            last_error,
            state,
            control_plane,
        }
    }
}
