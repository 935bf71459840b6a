//! Messages from a control plane to an edge.

use serde::{Deserialize, Serialize};

use super::{Received, TooLarge, decode, encode};
use crate::protocol::bounds::{count, generation, name, number, sendable};
use crate::protocol::json::pairs;
use crate::protocol::limits::{DELTA_KEYS, NAME_BYTES, PING_SECONDS, TO_EDGE_BYTES};
use crate::protocol::order::Mark;
use crate::protocol::refusal::Refusal;
use crate::protocol::snapshot::ZSTD;
use crate::table::{Delta, Digest, RoutingTable};

/// A message from a control plane to an edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToEdge {
    Welcome(Welcome),
    Delta(DeltaMessage),
    SnapshotBegin(SnapshotBegin),
    SnapshotEnd(SnapshotEnd),
    Checkpoint(Checkpoint),
}

/// The answer to a hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The control plane's name.
    pub control_id: String,
    /// Its newest generation; 0 when it has none.
    pub generation: u64,
    #[serde(default)]
    pub digest: Option<Digest>,
    /// The interval between pings of both sides, in seconds.
    pub ping_seconds: u64,
}

/// The change from generation `from` to generation `generation`, with all generations in between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaMessage {
    pub from: u64,
    pub generation: u64,
    /// The digest after the change.
    pub digest: Digest,
    /// This and the fields below are those of [`Delta`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    #[serde(default, with = "pairs")]
    pub set: Vec<(String, String)>,
    #[serde(default)]
    pub remove: Vec<String>,
}

/// Announces a snapshot, whose chunks have this `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotBegin {
    /// Unique among the snapshots of a connection.
    pub id: u64,
    pub generation: u64,
    pub digest: Digest,
    /// The length of the head, in bytes.
    pub head_bytes: u64,
    /// The number of routing keys.
    pub keys: u64,
    /// The compression of chunks: `zstd`.
    pub encoding: String,
}

/// All chunks of a snapshot have been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEnd {
    pub id: u64,
    /// The number of chunks.
    pub chunks: u32,
}

/// The generation that the edge should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub generation: u64,
    pub digest: Digest,
}

impl ToEdge {
    /// Decodes a text frame of at most `most` bytes, the `max_frame` of the hello.
    ///
    /// # Errors
    ///
    /// The frame is too large, not JSON, or out of bounds; the connection must be closed so.
    pub fn decode(frame: &[u8], most: usize) -> Result<Received<Self>, Refusal> {
        let read = |kind: &str, text: &str| {
            Some(match kind {
                "welcome" => serde_json::from_str(text).map(Self::Welcome),
                "delta" => serde_json::from_str(text).map(Self::Delta),
                "snapshot_begin" => serde_json::from_str(text).map(Self::SnapshotBegin),
                "snapshot_end" => serde_json::from_str(text).map(Self::SnapshotEnd),
                "checkpoint" => serde_json::from_str(text).map(Self::Checkpoint),
                _ => return None,
            })
        };
        decode(frame, most.min(TO_EDGE_BYTES), read, Self::check)
    }

    /// Encodes the message for an edge that accepts `most` bytes.
    ///
    /// # Errors
    ///
    /// The message, which can only be a delta, is larger.
    pub fn encode(&self, most: usize) -> Result<String, TooLarge> {
        encode(self, most.min(TO_EDGE_BYTES))
    }

    fn check(&self) -> Result<(), String> {
        match self {
            Self::Welcome(welcome) => welcome.check(),
            Self::Delta(delta) => delta.check(),
            Self::SnapshotBegin(begin) => {
                number("id", begin.id)?;
                generation("generation", begin.generation)?;
                number("head_bytes", begin.head_bytes)?;
                number("keys", begin.keys)?;
                name("encoding", &begin.encoding, NAME_BYTES)
            }
            Self::SnapshotEnd(end) => number("id", end.id),
            Self::Checkpoint(checkpoint) => generation("generation", checkpoint.generation),
        }
    }
}

impl Welcome {
    fn check(&self) -> Result<(), String> {
        name("control_id", &self.control_id, NAME_BYTES)?;
        number("generation", self.generation)?;
        if let (0, Some(digest)) = (self.generation, self.digest) {
            return Err(format!(
                "digest: {digest} of generation 0 (must be null: generation 0 has no content)"
            ));
        }
        match PING_SECONDS.contains(&self.ping_seconds) {
            true => Ok(()),
            false => Err(format!(
                "ping_seconds: {} (valid: {} to {})",
                self.ping_seconds,
                PING_SECONDS.start(),
                PING_SECONDS.end()
            )),
        }
    }
}

impl DeltaMessage {
    /// The message for `delta`, which leads from generation `from` to `to`.
    pub fn new(from: u64, to: Mark, delta: Delta) -> Self {
        Self {
            from,
            generation: to.generation,
            digest: to.digest,
            head: delta.head,
            set: delta.set,
            remove: delta.remove,
        }
    }

    /// The generation after it.
    pub fn mark(&self) -> Mark {
        Mark {
            generation: self.generation,
            digest: self.digest,
        }
    }

    /// The delta, which may still turn out to be invalid when it is applied.
    pub fn into_delta(self) -> Delta {
        Delta {
            head: self.head,
            set: self.set,
            remove: self.remove,
        }
    }

    fn check(&self) -> Result<(), String> {
        generation("from", self.from)?;
        generation("generation", self.generation)?;
        if self.generation <= self.from {
            return Err(format!(
                "generation: {} (must be above from, which is {})",
                self.generation, self.from
            ));
        }
        let keys = self.set.len() + self.remove.len();
        count("set and remove", keys, "keys", DELTA_KEYS)?;
        let keys = self.set.iter().map(|(key, _)| key).chain(&self.remove);
        for key in keys {
            sendable(key).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

impl SnapshotBegin {
    /// Announces `table` as generation `generation`.
    pub fn new(table: &RoutingTable, id: u64, generation: u64) -> Self {
        Self {
            id,
            generation,
            digest: table.digest(),
            head_bytes: table.head_json().len() as u64,
            keys: table.key_count() as u64,
            encoding: ZSTD.to_owned(),
        }
    }

    /// The generation after it.
    pub fn mark(&self) -> Mark {
        Mark {
            generation: self.generation,
            digest: self.digest,
        }
    }
}

impl Checkpoint {
    /// The generation that the edge should have.
    pub fn mark(&self) -> Mark {
        Mark {
            generation: self.generation,
            digest: self.digest,
        }
    }
}
