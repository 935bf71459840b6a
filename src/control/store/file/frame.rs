//! A generation as bytes: a header of fixed size, the record as JSON, and the body.
//!
//! ```text
//! offset  bytes
//!      0      4  "CGF1"
//!      4      4  what the body is: 0 a whole table, 1 a delta
//!      8      8  bytes of the record
//!     16      8  bytes of the body
//!     24      8  XXH3-64 of the record
//!     32      8  XXH3-64 of the body
//!     40      8  XXH3-64 of the header up to here
//! ```
//!
//! Numbers are little-endian. The body of a whole table is its document as JSON on
//! one line; that of a delta `{"head":…,"set":[[key,placement],…],"remove":[…]}`. The
//! header has a sum of its own so that a damaged record or body does not hide what
//! comes after it.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::control::store::Record;
use crate::table::{self, Delta, RoutingTable};

/// Bytes of a header.
pub(super) const HEADER: usize = 48;

/// What every frame begins with.
pub(super) const MAGIC: [u8; 4] = *b"CGF1";

/// Larger than any record can be: it has a version, a name and a path.
const LONGEST_RECORD: u64 = 16 << 20;

/// What the body of a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Table,
    Delta,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub kind: Kind,
    pub record_bytes: u64,
    pub body_bytes: u64,
    record_sum: u64,
    body_sum: u64,
}

impl Header {
    /// Reads a header. None: this is none, or a damaged one.
    pub fn read(bytes: &[u8; HEADER]) -> Option<Self> {
        let word = |at: usize| -> Option<u64> {
            let bytes = bytes.get(at..at + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        let (summed, _) = bytes.split_at_checked(HEADER - 8)?;
        if !bytes.starts_with(&MAGIC) || xxh3_64(summed) != word(HEADER - 8)? {
            return None;
        }
        let kind = match word(0)? >> 32 {
            0 => Kind::Table,
            1 => Kind::Delta,
            _ => return None,
        };
        let header = Self {
            kind,
            record_bytes: word(8)?,
            body_bytes: word(16)?,
            record_sum: word(24)?,
            body_sum: word(32)?,
        };
        (header.record_bytes <= LONGEST_RECORD).then_some(header)
    }

    fn write(&self) -> [u8; HEADER] {
        let kind: u32 = match self.kind {
            Kind::Table => 0,
            Kind::Delta => 1,
        };
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(MAGIC);
        bytes.extend(kind.to_le_bytes());
        for word in [
            self.record_bytes,
            self.body_bytes,
            self.record_sum,
            self.body_sum,
        ] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        let mut header = [0; HEADER];
        header.copy_from_slice(&bytes);
        header
    }

    /// Bytes of the frame, its header included; none if no file is that large.
    pub fn frame_bytes(&self) -> Option<u64> {
        (HEADER as u64)
            .checked_add(self.record_bytes)?
            .checked_add(self.body_bytes)
    }

    /// The record that `bytes` are; none if they are not what was written.
    pub fn record(&self, bytes: &[u8]) -> Option<Record> {
        if xxh3_64(bytes) != self.record_sum {
            return None;
        }
        serde_json::from_slice(bytes).ok()
    }

    /// Whether `bytes` are the body that was written.
    pub fn has_body(&self, bytes: &[u8]) -> bool {
        xxh3_64(bytes) == self.body_sum
    }
}

/// A delta as its body has it.
#[derive(Serialize, Deserialize)]
struct DeltaBody {
    head: Option<String>,
    set: Vec<(String, String)>,
    remove: Vec<String>,
}

/// The whole frame of a change.
pub(super) fn delta_frame(record: &Record, delta: &Delta) -> Vec<u8> {
    // Texts and numbers can always be written.
    let record = serde_json::to_vec(record).unwrap_or_default();
    let body = serde_json::to_vec(&DeltaBody {
        head: delta.head.clone(),
        set: delta.set.clone(),
        remove: delta.remove.clone(),
    })
    .unwrap_or_default();
    let header = Header {
        kind: Kind::Delta,
        record_bytes: record.len() as u64,
        body_bytes: body.len() as u64,
        record_sum: xxh3_64(&record),
        body_sum: xxh3_64(&body),
    };
    [&header.write()[..], &record, &body].concat()
}

/// The delta that a body is.
///
/// # Errors
/// Why it is none.
pub(super) fn read_delta(body: &[u8]) -> Result<Delta, String> {
    let body: DeltaBody = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok(Delta {
        head: body.head,
        set: body.set,
        remove: body.remove,
    })
}

/// Writes all of a whole table's frame but its header, and gives the header, which
/// belongs in front of it.
///
/// # Errors
/// Those of `out`.
pub(super) fn write_table(
    record: &Record,
    table: &RoutingTable,
    out: &mut dyn Write,
) -> io::Result<[u8; HEADER]> {
    let record = serde_json::to_vec(record)?;
    out.write_all(&record)?;
    let mut body = Summed {
        out,
        sum: Xxh3::new(),
        bytes: 0,
    };
    table.write_json(&mut body)?;
    let header = Header {
        kind: Kind::Table,
        record_bytes: record.len() as u64,
        body_bytes: body.bytes,
        record_sum: xxh3_64(&record),
        body_sum: body.sum.digest(),
    };
    Ok(header.write())
}

/// The table that a body is.
///
/// # Errors
/// Why it is none.
pub(super) fn read_table(body: &[u8]) -> Result<RoutingTable, String> {
    table::compile(body).map_err(|problems| {
        let first = problems.first().map(ToString::to_string);
        format!("its table is not valid: {}", first.unwrap_or_default())
    })
}

/// Sums up what passes.
struct Summed<'a> {
    out: &'a mut dyn Write,
    sum: Xxh3,
    bytes: u64,
}

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sum.update(bytes.get(..written).unwrap_or_default());
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
