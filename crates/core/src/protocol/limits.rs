//! Bounds on sizes, and intervals.
//!
//! A sender must respect them; a receiver refuses what exceeds them. All are part of the protocol:
//! unless noted otherwise, raising one requires a new subprotocol.

use std::time::Duration;

/// Largest generation and snapshot id: the largest integer that every JSON parser represents exactly
/// (RFC 8259, section 6).
pub const NUMBER_MAX: u64 = (1 << 53) - 1;

/// Largest message to a control plane, in bytes. A status of a thousand placements fits. Small,
/// because a control plane has thousands of edges.
pub const TO_CONTROL_BYTES: usize = 256 * 1024;

/// Largest message to an edge, in bytes, unless the edge announces less. A larger change is cheaper
/// as a snapshot.
pub const TO_EDGE_BYTES: usize = 1024 * 1024;

/// Largest payload of a snapshot's chunk before compression, in bytes. Larger chunks compress little
/// better, and both sides must hold one in memory.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Length of the header of a chunk, in bytes.
pub const CHUNK_HEADER_BYTES: usize = 16;

/// Largest binary frame, in bytes: the header and an incompressible payload (`ZSTD_COMPRESSBOUND`,
/// rounded up).
pub const CHUNK_FRAME_BYTES: usize = CHUNK_HEADER_BYTES + CHUNK_BYTES + CHUNK_BYTES / 256 + 64;

/// Smallest `max_frame` that an edge may announce, in bytes: a chunk must fit.
pub const MAX_FRAME_LEAST: usize = 512 * 1024;

/// Longest routing key that can be sent, in bytes: more than the default limit of a request's
/// headers. Any such key fits a chunk.
pub const KEY_BYTES: usize = 64 * 1024;

/// Most keys that one delta may set and remove together. Each costs the receiver about 100 bytes in
/// addition to its text.
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

/// Longest reason in a close frame, in bytes (RFC 6455, section 5.5).
pub const CLOSE_REASON_BYTES: usize = 123;

/// The interval between pings of each side, unless the welcome says otherwise.
pub const PING: Duration = Duration::from_secs(15);

/// The seconds between pings that a welcome may ask for.
pub const PING_SECONDS: std::ops::RangeInclusive<u64> = 1..=300;

/// A connection on which nothing was received for this many ping intervals is dead.
pub const SILENT_PINGS: u32 = 3;

/// How long the hello may take after the handshake, and the welcome after the hello.
pub const GREETING: Duration = Duration::from_secs(10);

/// The interval between two status messages when nothing changes.
pub const STATUS_EVERY: Duration = Duration::from_secs(10);

/// The interval between two checkpoints.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);

/// What a receiver accepts as one snapshot: local configuration, not part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotLimits {
    /// Most routing keys.
    pub keys: u64,
    /// Most bytes of all decompressed payloads together.
    pub bytes: u64,
}

impl SnapshotLimits {
    /// Most keys, independent of the size limit.
    pub const KEYS: u64 = 50_000_000;

    /// The limits that correspond to a document of at most `bytes`. A snapshot is shorter than its
    /// document, and a key takes at least 8 bytes in a document: `"k":"p",`.
    pub fn of_document(bytes: u64) -> Self {
        Self {
            keys: Self::KEYS.min(bytes / 8),
            bytes,
        }
    }
}

impl Default for SnapshotLimits {
    /// 50 million keys and 1 GiB, the default limit of a routing file.
    fn default() -> Self {
        Self::of_document(1 << 30)
    }
}
