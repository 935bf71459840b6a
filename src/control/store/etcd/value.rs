//! The values in etcd: JSON, readable with `etcdctl`, with large contents in
//! [blobs](super::blob).

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::control::store::{Record, StoreError, json_bytes};
use crate::protocol::limits::{CHUNK_FRAME_BYTES, SnapshotLimits, TO_EDGE_BYTES};
use crate::protocol::{SnapshotBegin, SnapshotEnd, SnapshotReceiver, SnapshotSender};
use crate::table::{Delta, RoutingTable};

/// The format of values; the only one so far.
const FORMAT: u32 = 1;

/// Deltas of at most about this many bytes are in the commit, larger ones in a blob. A
/// hundred commits are read at a time.
const INLINE_BYTES: usize = 32 << 10;

/// The compression level: zstd's default.
const LEVEL: i32 = 3;

/// The value of a commit.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CommitValue {
    format: u32,
    pub record: Record,
    pub content: Content,
}

/// The content of a generation.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Content {
    Delta(Delta),
    /// A delta from the parent.
    DeltaBlob(BlobName),
    /// A whole table, for a generation without a delta.
    TableBlob(BlobName),
}

/// The value of a base.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BaseValue {
    format: u32,
    pub record: Record,
    pub table: BlobName,
}

/// The name of a blob, and its size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlobName {
    pub id: String,
    pub pieces: u32,
    /// The bytes of all pieces together.
    pub bytes: u64,
}

impl Content {
    pub fn blob(&self) -> Option<&BlobName> {
        match self {
            Self::Delta(_) => None,
            Self::DeltaBlob(blob) | Self::TableBlob(blob) => Some(blob),
        }
    }
}

impl CommitValue {
    pub fn new(record: Record, content: Content) -> Self {
        Self {
            format: FORMAT,
            record,
            content,
        }
    }
}

impl BaseValue {
    pub fn new(record: Record, table: BlobName) -> Self {
        Self {
            format: FORMAT,
            record,
            table,
        }
    }
}

/// Parses the value of `key`.
///
/// # Errors
/// It is not JSON of the expected form, or of another format.
pub(super) fn read<'a, T: Deserialize<'a>>(key: &[u8], value: &'a [u8]) -> Result<T, StoreError> {
    let refused = |why: String| {
        let key = String::from_utf8_lossy(key);
        StoreError(format!("etcd: the value of {:?} {why}", &*key))
    };
    // The format first: another one may have other fields.
    #[derive(Deserialize)]
    struct Format {
        #[serde(default)]
        format: Option<u32>,
    }
    let format: Format = serde_json::from_slice(value)
        .map_err(|error| refused(format!("is not one of cellgate's: {error}")))?;
    if let Some(format) = format.format
        && format != FORMAT
    {
        return Err(refused(format!(
            "has the format {format} (known: {FORMAT})"
        )));
    }
    serde_json::from_slice(value).map_err(|error| refused(format!("cannot be read: {error}")))
}

/// Formats a value as JSON.
pub(super) fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError(format!("cannot write JSON: {error}")))
}

/// Whether a delta is small enough for a value.
pub(super) fn is_small(delta: &Delta) -> bool {
    json_bytes(delta) <= INLINE_BYTES
}

/// Writes a delta as one zstd frame of JSON.
///
/// # Errors
/// Those of `out`, or out of memory.
pub(super) fn write_delta(delta: &Delta, out: &mut dyn Write) -> io::Result<()> {
    let mut zstd = zstd::Encoder::new(out, LEVEL)?;
    let mut json = serde_json::Serializer::new(&mut zstd);
    delta.serialize(&mut json)?;
    zstd.finish()?.flush()
}

/// Reads what [`write_delta`] wrote.
///
/// # Errors
/// It is not valid.
pub(super) fn read_delta(from: &mut dyn Read) -> Result<Delta, String> {
    let zstd = zstd::Decoder::new(from).map_err(|error| error.to_string())?;
    let mut json = serde_json::Deserializer::from_reader(io::BufReader::new(zstd));
    let delta = Delta::deserialize(&mut json).map_err(|error| error.to_string())?;
    json.end().map_err(|error| error.to_string())?;
    Ok(delta)
}

/// Writes a table as the messages of a snapshot for edges: begin, chunks, an empty message,
/// and end, each after its length in four bytes, big-endian.
///
/// # Errors
/// Those of `out`, or a key that is too long for a snapshot.
pub(super) fn write_table(
    table: &RoutingTable,
    generation: u64,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut snapshot = SnapshotSender::new(table, 1, generation).map_err(io::Error::other)?;
    put(&serde_json::to_vec(&snapshot.begin())?, out)?;
    for frame in &mut snapshot {
        put(&frame.map_err(io::Error::other)?, out)?;
    }
    put(&[], out)?;
    put(&serde_json::to_vec(&snapshot.end())?, out)
}

fn put(part: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let length = u32::try_from(part.len()).map_err(io::Error::other)?;
    out.write_all(&length.to_be_bytes())?;
    out.write_all(part)
}

/// Reads what [`write_table`] wrote, and compares the digest.
///
/// # Errors
/// It is not valid.
pub(super) fn read_table(from: &mut dyn Read) -> Result<RoutingTable, String> {
    /// Everything that was stored can be read, of any size.
    const LIMITS: SnapshotLimits = SnapshotLimits {
        keys: u64::MAX,
        bytes: u64::MAX,
    };
    let mut part = Vec::new();
    take(from, &mut part)?;
    let begin: SnapshotBegin = serde_json::from_slice(&part).map_err(|error| error.to_string())?;
    let mut snapshot = SnapshotReceiver::new(begin, LIMITS).map_err(|error| error.to_string())?;
    loop {
        take(from, &mut part)?;
        if part.is_empty() {
            break;
        }
        snapshot.chunk(&part).map_err(|error| error.to_string())?;
    }
    take(from, &mut part)?;
    let end: SnapshotEnd = serde_json::from_slice(&part).map_err(|error| error.to_string())?;
    match from.read(&mut [0]) {
        Ok(0) => snapshot.end(end).map_err(|error| error.to_string()),
        Ok(_) => Err("there is more after its end".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn take(from: &mut dyn Read, part: &mut Vec<u8>) -> Result<(), String> {
    const MOST: usize = if CHUNK_FRAME_BYTES > TO_EDGE_BYTES {
        CHUNK_FRAME_BYTES
    } else {
        TO_EDGE_BYTES
    };
    let mut length = [0; 4];
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => "its end is missing".to_owned(),
        _ => error.to_string(),
    };
    from.read_exact(&mut length).map_err(broken)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MOST {
        return Err(format!("a part of {length} bytes (at most {MOST})"));
    }
    part.clear();
    part.resize(length, 0);
    from.read_exact(part).map_err(broken)
}
