//! What the edge serves: the one pointer that requests read, and the one writer that
//! moves it.
//!
//! A request calls [`EdgeState::read`] once, is routed by that [`Generation`] and keeps its
//! placements. A change is a document ([`EdgeState::apply`]) or comes from a control plane
//! ([`EdgeState::push`]); both are one transaction of the writer (`writer`). Placements that
//! a change does not touch keep their state, which `upstream` holds.
//!
//! `proxy`, `source`, `admin` and `cli` import this folder; it imports `upstream`, `table`,
//! `files` and `telemetry`.

mod connection;
mod disk;
mod edge_state;
mod explain;
mod failure;
mod generation;
mod push;
pub(crate) mod restore;
mod status;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

pub use crate::files::Sha256;
pub use connection::{Connection, ConnectionError, ConnectionState, ConnectionStatus};
pub use disk::{Fallback, StateDir, StateDirOptions, StateDirStatus};
pub use edge_state::{EdgeOptions, EdgeState};
pub use explain::{Candidate, RouteExplanation, WithoutAddress};
pub use failure::LastError;
pub use generation::{Generation, Source};
pub use push::{Push, PushLimits, Pushed};
pub use status::ConfigStatus;
pub use writer::Applied;
