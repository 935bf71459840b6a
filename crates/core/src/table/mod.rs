//! What an operator wrote, compiled into what a request reads.
//!
//! A *routing document* (JSON, `version`, `routingTable`, `defaults`,
//! `placements`, `cellEndpoints`, `defaultPlacement`) goes in as bytes; an immutable [`RoutingTable`] or the
//! full list of [`Problem`]s comes out. Nothing here knows a runtime, a socket
//! or a clock, so that everything here can be tested as a function of its
//! input. Any other part of Cellgate may import this folder; it imports none of
//! them (a test in `src/purity.rs` keeps it so).
//!
//! A document takes one of two paths:
//!
//! 1. `document` streams it through serde into the table's own `keys`, `placements`
//!    reads the sections that it leaves alone, and `head` checks the
//!    references. The first thing that is wrong ends it. This is the path of
//!    every valid document.
//! 2. When that refuses, `diagnose` reads the document again, slowly, keeping
//!    the place of every key and value, and reports *all* that is wrong.
//!
//! Both take their verdicts on single values from `rules` and [`Endpoint`],
//! and leave `placements` and `defaults` to the one reader in `placements`, so
//! that they cannot disagree about what is valid.
//!
//! A [`Delta`] makes one table into the next without a document. It costs what
//! it changes, since tables that follow each other share what stays the same,
//! and it means what editing the document would.

mod assigned;
mod builder;
mod canonical;
mod counts;
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
mod reason;
mod routing_table;
mod rules;
mod wording;
mod write;

#[cfg(test)]
mod tests;

pub use builder::TableBuilder;
pub use delta::Delta;
pub use diff::{Changes, Diff, Difference, Moved, diff, diff_naming};
pub use digest::{Digest, DigestError};
pub use duration::parse_duration;
pub use endpoint::{Endpoint, EndpointError, Scheme};
pub use explain::Explanation;
pub use policy::{
    CircuitBreaker, HealthCheck, HostHeader, LoadBalancing, Policy, Retries, Tenancy, Timeouts,
};
pub use problem::Problem;
pub use reason::RouteReason;
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
