//! The routing file of a file store: people read and edit it, and it is kept the same as
//! the newest generation in both directions.
//!
//! - An edit of the file becomes a generation. Only the difference from the file's content
//!   before the edit is applied, so that changes made through the API meanwhile stay. If
//!   both changed the same key, or both changed something other than keys, the file wins.
//! - Other changes are written to the file soon after. The file is replaced atomically; an
//!   edit that was saved at the same moment is detected, put back, and imported.
//! - A file that is not valid, or conflicts with the newest generation, is left alone.
//!   Changes are still made and pushed to edges, and are merged into the file when it is
//!   valid again. A file that is missing is written again.
//!
//! `state` remembers across restarts what was last read from the file or written to it:
//! that is how an edit made in between is told from a file that is only outdated. `swap`
//! replaces a file, and `keeper` decides what to do when.

mod keeper;
mod state;
mod swap;

#[cfg(test)]
mod tests;

use std::time::SystemTime;

use serde::Serialize;

pub use self::keeper::{MirrorOptions, RoutingFile};
use crate::table::Problem;
use crate::telemetry::time::rfc3339_millis;

/// Why the routing file and the newest generation are not the same.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct FileError {
    pub path: String,
    /// What failed: `read`, `take over` or `write`.
    #[schema(pattern = "^(read|take over|write)$")]
    pub what: &'static str,
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub since: SystemTime,
    /// Never empty.
    #[schema(min_items = 1)]
    pub problems: Vec<Problem>,
}

fn rfc3339<S: serde::Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&rfc3339_millis(*time))
}
