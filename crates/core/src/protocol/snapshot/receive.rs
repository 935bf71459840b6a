//! Decodes the frames of a snapshot into a table.

use std::fmt;

use super::chunk::{ChunkHeader, Unpacker};
use super::{ZSTD, varint};
use crate::protocol::limits::SnapshotLimits;
use crate::protocol::message::{SnapshotBegin, SnapshotEnd};
use crate::table::{PlacementId, Problem, RoutingTable, TableBuilder};

/// A snapshot that is being received: the begin message, then the chunks in order, then the end
/// message. After an error it must be discarded.
///
/// Memory grows with the decoded chunks, up to the limits; never with announced sizes.
pub struct SnapshotReceiver {
    begin: SnapshotBegin,
    limits: SnapshotLimits,
    unpacker: Unpacker,
    /// Bytes of all payloads so far.
    bytes: u64,
    /// Keys so far.
    keys: u64,
    /// The index of the next chunk.
    index: u32,
    stage: Stage,
}

/// What the next chunk must be.
enum Stage {
    /// A part of the head; this much has arrived.
    Head(Vec<u8>),
    Keys(Box<TableBuilder>),
}

/// Why a snapshot did not become a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotError {
    /// The content cannot be served: answer with a nack.
    Refused(Vec<Problem>),
    /// It was damaged on the way: a resync may help.
    Broken(String),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => write!(f, "broken snapshot: {why}"),
            Self::Refused(problems) => {
                f.write_str("snapshot refused: ")?;
                match problems.as_slice() {
                    [] => Ok(()),
                    [one] => one.fmt(f),
                    [first, more @ ..] => write!(f, "{first} (and {} more)", more.len()),
                }
            }
        }
    }
}

impl std::error::Error for SnapshotError {}

fn refused(message: String) -> SnapshotError {
    SnapshotError::Refused(vec![Problem::without_place(message)])
}

fn broken(why: impl Into<String>) -> SnapshotError {
    SnapshotError::Broken(why.into())
}

impl SnapshotReceiver {
    /// Starts a snapshot as the control plane announced it.
    ///
    /// # Errors
    ///
    /// It exceeds `limits`, or its encoding is unknown.
    pub fn new(begin: SnapshotBegin, limits: SnapshotLimits) -> Result<Self, SnapshotError> {
        if begin.encoding != ZSTD {
            return Err(refused(format!(
                "snapshot with the encoding {:?} (known: {ZSTD})",
                begin.encoding
            )));
        }
        if begin.keys > limits.keys {
            return Err(refused(format!(
                "snapshot of {} keys (at most {})",
                begin.keys, limits.keys
            )));
        }
        if begin.head_bytes > limits.bytes {
            return Err(too_long(begin.head_bytes, limits));
        }
        Ok(Self {
            begin,
            limits,
            unpacker: Unpacker::new().map_err(|error| broken(error.to_string()))?,
            bytes: 0,
            keys: 0,
            index: 0,
            stage: Stage::Head(Vec::new()),
        })
    }

    /// The begin message.
    pub fn begin(&self) -> &SnapshotBegin {
        &self.begin
    }

    /// Decodes a binary frame.
    ///
    /// # Errors
    ///
    /// It is not the next chunk of this snapshot, or its content is invalid.
    pub fn chunk(&mut self, frame: &[u8]) -> Result<(), SnapshotError> {
        let Some((header, payload)) = ChunkHeader::split(frame) else {
            return Err(broken(format!("chunk of {} bytes", frame.len())));
        };
        if header.id != self.begin.id {
            return Err(broken(format!(
                "chunk of snapshot {} within snapshot {}",
                header.id, self.begin.id
            )));
        }
        if header.index != self.index {
            return Err(broken(format!(
                "chunk {} instead of chunk {}",
                header.index, self.index
            )));
        }
        let index = self.index;
        let payload = self
            .unpacker
            .unpack(payload)
            .map_err(|why| broken(format!("chunk {index}: {why}")))?;
        self.bytes += payload.len() as u64;
        if self.bytes > self.limits.bytes {
            return Err(too_long(self.bytes, self.limits));
        }
        match (&mut self.stage, header.entries) {
            (Stage::Head(head), 0) => {
                let all = head.len() as u64 + payload.len() as u64;
                if payload.is_empty() || all > self.begin.head_bytes {
                    return Err(broken(format!(
                        "chunk {index}: {} more bytes of a head of {} bytes, after {}",
                        payload.len(),
                        self.begin.head_bytes,
                        head.len()
                    )));
                }
                head.extend(payload);
                if all == self.begin.head_bytes {
                    let head = std::str::from_utf8(head)
                        .map_err(|_| refused("head: not valid UTF-8".to_owned()))?;
                    let builder = TableBuilder::new(head).map_err(SnapshotError::Refused)?;
                    self.stage = Stage::Keys(Box::new(builder));
                }
            }
            (Stage::Keys(builder), 1..) => {
                self.keys += u64::from(header.entries);
                if self.keys > self.begin.keys {
                    return Err(broken(format!(
                        "more keys than the {} that were announced",
                        self.begin.keys
                    )));
                }
                read_keys(payload, header.entries, builder).map_err(|error| match error {
                    SnapshotError::Broken(why) => broken(format!("chunk {index}: {why}")),
                    refused => refused,
                })?;
            }
            (Stage::Head(_), 1..) => {
                return Err(broken(format!(
                    "chunk {index}: keys before the end of the head"
                )));
            }
            (Stage::Keys(_), 0) => {
                return Err(broken(format!("chunk {index}: no keys")));
            }
        }
        self.index = index
            .checked_add(1)
            .ok_or_else(|| broken("more chunks than can be numbered"))?;
        Ok(())
    }

