//! What the edge serves: the one pointer that requests read, and the one writer that
//! moves it.
//!
//! Requests read [`EdgeState::current`] once; one request sees one [`Generation`]. Every
//! change, whatever its source, goes through [`EdgeState::apply`] or [`EdgeState::push`].
//! What did not change keeps its state: `upstream` has it.
//!
//! `proxy`, `source`, `admin` and `cli` import this folder; it imports `upstream`, `table`
//! and `telemetry`.

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

pub use connection::{Connection, ConnectionError, ConnectionState, ConnectionStatus};
pub use disk::{Fallback, Memory, MemoryOptions, MemoryStatus};
pub use edge_state::{EdgeOptions, EdgeState};
pub use explain::{Candidate, RouteExplanation, WithoutAddress};
pub use failure::LastError;
pub use generation::{Generation, Sha256, Source};
pub use push::{Push, PushLimits, Pushed};
pub use status::ConfigStatus;
pub use writer::Applied;
