//! The deltas that an edge missed, as few messages.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::bounds::sendable;
use super::json::string_bytes;
use super::limits::{DELTA_KEYS, TO_EDGE_BYTES};
use super::message::DeltaMessage;
use super::order::Mark;
use crate::table::Delta;

/// A generation that followed another.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// What there is after it.
    pub to: Mark,
    pub delta: &'a Delta,
}

/// Messages of at most `most` bytes each that lead from generation `from` through
/// `steps`, which follow on it and each other. What is changed again later is left
/// out; tables in between that nobody needs are skipped.
///
/// None: some step is too large for a message, or has a key that is, so that it
/// takes a snapshot.
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

/// What all of `deltas` do, one after the other. Keys are in no particular order.
pub fn fold<'a>(deltas: impl IntoIterator<Item = &'a Delta>) -> Delta {
    let mut folded = Fold::default();
    for delta in deltas {
        folded.push(delta);
    }
    folded.finish()
}

/// All of a message but what it sets, removes and has as its head, in bytes, and
/// somewhat more: the longest numbers and all fields.
const FRAME: usize = 192;

/// Several deltas in one.
#[derive(Default)]
struct Fold<'a> {
    head: Option<&'a str>,
    /// Where keys live from now on; none: nowhere.
    keys: HashMap<&'a str, Option<&'a str>>,
    /// What it takes as JSON.
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

/// A key with the colon and the comma around it.
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
