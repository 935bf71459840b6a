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
//! 1. `document` streams it through serde straight into the table's `keys`, `placements`
//!    reads the sections that this leaves as text, and `head` resolves the references. It
//!    stops at the first error. Every valid document is read in this way only.
//! 2. If that fails, `diagnose` reads the document again. It records where each key and
//!    value stands and reports all problems.
//!
//! There are two because the second is slower and needs more memory: it keeps a place and a
//! hash for every key to find duplicates, which at ten million keys is more than the table
//! itself takes. Both use the same checks of single values (`rules`, [`Endpoint`]) and the
//! same reader of `placements` and `defaults`, so that they agree on what is valid.
//!
//! A [`Delta`] makes the next table out of one table without a document. It costs what it
//! changes: both tables share the rest. The result is the same as that of editing the
//! document.

mod assigned;
mod builder;
mod canonical;
mod delta;
mod diagnose;
mod diff;
mod digest;
mod document;
mod duration;
mod endpoint;
mod explain;
mod findings;
mod head;
mod keys;
mod locate;
mod object;
mod placements;
mod policy;
mod positions;
mod problem;
mod routing_table;
mod rules;
mod wording;

#[cfg(test)]
mod tests;

pub use builder::TableBuilder;
pub use delta::Delta;
pub use diff::{Changes, Diff, Difference, Moved, diff, diff_naming};
pub use digest::{Digest, DigestError};
pub use duration::parse_duration;
pub use endpoint::{Endpoint, EndpointError, Scheme};
pub use explain::{Explanation, RouteReason};
pub use policy::{
    CircuitBreaker, HealthCheck, HostHeader, LoadBalancing, Policy, Retries, Tenancy, Timeouts,
};
pub use problem::Problem;
pub use routing_table::{Placement, PlacementId, Route, RoutingTable, WeightedEndpoint};
pub use rules::{KeyError, check_key};

/// Compiles a routing document, all or nothing.
///
/// # Errors
///
/// Every problem of the document, in the order of their places in it and never
/// an empty list. A document with very many problems gets the first hundred
/// and a last entry that counts the rest.
pub fn compile(document: &[u8]) -> Result<RoutingTable, Vec<Problem>> {
    match quick(document) {
        Ok(table) => Ok(table),
        Err(refusal) => Err(diagnose::diagnose(document, &refusal)),
    }
}

/// The path of valid documents: one pass, and no word on what was wrong beyond
/// the first refusal.
fn quick(document: &[u8]) -> Result<RoutingTable, serde_json::Error> {
    // Checked once, instead of string by string.
    let text = std::str::from_utf8(document).map_err(refused)?;
    let document: document::Document<'_> = serde_json::from_str(text)?;
    let (head, routing) = document.into_parts(text).map_err(refused)?;
    let routing = routing.ok_or_else(|| refused("no routing table"))?;
    RoutingTable::new(head, routing).map_err(refused)
}

fn refused(why: impl std::fmt::Display) -> serde_json::Error {
    serde::de::Error::custom(why)
}
