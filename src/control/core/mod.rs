//! The generations as a running control plane has them: the newest one in memory, the one
//! way to change it, the last steps that led to it, and the edges that have it.
//!
//! [`Truth::commit`] is the only way to make a change: it takes an [`Edit`] and a
//! precondition ([`Expected`]), computes and validates the resulting table, adds it to
//! the store, and publishes it. Connections to edges watch [`Truth::watch`] and ask
//! [`Truth::since`] what an edge lacks.

mod ahead;
mod commit;
mod edges;
mod edit;
mod expected;
mod follow;
mod truth;

#[cfg(test)]
pub(crate) mod tests;

pub use commit::{CommitError, Committed, Fate, Tally};
pub use edges::{Arrival, Counts, Dialect, EdgeView, Edges, NackView, Sent, Session, StatusView};
pub use edit::Edit;
pub use expected::{Etag, EtagError, Expected};
pub use truth::{Since, Truth};

pub use crate::control::store::Step;
