//! A routing table as a document for people: one key a line, in byte order, after
//! everything else. Tables with the same content give the same bytes.

use std::io::{self, Write};

use serde_json::{Map, Value};

use crate::table::RoutingTable;

/// About how many bytes are formatted at a time.
const PIECE: usize = 64 * 1024;

/// The fields that are written first, in this order.
const FIRST: [&str; 5] = [
    "version",
    "defaultPlacement",
    "defaults",
    "placements",
    "cellEndpoints",
];

/// Writes the document of `table`.
///
/// # Errors
/// Those of `out`.
pub(super) fn write(table: &RoutingTable, out: &mut dyn Write) -> io::Result<()> {
    let mut lines = Lines::of(table)?;
    while !lines.is_done() {
        out.write_all(&lines.piece()?)?;
    }
    Ok(())
}

/// A document that is formatted piece by piece.
///
/// Its memory is a sorted copy of the keys: their text and 16 bytes each.
pub(super) struct Lines {
    /// The text before the keys.
    head: Vec<u8>,
    /// All keys, concatenated.
    text: String,
    keys: Vec<Key>,
    /// The names of placements as JSON.
    placements: Vec<String>,
    /// How many keys have been written.
    at: usize,
    done: bool,
}

struct Key {
    start: usize,
    bytes: u32,
    placement: u32,
}

impl Lines {
    /// Sorts the keys, which takes up to a second for millions of them.
    ///
    /// # Errors
    /// A key is longer than 4 GiB.
    pub fn of(table: &RoutingTable) -> io::Result<Self> {
        let mut text = String::with_capacity(table.keys().map(|(key, _)| key.len()).sum());
        let mut keys = Vec::with_capacity(table.key_count());
        for (key, placement) in table.keys() {
            keys.push(Key {
                start: text.len(),
                bytes: u32::try_from(key.len()).map_err(io::Error::other)?,
                placement: placement.0,
            });
            text.push_str(key);
        }
        keys.sort_unstable_by(|one, other| one.text(&text).cmp(other.text(&text)));
        let placements = table.placements().iter();
        Ok(Self {
            head: head(table)?,
            text,
            keys,
            placements: placements
                .map(|placement| serde_json::to_string(&placement.name))
                .collect::<Result<_, _>>()?,
            at: 0,
            done: false,
        })
    }

    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The next piece.
    ///
    /// # Errors
    /// None for any valid table.
    pub fn piece(&mut self) -> io::Result<Vec<u8>> {
        let mut out = std::mem::take(&mut self.head);
        out.reserve(PIECE + PIECE / 8);
        while let Some(key) = self.keys.get(self.at) {
            out.write_all(if self.at == 0 { b"\n    " } else { b",\n    " })?;
            serde_json::to_writer(&mut out, key.text(&self.text))?;
            let placement = self.placements.get(key.placement as usize);
            out.write_all(b": ")?;
            out.write_all(placement.map_or(b"null".as_slice(), |name| name.as_bytes()))?;
            self.at += 1;
            if out.len() >= PIECE {
                return Ok(out);
            }
        }
        self.done = true;
        let end: &[u8] = match self.keys.is_empty() {
            true => b"}\n}\n",
            false => b"\n  }\n}\n",
        };
        out.write_all(end)?;
        Ok(out)
    }
}

impl Key {
    fn text<'t>(&self, text: &'t str) -> &'t str {
        text.get(self.start..self.start + self.bytes as usize)
            .unwrap_or_default()
    }
}

/// The text before the keys: up to the brace that opens them.
fn head(table: &RoutingTable) -> io::Result<Vec<u8>> {
    let mut fields: Map<String, Value> = serde_json::from_str(table.head_json())?;
    let mut out = b"{\n".to_vec();
    let first = FIRST.iter().filter_map(|name| fields.remove_entry(*name));
    let first: Vec<_> = first.collect();
    for (name, value) in first.into_iter().chain(fields) {
        // A JSON string contains no line breaks: they are escaped.
        let value = serde_json::to_string_pretty(&value)?.replace('\n', "\n  ");
        writeln!(out, "  \"{name}\": {value},")?;
    }
    out.write_all(b"  \"routingTable\": {")?;
    Ok(out)
}
