//! One binary frame: a header of 16 bytes, and a payload that is compressed.

use std::io;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe;

use crate::protocol::limits::{CHUNK_BYTES, CHUNK_FRAME_BYTES, CHUNK_HEADER_BYTES};

/// Each step beyond costs more time than it saves on the wire.
const LEVEL: i32 = 3;

/// What every zstd frame starts with (RFC 8878, section 3.1.1).
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What a chunk says of itself. All numbers are big-endian, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Of the snapshot that it is a part of.
    pub id: u64,
    /// The first is 0, and each is one more than the one before.
    pub index: u32,
    /// How many keys it has; 0: it is a part of the head.
    pub entries: u32,
}

impl ChunkHeader {
    /// The header of a frame and its payload, which is compressed still. None: it
    /// is too short for one.
    pub fn split(frame: &[u8]) -> Option<(Self, &[u8])> {
        let (id, rest) = frame.split_first_chunk()?;
        let (index, rest) = rest.split_first_chunk()?;
        let (entries, payload) = rest.split_first_chunk()?;
        let header = Self {
            id: u64::from_be_bytes(*id),
            index: u32::from_be_bytes(*index),
            entries: u32::from_be_bytes(*entries),
        };
        Some((header, payload))
    }

    /// What [`split`](Self::split) reads.
    pub fn bytes(self) -> [u8; CHUNK_HEADER_BYTES] {
        let mut bytes = [0; CHUNK_HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.id.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.index.to_be_bytes());
        bytes[12..].copy_from_slice(&self.entries.to_be_bytes());
        bytes
    }
}

/// Makes frames.
pub(super) struct Packer(Compressor<'static>);

impl Packer {
    pub fn new() -> io::Result<Self> {
        Compressor::new(LEVEL).map(Self)
    }

    /// The frame of a payload of at most [`CHUNK_BYTES`].
    pub fn pack(&mut self, header: ChunkHeader, payload: &[u8]) -> io::Result<Vec<u8>> {
        let compressed = self.0.compress(payload)?;
        let mut frame = Vec::with_capacity(CHUNK_HEADER_BYTES + compressed.len());
        frame.extend(header.bytes());
        frame.extend(compressed);
        Ok(frame)
    }
}

/// Reads payloads.
pub(super) struct Unpacker {
    zstd: Decompressor<'static>,
    /// Kept, so that a chunk allocates nothing. Never grows.
    payload: Vec<u8>,
}

impl Unpacker {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            zstd: Decompressor::new()?,
            payload: Vec::with_capacity(CHUNK_BYTES),
        })
    }

    /// What `compressed` was, at most [`CHUNK_BYTES`]. It is one frame of the
    /// format that has a specification: the library may know older ones as well,
    /// and would read several.
    pub fn unpack(&mut self, compressed: &[u8]) -> Result<&[u8], String> {
        if compressed.len() > CHUNK_FRAME_BYTES - CHUNK_HEADER_BYTES {
            return Err(format!(
                "{} bytes (at most {})",
                compressed.len(),
                CHUNK_FRAME_BYTES - CHUNK_HEADER_BYTES
            ));
        }
        let one = zstd_safe::find_frame_compressed_size(compressed);
        if !compressed.starts_with(&MAGIC) || one != Ok(compressed.len()) {
            return Err("not one zstd frame".to_owned());
        }
        self.payload.clear();
        self.zstd
            .decompress_to_buffer(compressed, &mut self.payload)
            .map_err(|error| {
                format!("does not decompress to at most {CHUNK_BYTES} bytes: {error}")
            })?;
        Ok(&self.payload)
    }
}
