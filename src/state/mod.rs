//! What the edge serves: the one pointer that requests read, and the one writer that
//! moves it.
//!
//! Requests read [`EdgeState::current`] once; one request sees one [`Generation`]. Every
//! change, whatever its source, goes through [`EdgeState::apply`] or [`EdgeState::push`].
//! What did not change keeps its state: `upstream` has it.
//!
//! `proxy`, `source`, `admin` and `cli` import this folder; it imports `upstream`, `table`
//! and `telemetry`.

pub(crate) mod apply;
mod connection;
mod disk;
mod explain;
mod gauges;
mod generation;
mod push;
pub(crate) mod restore;
pub(crate) mod retire;
pub(crate) mod status;

#[cfg(test)]
pub(crate) mod tests;

pub use apply::{Applied, EdgeOptions, EdgeState};
pub use connection::{Connection, ConnectionError, ConnectionState, ConnectionStatus};
pub use disk::{Fallback, Memory, MemoryOptions, MemoryStatus};
pub use explain::{Candidate, Full, RouteExplanation, WithoutAddress};
pub use generation::{Generation, Sha256, Source};
pub use push::{Push, PushLimits, Pushed};
pub use status::{ConfigStatus, LastError};
