//! How large anything may be, and how often and how long.
//!
//! A sender keeps to these; a receiver refuses what does not. All are part of the
//! protocol: raising one takes another subprotocol, except where said.

use std::time::Duration;

/// Largest generation and snapshot id: the largest whole number that every JSON
/// reader has exactly (RFC 8259, section 6).
pub const NUMBER_MAX: u64 = (1 << 53) - 1;

/// Largest message to a control plane, in bytes. A status of a thousand placements
/// fits. Small, as one control plane has thousands of edges.
pub const TO_CONTROL_BYTES: usize = 256 * 1024;

/// Largest message to an edge, in bytes, unless the edge announces less. What does
/// not fit a delta of this size is cheaper as a snapshot.
pub const TO_EDGE_BYTES: usize = 1024 * 1024;

/// Largest payload of a snapshot's chunk before compression, in bytes. Compressors
/// gain little beyond it, and it is what either side has to hold at a time.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// In front of every chunk.
pub const CHUNK_HEADER_BYTES: usize = 16;

/// Largest binary frame: the header, and what zstd makes of a payload that it
/// cannot compress (`ZSTD_COMPRESSBOUND`, rounded up).
pub const CHUNK_FRAME_BYTES: usize = CHUNK_HEADER_BYTES + CHUNK_BYTES + CHUNK_BYTES / 256 + 64;

/// Least `max_frame` that an edge may announce: a chunk has to fit.
pub const MAX_FRAME_LEAST: usize = 512 * 1024;

/// Longest routing key that can be sent, in bytes, which is longer than the
/// headers of a request are by default. Any fits a chunk.
pub const KEY_BYTES: usize = 64 * 1024;

/// Most keys that one delta may set and remove. Each costs the receiver some 100
/// bytes besides its text.
pub const DELTA_KEYS: usize = 65_536;

/// Longest name of an edge, an instance, a control plane, a label or a placement,
/// in bytes of printable ASCII.
pub const NAME_BYTES: usize = 128;

/// Most labels of an edge.
pub const LABELS: usize = 32;

/// Longest value of a label, and longest version of a program, in bytes.
pub const VALUE_BYTES: usize = 256;

/// Longest reason of a resync, in bytes.
pub const REASON_BYTES: usize = 1024;

/// Most problems of one nack or status: a hundred, and one that counts the rest.
pub const PROBLEMS: usize = 101;

/// Longest pointer and longest message of a problem, in bytes.
pub const PROBLEM_BYTES: usize = 4096;

/// Most placements of one status: the busiest.
pub const STATUS_PLACEMENTS: usize = 1000;

/// Longest reason of a close, in bytes (RFC 6455, section 5.5).
pub const CLOSE_REASON_BYTES: usize = 123;

/// How often each side pings, unless the welcome says otherwise.
pub const PING: Duration = Duration::from_secs(15);

/// The seconds between pings that a welcome may ask for.
pub const PING_SECONDS: std::ops::RangeInclusive<u64> = 1..=300;

/// A link on which nothing came for so many pings is dead.
pub const SILENT_PINGS: u32 = 3;

/// How long after the handshake the hello, and after it the welcome, may take.
pub const GREETING: Duration = Duration::from_secs(10);

/// How often an edge sends its status when nothing changes.
pub const STATUS_EVERY: Duration = Duration::from_secs(10);

/// How often a control plane says what generation and digest an edge should have.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);

/// What a receiver accepts as one snapshot: its own business, not the protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotLimits {
    /// Most routing keys.
    pub keys: u64,
    /// Most bytes of all payloads together, before compression.
    pub bytes: u64,
}

impl SnapshotLimits {
    /// Most keys, whatever the documents that are taken.
    pub const KEYS: u64 = 50_000_000;

    /// What a document of at most `bytes` may have in it. A snapshot is shorter
    /// than its document, and of a key there are 8 bytes in one, or more:
    /// `"k":"p",`.
    pub fn of_document(bytes: u64) -> Self {
        Self {
            keys: Self::KEYS.min(bytes / 8),
            bytes,
        }
    }
}

impl Default for SnapshotLimits {
    /// 50 million keys and 1 GiB, as the routing file's own limit is.
    fn default() -> Self {
        Self::of_document(1 << 30)
    }
}