    /// Builds the table after the last chunk. Takes time in proportion to the number of keys.
    ///
    /// # Errors
    ///
    /// Something is missing, a key is duplicated, or the digest is not the announced one.
    pub fn end(self, end: SnapshotEnd) -> Result<RoutingTable, SnapshotError> {
        if end.id != self.begin.id {
            return Err(broken(format!(
                "end of snapshot {} within snapshot {}",
                end.id, self.begin.id
            )));
        }
        let Stage::Keys(builder) = self.stage else {
            return Err(broken("it ends before the end of the head"));
        };
        if end.chunks != self.index || self.keys != self.begin.keys {
            return Err(broken(format!(
                "{} chunks with {} keys arrived of {} with {}",
                self.index, self.keys, end.chunks, self.begin.keys
            )));
        }
        let table = builder
            .finish()
            .map_err(|problem| SnapshotError::Refused(vec![problem]))?;
        match table.digest() == self.begin.digest {
            true => Ok(table),
            false => Err(broken(format!(
                "its digest is {}, but {} was announced",
                table.digest(),
                self.begin.digest
            ))),
        }
    }
}

fn too_long(bytes: u64, limits: SnapshotLimits) -> SnapshotError {
    refused(format!(
        "snapshot of {bytes} bytes or more (at most {})",
        limits.bytes
    ))
}

/// Reads the payload of a chunk with `entries` keys.
fn read_keys(
    payload: &[u8],
    entries: u32,
    builder: &mut TableBuilder,
) -> Result<(), SnapshotError> {
    let mut rest = payload;
    let placements = read_placements(&mut rest, builder)?;
    for _ in 0..entries {
        let key = read_text(&mut rest)?;
        let index = varint::read(&mut rest)
            .ok_or_else(|| broken("a key without the index of its placement"))?;
        let Some(&placement) = placements.get(index as usize) else {
            return Err(broken(format!(
                "placement {index} of a list of {}",
                placements.len()
            )));
        };
        builder
            .push(key, placement)
            .map_err(|error| refused(error.to_string()))?;
    }
    match rest.len() {
        0 => Ok(()),
        bytes => Err(broken(format!("{bytes} bytes after the last key"))),
    }
}

fn read_placements(
    rest: &mut &[u8],
    builder: &TableBuilder,
) -> Result<Vec<PlacementId>, SnapshotError> {
    let count = varint::read(rest).ok_or_else(|| broken("the number of placements is missing"))?;
    let mut placements = Vec::new();
    for _ in 0..count {
        let name = read_text(rest)?;
        let placement = builder.placement(name).ok_or_else(|| {
            let known: String = name.chars().take(80).collect();
            refused(format!("unknown placement {known:?} (not in the head)"))
        })?;
        placements.push(placement);
    }
    Ok(placements)
}

fn read_text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, SnapshotError> {
    let length = varint::read(rest).ok_or_else(|| broken("the length of a text is missing"))?;
    let (text, after) = rest
        .split_at_checked(length as usize)
        .ok_or_else(|| broken(format!("a text of {length} bytes is cut off")))?;
    *rest = after;
    std::str::from_utf8(text).map_err(|_| broken("a text that is not UTF-8"))
}
