//! Where routing tables come from: the routing file, or the control plane. An edge has
//! one source.
//!
//! Each is a background service that passes what it gets to
//! [`EdgeState::apply`](crate::state::EdgeState::apply) or
//! [`EdgeState::push`](crate::state::EdgeState::push), which validate it. Only `cli`
//! imports this folder; it imports `state`, `client`, `protocol`, `files` and
//! `telemetry`.

mod control;
mod file;

#[cfg(test)]
mod tests;

pub use control::{ControlOptions, ControlSource};
pub use file::{FileSource, load_initial};
