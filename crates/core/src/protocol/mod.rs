//! The protocol between edges and control planes.
//!
//! `docs/protocol.md` is the specification; this is its one implementation, used by both sides.
//! There are two dialects: `cellgate.v1` (the types here), and the plain messages of M3 in [`m3`].
//! Everything here is pure: bytes and values in, bytes and values out; no socket, runtime or clock.
//!
//! - `message` has the JSON text frames: [`ToControl`], [`ToEdge`].
//! - `snapshot` encodes a table as binary frames ([`SnapshotSender`]) and decodes them
//!   ([`SnapshotReceiver`]).
//! - `batch` combines the deltas that an edge missed into few messages.
//! - `order` decides what an edge does with a delta, snapshot or checkpoint: generations only grow.
//! - [`Backoff`] decides when and where to reconnect.
//!
//! Received data is not trusted until it is decoded here and checked against the bounds in
//! [`limits`]. A message makes its receiver allocate at most a fixed multiple of its size, a
//! snapshot at most what [`SnapshotLimits`] allow.

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

/// The WebSocket subprotocol (RFC 6455, section 1.9) of the `cellgate.v1` dialect. A connection
/// without a subprotocol speaks [`m3`].
pub const SUBPROTOCOL: &str = "cellgate.v1";
