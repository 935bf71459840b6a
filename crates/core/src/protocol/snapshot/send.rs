//! Encodes a table as the frames of a snapshot.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::iter::Peekable;

use super::chunk::{ChunkHeader, Packer};
use super::varint;
use crate::protocol::bounds::{KeyTooLong, sendable};
use crate::protocol::limits::CHUNK_BYTES;
use crate::protocol::message::{SnapshotBegin, SnapshotEnd};
use crate::table::{PlacementId, RoutingTable};

/// An iterator over the binary frames of a snapshot. Each is encoded on demand, which takes about a
/// millisecond.
///
/// Send [`begin`](Self::begin) before the first frame, and [`end`](Self::end) after the last.
pub struct SnapshotSender<'a> {
    table: &'a RoutingTable,
    id: u64,
    generation: u64,
    /// The rest of the head.
    head: &'a [u8],
    keys: Peekable<Keys<'a>>,
    packer: Packer,
    chunk: Chunk,
    /// The index of the next chunk.
    index: u32,
}

type Keys<'a> = Box<dyn Iterator<Item = (&'a str, PlacementId)> + Send + 'a>;

/// Why a table cannot be sent. The receiver discards the frames that it has when another snapshot
/// begins.
#[derive(Debug)]
pub enum Unsendable {
    Key(KeyTooLong),
    /// Out of memory, or more chunks than a `u32` can count.
    Failed(io::Error),
}

impl fmt::Display for Unsendable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => error.fmt(f),
            Self::Failed(error) => write!(f, "cannot encode a chunk: {error}"),
        }
    }
}

impl std::error::Error for Unsendable {}

impl<'a> SnapshotSender<'a> {
    /// Encodes `table` as generation `generation`. `id` must be unique among the snapshots of a
    /// connection.
    ///
    /// # Errors
    ///
    /// Out of memory.
    pub fn new(table: &'a RoutingTable, id: u64, generation: u64) -> Result<Self, Unsendable> {
        let keys: Keys<'a> = Box::new(table.keys());
        Ok(Self {
            table,
            id,
            generation,
            head: table.head_json().as_bytes(),
            keys: keys.peekable(),
            packer: Packer::new().map_err(Unsendable::Failed)?,
            chunk: Chunk::default(),
            index: 0,
        })
    }

    /// The message before the first chunk.
    pub fn begin(&self) -> SnapshotBegin {
        SnapshotBegin::new(self.table, self.id, self.generation)
    }

    /// The message after the last chunk.
    pub fn end(&self) -> SnapshotEnd {
        SnapshotEnd {
            id: self.id,
            chunks: self.index,
        }
    }

    /// Skips the next chunk without encoding it. False: there are no more.
    ///
    /// # Errors
    ///
    /// As encoding it.
    pub fn skip_chunk(&mut self) -> Result<bool, Unsendable> {
        if !self.head.is_empty() {
            self.head = self.head.split_at(self.head.len().min(CHUNK_BYTES)).1;
        } else {
            self.fill().map_err(Unsendable::Key)?;
            if self.chunk.entries == 0 {
                return Ok(false);
            }
        }
        self.count()?;
        Ok(true)
    }

    /// Fills the chunk with as many keys as fit.
    fn fill(&mut self) -> Result<(), KeyTooLong> {
        self.chunk.clear();
        while let Some(&(key, placement)) = self.keys.peek() {
            sendable(key)?;
            let name = &self.table.placement(placement).name;
            if !self.chunk.add(key, placement, name) {
                break;
            }
            self.keys.next();
        }
        Ok(())
    }

    fn pack(&mut self, entries: u32, payload: &[u8]) -> Result<Vec<u8>, Unsendable> {
        let header = ChunkHeader {
            id: self.id,
            index: self.index,
            entries,
        };
        self.count()?;
        self.packer
            .pack(header, payload)
            .map_err(Unsendable::Failed)
    }

    fn count(&mut self) -> Result<(), Unsendable> {
        self.index = self
            .index
            .checked_add(1)
            .ok_or_else(|| Unsendable::Failed(io::ErrorKind::FileTooLarge.into()))?;
        Ok(())
    }
}

impl Iterator for SnapshotSender<'_> {
    type Item = Result<Vec<u8>, Unsendable>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.head.is_empty() {
            let (part, rest) = self.head.split_at(self.head.len().min(CHUNK_BYTES));
            self.head = rest;
            return Some(self.pack(0, part));
        }
        if let Err(error) = self.fill() {
            return Some(Err(Unsendable::Key(error)));
        }
        if self.chunk.entries == 0 {
            return None;
        }
        let payload = self.chunk.payload();
        Some(self.pack(self.chunk.entries, &payload))
    }
}

/// The keys of one frame.
#[derive(Default)]
struct Chunk {
    entries: u32,
    /// The names of the placements, each with its length.
    names: Vec<u8>,
    /// The index of each placement in `names`, from 0.
    indexes: HashMap<PlacementId, u32>,
    /// The keys, each with its length and the index of its placement.
    keys: Vec<u8>,
}

impl Chunk {
    fn clear(&mut self) {
        self.entries = 0;
        self.names.clear();
        self.indexes.clear();
        self.keys.clear();
    }

    /// Adds a key. False: it does not fit.
    fn add(&mut self, key: &str, placement: PlacementId, name: &str) -> bool {
        let seen = self.indexes.get(&placement).copied();
        let index = seen.unwrap_or(self.indexes.len() as u32);
        let room = |bytes: usize| varint::bytes(bytes as u32) + bytes;
        let new = seen.map_or_else(|| room(name.len()), |_| 0);
        let used = varint::MOST + self.names.len() + self.keys.len();
        if used + new + room(key.len()) + varint::bytes(index) > CHUNK_BYTES {
            return false;
        }
        if seen.is_none() {
            self.indexes.insert(placement, index);
            put(name, &mut self.names);
        }
        put(key, &mut self.keys);
        varint::write(index, &mut self.keys);
        self.entries += 1;
        true
    }

    fn payload(&self) -> Vec<u8> {
        let length = varint::MOST + self.names.len() + self.keys.len();
        let mut payload = Vec::with_capacity(length);
        varint::write(self.indexes.len() as u32, &mut payload);
        payload.extend(&self.names);
        payload.extend(&self.keys);
        payload
    }
}

fn put(text: &str, out: &mut Vec<u8>) {
    varint::write(text.len() as u32, out);
    out.extend(text.as_bytes());
}
