//! What an edge and a control plane say to each other.
//!
//! `docs/protocol.md` is the specification, written for people; this is its one
//! implementation, which both sides use. Two dialects: `cellgate.v1` (the types
//! here), and the plain messages of M3 in [`m3`]. Nothing here knows a socket, a
//! runtime or a clock: bytes and values go in, bytes and values come out.
//! Imports value types of `routing` only (a test in `src/purity.rs` keeps it so).
//!
//! - `message` has what is said in JSON text frames: [`ToControl`], [`ToEdge`].
//! - `snapshot` cuts a table into binary frames ([`SnapshotSender`]) and makes one
//!   of them again ([`SnapshotReceiver`]).
//! - `batch` makes the deltas that an edge missed into few messages.
//! - `order` says what an edge does with what it is offered: generations only
//!   grow.
//! - [`Backoff`] says when and where to dial again.
//!
//! Whatever is received is hostile until it was decoded here: it is held against
//! the bounds in [`limits`]. No message makes its receiver hold more than a fixed
//! multiple of its own size, and no snapshot more than [`SnapshotLimits`] allow.

mod backoff;
mod batch;
mod bounds;
mod json;
pub mod limits;
pub mod m3;
mod message;
mod order;
mod refusal;
mod snapshot;

#[cfg(test)]
mod tests;

pub use backoff::Backoff;
pub use batch::{Step, batch, fold};
pub use bounds::{KeyTooLong, sendable};
pub use limits::SnapshotLimits;
pub use message::{
    Ack, Checkpoint, DeltaMessage, Hello, LastError, Load, Nack, Received, Resync, SnapshotBegin,
    SnapshotEnd, Status, ToControl, ToEdge, TooLarge, Welcome,
};
pub use order::{Mark, Verdict, checkpoint, delta, snapshot};
pub use refusal::{Close, Refusal};
pub use snapshot::{ChunkHeader, SnapshotError, SnapshotReceiver, SnapshotSender, Unsendable};

/// The WebSocket subprotocol (RFC 6455, section 1.9) of the messages here. A
/// connection without one speaks [`m3`].
pub const SUBPROTOCOL: &str = "cellgate.v1";
