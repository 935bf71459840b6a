//! Combines the deltas that an edge missed into few messages.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::bounds::sendable;
use super::json::string_bytes;
use super::limits::{DELTA_KEYS, TO_EDGE_BYTES};
use super::message::DeltaMessage;
use super::order::Mark;
use crate::table::Delta;

/// A change from one generation to the next.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The generation after the change.
    pub to: Mark,
    pub delta: &'a Delta,
}

/// Messages of at most `most` bytes each that lead from generation `from` through the consecutive
/// `steps`. Changes that a later step overrides are omitted, and generations in between are skipped
/// where possible.
///
/// None: a step, or a key in it, is too large for a message, so that a snapshot is needed.
pub fn batch<'a>(
    from: u64,
    steps: impl IntoIterator<Item = Step<'a>>,
    most: usize,
) -> Option<Vec<DeltaMessage>> {
    let most = most.min(TO_EDGE_BYTES);
    let mut messages = Vec::new();
    let mut folded = Fold::default();
    let mut from = from;
    let mut last: Option<Mark> = None;
    for Step { to, delta } in steps {
        let (bytes, keys) = (bytes(delta), keys(delta));
        let fits = |folded: &Fold<'_>| {
            FRAME + folded.bytes + bytes <= most && folded.keys.len() + keys <= DELTA_KEYS
        };
        if !fits(&folded)
            && let Some(mark) = last.take()
        {
            let done = std::mem::take(&mut folded).finish();
            messages.push(DeltaMessage::new(from, mark, done));
            from = mark.generation;
        }
        if !fits(&folded) || !all_sendable(delta) {
            return None;
        }
        folded.push(delta);
        last = Some(to);
    }
    if let Some(mark) = last {
        messages.push(DeltaMessage::new(from, mark, folded.finish()));
    }
    Some(messages)
}

/// Combines consecutive deltas into one. Keys are in no particular order.
pub fn fold<'a>(deltas: impl IntoIterator<Item = &'a Delta>) -> Delta {
    let mut folded = Fold::default();
    for delta in deltas {
        folded.push(delta);
    }
    folded.finish()
}

/// Upper bound of the size of a message without `set`, `remove` and `head`, in bytes.
const FRAME: usize = 192;

/// A combination of consecutive deltas.
#[derive(Default)]
struct Fold<'a> {
    head: Option<&'a str>,
    /// The placement of each changed key; none: the key is removed.
    keys: HashMap<&'a str, Option<&'a str>>,
    /// The size as JSON, in bytes.
    bytes: usize,
}

impl<'a> Fold<'a> {
    fn push(&mut self, delta: &'a Delta) {
        if let Some(head) = &delta.head {
            self.bytes -= self.head.map_or(0, string_bytes);
            self.bytes += string_bytes(head);
            self.head = Some(head);
        }
        for key in &delta.remove {
            self.put(key, None);
        }
        for (key, placement) in &delta.set {
            self.put(key, Some(placement));
        }
    }

    fn put(&mut self, key: &'a str, home: Option<&'a str>) {
        self.bytes += entry_bytes(key, home);
        match self.keys.entry(key) {
            Entry::Occupied(mut seen) => {
                self.bytes -= entry_bytes(key, seen.insert(home));
            }
            Entry::Vacant(new) => drop(new.insert(home)),
        }
    }

    fn finish(self) -> Delta {
        let mut delta = Delta {
            head: self.head.map(str::to_owned),
            ..Delta::default()
        };
        for (key, home) in self.keys {
            match home {
                Some(placement) => delta.set.push((key.to_owned(), placement.to_owned())),
                None => delta.remove.push(key.to_owned()),
            }
        }
        delta
    }
}

/// The size of an entry as JSON, with its colon and comma.
fn entry_bytes(key: &str, home: Option<&str>) -> usize {
    string_bytes(key) + 1 + home.map_or(0, |placement| string_bytes(placement) + 1)
}

fn bytes(delta: &Delta) -> usize {
    let head = delta.head.as_deref().map_or(0, string_bytes);
    let set = delta
        .set
        .iter()
        .map(|(key, home)| entry_bytes(key, Some(home)));
    let remove = delta.remove.iter().map(|key| entry_bytes(key, None));
    head + set.chain(remove).sum::<usize>()
}

fn keys(delta: &Delta) -> usize {
    delta.set.len() + delta.remove.len()
}

fn all_sendable(delta: &Delta) -> bool {
    let mut keys = delta.set.iter().map(|(key, _)| key).chain(&delta.remove);
    keys.all(|key| sendable(key).is_ok())
}
