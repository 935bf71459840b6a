//! The running edge's state: which routing table requests read, and what the
//! edge knows about the cells in it.
//!
//! Requests read one pointer ([`Live::current`]) and keep what they got: one
//! request, one [`Generation`]. Every change, whatever its source, goes through
//! the one writer, [`Live::apply`]. What did not change keeps its state: a
//! [`Cell`] lives as long as generations name its endpoint.
//!
//! `proxy`, `source`, `admin` and `cli` import this folder; it imports
//! `routing` and `telemetry`.

mod apply;
mod cell;
mod generation;
mod resolver;
mod retire;
mod schedule;
mod status;

#[cfg(test)]
mod tests;

pub use apply::{Applied, Live, LiveOptions};
pub use cell::{Addresses, Cell, Resolution};
pub use generation::{Generation, LivePlacement, Sha256, Source};
pub use resolver::{Lookup, Resolver, SystemLookup};
pub use status::{ConfigStatus, LastError, LiveExplanation};
