//! Binary frames: a header of 16 bytes and a compressed payload.

use std::io;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe;

use crate::protocol::limits::{CHUNK_BYTES, CHUNK_FRAME_BYTES, CHUNK_HEADER_BYTES};

/// The zstd level; higher levels cost more time than they save on the wire.
const LEVEL: i32 = 3;

/// The magic number of a zstd frame (RFC 8878, section 3.1.1).
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The header of a chunk. All numbers are big-endian, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// The id of the snapshot.
    pub id: u64,
    /// The position of the chunk, from 0, without gaps.
    pub index: u32,
    /// The number of keys; 0: the chunk is a part of the head.
    pub entries: u32,
}

impl ChunkHeader {
    /// Splits a frame into its header and its compressed payload. None: it is too short.
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

    /// The encoded header.
    pub fn bytes(self) -> [u8; CHUNK_HEADER_BYTES] {
        let mut bytes = [0; CHUNK_HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.id.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.index.to_be_bytes());
        bytes[12..].copy_from_slice(&self.entries.to_be_bytes());
        bytes
    }
}

/// Encodes frames.
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

/// Decompresses payloads.
pub(super) struct Unpacker {
    zstd: Decompressor<'static>,
    /// Reused for all chunks; never grows.
    payload: Vec<u8>,
}

impl Unpacker {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            zstd: Decompressor::new()?,
            payload: Vec::with_capacity(CHUNK_BYTES),
        })
    }

    /// Decompresses exactly one zstd frame of at most [`CHUNK_BYTES`]. Checks the magic number, as the
    /// library may also accept legacy formats and several frames.
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
