//! A whole table in binary frames of bounded size.
//!
//! Between a `snapshot_begin` and a `snapshot_end`, first the head in parts, then
//! the keys. Each chunk stands for itself: it has its own list of the placements
//! that its keys live on, so neither side holds more than a chunk besides the
//! table.

mod chunk;
mod receive;
mod send;
mod varint;

pub use chunk::ChunkHeader;
pub use receive::{SnapshotError, SnapshotReceiver};
pub use send::{SnapshotSender, Unsendable};

/// The one way to compress chunks (RFC 8878).
pub(super) const ZSTD: &str = "zstd";
