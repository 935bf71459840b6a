//! A generation as a file. Three lines of JSON, each ended by a line feed:
//!
//! 1. the [`Header`]: the format's number as `cellgate_generation`, and what
//!    there is to know of the generation;
//! 2. the routing document: that of `digest`, not byte for byte what was applied;
//! 3. `{"sha256":"…"}`, of all bytes before this line.
//!
//! The hash comes last so that a table of any size is written in one pass, and
//! so that a file without its end is known for one.

use std::io::{self, Write};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::files::Sha256;
use crate::state::generation::{Generation, Source};
use crate::table::{self, RoutingTable};
use crate::telemetry::time::rfc3339_millis;

/// What is written.
const FORMAT: u32 = 2;

/// What is read as well: format 1 knew of files only.
const OLDEST: u32 = 1;

/// What the first line says.
#[derive(Serialize, Deserialize)]
struct Header {
    cellgate_generation: u32,
    generation: u64,
    version: String,
    source: Source,
    /// Of the document as it was applied; none when it came as something else.
    sha256: Option<String>,
    /// What the control plane calls it, if it came from one that does.
    #[serde(default)]
    control_generation: Option<u64>,
    /// Of the content: the table is compared with it when it is read back.
    digest: String,
    keys: usize,
    applied_at: String,
}

/// The last line.
#[derive(Serialize, Deserialize)]
struct Trailer {
    sha256: String,
}

/// A generation that was read back.
#[derive(Debug)]
pub(crate) struct Stored {
    pub number: u64,
    pub sha256: Option<Sha256>,
    pub source: Source,
    pub control_generation: Option<u64>,
    pub applied_at: SystemTime,
    pub table: RoutingTable,
}

/// Writes `generation` to `out`.
///
/// # Errors
///
/// Those of `out`.
pub(super) fn write(generation: &Generation, out: &mut dyn Write) -> io::Result<()> {
    let table = &generation.table;
    let header = Header {
        cellgate_generation: FORMAT,
        generation: generation.number,
        version: table.version().to_owned(),
        source: generation.source,
        sha256: generation.sha256.map(|sha256| sha256.to_string()),
        control_generation: generation.control_generation,
        digest: table.digest().to_string(),
        keys: table.key_count(),
        applied_at: rfc3339_millis(generation.applied_at),
    };
    let mut out = Hashed {
        out,
        hash: sha2::Sha256::new(),
    };
    serde_json::to_writer(&mut out, &header)?;
    out.write_all(b"\n")?;
    table.write_json(&mut out)?;
    out.write_all(b"\n")?;
    let Hashed { out, hash } = out;
    let trailer = Trailer {
        sha256: Sha256(hash.finalize().into()).to_string(),
    };
    serde_json::to_writer(&mut *out, &trailer)?;
    out.write_all(b"\n")
}

/// Reads back what [`write`] wrote.
///
/// # Errors
///
/// Why that is not what this is, in words for an operator.
pub(super) fn read(bytes: &[u8]) -> Result<Stored, String> {
    let (before, trailer) = last_line(bytes).ok_or("its end is missing")?;
    let trailer: Trailer =
        serde_json::from_slice(trailer).map_err(|_| "its end is missing or damaged")?;
    if Sha256::of(before).to_string() != trailer.sha256 {
        return Err("it is damaged: its hash is not that of its content".to_owned());
    }
    let (document, header) = first_line(before).ok_or("it has no header")?;
    let header = read_header(header)?;
    let table = table::compile(document).map_err(|problems| {
        let first = problems.first().map(ToString::to_string);
        format!("its table is not valid: {}", first.unwrap_or_default())
    })?;
    let digest = table.digest().to_string();
    if digest != header.digest {
        return Err(format!(
            "its table has the digest {digest}, not {}",
            header.digest.escape_debug()
        ));
    }
    let sha256 = header.sha256.as_deref().map(parse_sha256);
    if sha256 == Some(None) {
        return Err("its header has a sha256 that is none".to_owned());
    }
    Ok(Stored {
        number: header.generation,
        sha256: sha256.flatten(),
        source: header.source,
        control_generation: header.control_generation,
        applied_at: humantime::parse_rfc3339(&header.applied_at)
            .map_err(|_| "its header has a time that is none")?,
        table,
    })
}

fn read_header(line: &[u8]) -> Result<Header, String> {
    // First, because a later format may have other fields.
    #[derive(Deserialize)]
    struct Format {
        cellgate_generation: u32,
    }
    let bad = |error| format!("its header cannot be read: {error}");
    let format: Format = serde_json::from_slice(line).map_err(bad)?;
    match format.cellgate_generation {
        OLDEST..=FORMAT => serde_json::from_slice(line).map_err(bad),
        other => Err(format!(
            "it has the format {other} (known: {OLDEST} to {FORMAT})"
        )),
    }
}

/// All but the last line, and that one. Every line has its end.
fn last_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let whole = bytes.strip_suffix(b"\n")?;
    let end = memchr::memrchr(b'\n', whole)?;
    bytes.split_at_checked(end + 1)
}

/// What comes after the first line, and that one.
fn first_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', bytes)?;
    let (line, rest) = bytes.split_at_checked(end)?;
    Some((rest, line))
}

pub(super) fn parse_sha256(text: &str) -> Option<Sha256> {
    let mut bytes = [0; 32];
    let pairs = text.as_bytes().chunks_exact(2);
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let pair = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(Sha256(bytes))
}

/// Hashes what passes.
struct Hashed<'a> {
    out: &'a mut dyn Write,
    hash: sha2::Sha256,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
