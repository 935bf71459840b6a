//! The truth of a running control plane: the newest generation in memory, the one
//! way to change it, and the steps that led to it.
//!
//! [`Truth::commit`] is the only way that anything changes: it takes an [`Edit`]
//! and a condition ([`Expected`]), asks `routing` whether the outcome is valid, and
//! adds it to the store. Whoever pushes to edges watches [`Truth::watch`] and asks
//! [`Truth::since`] what an edge lacks.

mod ahead;
mod commit;
mod edges;
mod edit;
mod expected;
mod follow;
mod ring;
mod tally;
mod truth;

#[cfg(test)]
pub(crate) mod tests;

pub use commit::{CommitError, Committed};
pub use edges::{Arrival, Counts, Dialect, EdgeView, Edges, NackView, Sent, Session, StatusView};
pub use edit::Edit;
pub use expected::{Etag, EtagError, Expected};
pub use tally::{Fate, Tally};
pub use truth::{Since, Truth};

pub use crate::control::store::Step;
