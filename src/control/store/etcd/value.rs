//! What the values in etcd are: JSON, for whoever looks into it with `etcdctl`, with
//! large contents in [blobs](super::blob).

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::control::store::{Record, StoreError, json_bytes};
use crate::protocol::limits::{CHUNK_FRAME_BYTES, SnapshotLimits, TO_EDGE_BYTES};
use crate::protocol::{SnapshotBegin, SnapshotEnd, SnapshotReceiver, SnapshotSender};
use crate::table::{Delta, RoutingTable};

/// The only format there is.
const FORMAT: u32 = 1;

/// Deltas of about this many bytes are in the commit; larger ones in a blob. A
/// hundred commits are read at once.
const INLINE_BYTES: usize = 32 << 10;

/// zstd's default.
const LEVEL: i32 = 3;

/// The value of a commit.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CommitValue {
    format: u32,
    pub record: Record,
    pub content: Content,
}

/// What makes a generation of its parent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Content {
    Delta(Delta),
    /// A delta of the parent.
    DeltaBlob(BlobName),
    /// A table that was made of nothing.
    TableBlob(BlobName),
}

/// The value of a base.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BaseValue {
    format: u32,
    pub record: Record,
    pub table: BlobName,
}

/// A blob, and how much there is of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlobName {
    pub id: String,
    pub pieces: u32,
    /// Of all pieces together.
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

/// The value of `key` as what it is.
///
/// # Errors
/// It is not that.
pub(super) fn read<'a, T: Deserialize<'a>>(key: &[u8], value: &'a [u8]) -> Result<T, StoreError> {
    let refused = |why: String| {
        let key = String::from_utf8_lossy(key);
        StoreError(format!("etcd: the value of {:?} {why}", &*key))
    };
    // First, because a later format may have other fields.
    #[derive(Deserialize)]
    struct Format {
        #[serde(default)]
        format: Option<u32>,
    }
    let format: Format = serde_json::from_slice(value)
        .map_err(|error| refused(format!("is none of cellgate's: {error}")))?;
    if let Some(format) = format.format
        && format != FORMAT
    {
        return Err(refused(format!(
            "has the format {format} (known: {FORMAT})"
        )));
    }
    serde_json::from_slice(value).map_err(|error| refused(format!("cannot be read: {error}")))
}

/// Of values that are always JSON.
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
/// It did not.
pub(super) fn read_delta(from: &mut dyn Read) -> Result<Delta, String> {
    let zstd = zstd::Decoder::new(from).map_err(|error| error.to_string())?;
    let mut json = serde_json::Deserializer::from_reader(io::BufReader::new(zstd));
    let delta = Delta::deserialize(&mut json).map_err(|error| error.to_string())?;
    json.end().map_err(|error| error.to_string())?;
    Ok(delta)
}

/// Writes a table as a snapshot for edges: its beginning, its chunks, nothing, and
/// its end, each after its length in four bytes, the highest first.
///
/// # Errors
/// Those of `out`, or a key that no snapshot can have.
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

/// Reads what [`write_table`] wrote. The digest is that which was written.
///
/// # Errors
/// It did not.
pub(super) fn read_table(from: &mut dyn Read) -> Result<RoutingTable, String> {
    /// What was stored once is read again, however large it is.
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
