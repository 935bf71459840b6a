//! A whole table as binary frames of bounded size.
//!
//! Between `snapshot_begin` and `snapshot_end` come the parts of the head, then the keys. Each chunk
//! has its own list of the placements of its keys, so neither side needs more memory than one chunk
//! in addition to the table.

mod chunk;
mod receive;
mod send;
mod varint;

pub use chunk::ChunkHeader;
pub use receive::{SnapshotError, SnapshotReceiver};
pub use send::{SnapshotSender, Unsendable};

/// The only encoding of chunks (RFC 8878).
pub(super) const ZSTD: &str = "zstd";
