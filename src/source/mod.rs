//! Where routing documents come from.
//!
//! Each source is a background service that hands what it has to
//! [`EdgeState::apply`](crate::state::EdgeState::apply) or
//! [`EdgeState::push`](crate::state::EdgeState::push) and judges none of it. An edge has one:
//! the routing file, or the control plane. Only `cli` imports this folder; it
//! imports `live`, `protocol` and `telemetry`.

mod control;
mod file;

#[cfg(test)]
mod tests;

pub use control::{ControlOptions, ControlSource};
pub use file::{FileSource, load_initial};
