//! A whole document as the body of an answer, made while it is being sent.
//!
//! What is held for it is a sorted list of its keys: about their text once more
//! and 16 bytes each, however slowly it is read.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use http_body::{Body, Frame};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use crate::routing::RoutingTable;

/// How much is made at a time, in bytes, or a little more.
const PIECE: usize = 64 * 1024;

/// How many tables are sorted at a time, each of which takes a processor for up to a
/// second.
pub(super) const AT_ONCE: usize = 2;

pub(super) static SORTING: Semaphore = Semaphore::const_new(AT_ONCE);

/// What everything but the keys is written in the order of.
const FIRST: [&str; 5] = [
    "version",
    "defaultPlacement",
    "defaults",
    "placements",
    "cellEndpoints",
];

/// The document of a table. One table always has the same: for people, in lines,
/// the keys last and in the order of their bytes.
pub(super) struct Document(State);

enum State {
    /// Nothing is done until someone wants the first piece.
    Sorting(Pin<Box<dyn Future<Output = io::Result<Sorted>> + Send>>),
    Writing(Sorted),
    Done,
}

impl Document {
    pub fn of(table: Arc<RoutingTable>) -> Self {
        Self(State::Sorting(Box::pin(async move {
            let _turn = SORTING.acquire().await;
            let sorted = tokio::task::spawn_blocking(move || Sorted::of(&table));
            sorted.await.map_err(io::Error::other)?
        })))
    }
}

impl Body for Document {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let State::Sorting(sorting) = &mut self.0 {
            match ready!(sorting.as_mut().poll(context)) {
                Ok(sorted) => self.0 = State::Writing(sorted),
                Err(error) => {
                    self.0 = State::Done;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        let State::Writing(sorted) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let piece = sorted.piece();
        if sorted.is_done() {
            self.0 = State::Done;
        }
        Poll::Ready(Some(piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, State::Done)
    }
}

/// A table in the order of its document.
struct Sorted {
    /// What is in front of the keys.
    head: Vec<u8>,
    /// All keys, one after the other.
    text: String,
    keys: Vec<Key>,
    /// The names of placements as JSON.
    placements: Vec<String>,
    /// How many keys are written.
    at: usize,
    done: bool,
}

struct Key {
    start: usize,
    bytes: u32,
    placement: u32,
}

impl Sorted {
    fn of(table: &RoutingTable) -> io::Result<Self> {
        let mut text = String::with_capacity(table.keys().map(|(key, _)| key.len()).sum());
        let mut keys = Vec::with_capacity(table.key_count());
        for (key, placement) in table.keys() {
            keys.push(Key {
                start: text.len(),
                // No table has a key that is not.
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

    fn is_done(&self) -> bool {
        self.done
    }

    /// What comes next.
    fn piece(&mut self) -> io::Result<Bytes> {
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
                return Ok(out.into());
            }
        }
        self.done = true;
        let end: &[u8] = match self.keys.is_empty() {
            true => b"}\n}\n",
            false => b"\n  }\n}\n",
        };
        out.write_all(end)?;
        Ok(out.into())
    }
}

impl Key {
    fn text<'t>(&self, text: &'t str) -> &'t str {
        text.get(self.start..self.start + self.bytes as usize)
            .unwrap_or_default()
    }
}

/// All that comes before the keys: up to the brace that opens them.
fn head(table: &RoutingTable) -> io::Result<Vec<u8>> {
    let mut fields: Map<String, Value> = serde_json::from_str(table.head_json())?;
    let mut out = b"{\n".to_vec();
    let first = FIRST.iter().filter_map(|name| fields.remove_entry(*name));
    let first: Vec<_> = first.collect();
    for (name, value) in first.into_iter().chain(fields) {
        // No string in JSON has a line break in it as such.
        let value = serde_json::to_string_pretty(&value)?.replace('\n', "\n  ");
        writeln!(out, "  \"{name}\": {value},")?;
    }
    out.write_all(b"  \"routingTable\": {")?;
    Ok(out)
}
