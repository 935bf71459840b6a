//! Compiles routing documents into routing tables.
//!
//! A routing document (JSON with the fields `version`, `routingTable`, `defaults`,
//! `placements`, `cellEndpoints` and `defaultPlacement`) goes in as bytes; an immutable
//! [`RoutingTable`] or the full list of [`Problem`]s comes out. Everything here is a
//! function of its input: no runtime, no socket, no clock. Any other part of Cellgate may
//! import this folder; it imports none of them.
//!
//! A document is read in one of two ways:
//!
//! 1. The fast path reads valid documents and stops at the first error: `document` streams
//!    the keys through serde into the table's `keys`, `placements` reads the sections that
//!    this leaves as text, and `head` resolves the names of placements.
//! 2. If that fails, `diagnose` reads the document again. It knows where each key and value
//!    is and reports all problems.
//!
//! There are two because the second is slower and needs more memory: it keeps a place and a
//! hash for every key to find duplicates, which at ten million keys is more than the table
//! itself takes. Both use the same checks of single values (`values`, [`Endpoint`]) and the
//! same reader of `placements`, `cellEndpoints` and `defaults`, so that they agree on what is
//! valid.
//!
//! A [`Delta`] makes the next table out of one table without a document. It costs what it
//! changes: both tables share the rest. The result is the same as that of editing the
//! document.

mod delta;
mod diagnose;
mod diff;
mod digest;
mod document;
mod endpoint;
mod explain;
mod findings;
mod head;
mod json;
mod keys;
mod placements;
mod policy;
mod problem;
mod routing_table;
mod values;

#[cfg(test)]
mod tests;

pub use delta::Delta;
pub use diff::{Changes, Diff, Difference, Moved, diff, diff_naming};
pub use digest::{Digest, DigestError};
pub use endpoint::{Endpoint, EndpointError, Scheme};
pub use explain::{Explanation, RouteReason};
pub use policy::{
    CircuitBreaker, HealthCheck, HostHeader, LoadBalancing, Policy, Retries, Tenancy, Timeouts,
};
pub use problem::Problem;
pub use routing_table::{
    Placement, PlacementId, Route, RoutingTable, TableBuilder, WeightedEndpoint,
};
pub use values::{KeyError, check_key, parse_duration};

/// Compiles a routing document, all or nothing.
///
/// # Errors
///
/// All problems of the document, in the order of their places; never an empty list. If there
/// are very many, the first hundred and a last entry that counts the others.
pub fn compile(document: &[u8]) -> Result<RoutingTable, Vec<Problem>> {
    fast_path(document).map_err(|error| diagnose::diagnose(document, &error))
}

/// Compiles a valid document; stops at the first error.
fn fast_path(document: &[u8]) -> Result<RoutingTable, String> {
    // Checked once, not string by string.
    let text = std::str::from_utf8(document).map_err(|error| error.to_string())?;
    let (head, routing) = document::read(text)?;
    let routing = routing.ok_or("no routing table")?;
    Ok(RoutingTable::new(head, routing)?)
}
