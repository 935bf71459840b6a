//! Builds the trie of all keys of a document at once.
//!
//! Keys are first collected in parts by the first bits of their hash. Then each part is
//! sorted, becomes one slot of the root and is freed before the next one is taken. So the
//! peak of memory is little above the larger of the collected keys and the finished trie,
//! which take about the same.

use std::collections::HashSet;
use std::fmt;
use std::hash::BuildHasher;

use memmap2::MmapMut;

use super::node::{BITS, Entry, MAX, Tree};
use super::{Keys, hash};
use crate::pace;

const PARTS: usize = 1 << BITS;

/// Bytes before each key: its number and its length.
const HEADER: usize = 12;

/// Most keys that are sorted in one step: a fraction of a millisecond.
const SORTED_AT_ONCE: usize = 4096;

/// A part never has this many times its share of the keys: the probability is negligible.
const UNEVEN: usize = 4;

/// Collects keys.
pub(in crate::table) struct Builder<S> {
    parts: Vec<Part>,
    len: usize,
    seed: S,
}

/// Keys whose hashes start with the same bits.
#[derive(Default)]
struct Part {
    keys: usize,
    /// Keys in all chunks.
    bytes: usize,
    /// All but the last are full.
    chunks: Vec<Chunk>,
}

/// A key was given twice.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::table) struct Duplicate;

impl fmt::Display for Duplicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("duplicate routing key")
    }
}

impl<S: BuildHasher + Default> Builder<S> {
    pub fn new() -> Self {
        let mut parts = Vec::new();
        parts.resize_with(PARTS, Part::default);
        Self {
            parts,
            len: 0,
            seed: S::default(),
        }
    }

    /// Adds a key, which must not have been added before.
    pub fn push(&mut self, key: &[u8], id: u32) {
        let part = hash(&self.seed, key) >> (u64::BITS - BITS);
        self.parts[part as usize].push(key, id);
        self.len += 1;
    }

    /// The trie of all keys that were added.
    ///
    /// # Errors
    ///
    /// A key was added twice.
    pub fn finish(self) -> Result<Keys<S>, Duplicate> {
        let Self { parts, len, seed } = self;
        let root = if len <= PARTS * MAX {
            let all = parts.iter().flat_map(|part| part.entries(&seed));
            Tree::build(&sorted(all.collect())?, 0)
        } else {
            let mut slots = Vec::with_capacity(PARTS);
            for part in parts {
                // Copies of a key are all in one part. They are found without sorting
                // them, which takes more memory.
                if part.keys > UNEVEN * (len / PARTS) {
                    part.check_distinct(&seed)?;
                }
                let entries = sorted(part.entries(&seed).collect())?;
                slots.push(Tree::build(&entries, BITS));
            }
            Tree::Node(slots.into())
        };
        Ok(Keys { root, len, seed })
    }
}

fn sorted(mut entries: Vec<Entry<'_>>) -> Result<Vec<Entry<'_>>, Duplicate> {
    sort(&mut entries);
    match entries
        .windows(2)
        .any(|pair| pair[0].hash == pair[1].hash && pair[0].key == pair[1].key)
    {
        true => Err(Duplicate),
        false => Ok(entries),
    }
}

/// Sorts in halves, so that steps are short.
fn sort<'a>(entries: &mut [Entry<'a>]) {
    let order = |entry: &Entry<'a>| (entry.hash, entry.key);
    if entries.len() <= SORTED_AT_ONCE {
        entries.sort_unstable_by_key(order);
        return pace::stride();
    }
    let half = entries.len() / 2;
    entries.select_nth_unstable_by_key(half, order);
    let (lower, upper) = entries.split_at_mut(half);
    sort(lower);
    sort(upper);
}

impl Part {
    fn push(&mut self, key: &[u8], id: u32) {
        self.keys += 1;
        let (id, length) = (id.to_le_bytes(), (key.len() as u64).to_le_bytes());
        let item: [&[u8]; 3] = [&id, &length, key];
        if self.chunks.last_mut().is_none_or(|last| !last.put(item)) {
            let size = HEADER + key.len();
            let mut chunk = Chunk::after(self.bytes, size);
            chunk.put(item);
            self.chunks.push(chunk);
        }
        self.bytes += HEADER + key.len();
    }

    /// Finds duplicates; keeps only the distinct keys.
    fn check_distinct(&self, seed: &impl BuildHasher) -> Result<(), Duplicate> {
        let mut seen = HashSet::new();
        match self.entries(seed).all(|entry| seen.insert(entry.key)) {
            true => Ok(()),
            false => Err(Duplicate),
        }
    }

    fn entries<'a>(&'a self, seed: &'a impl BuildHasher) -> impl Iterator<Item = Entry<'a>> {
        self.chunks.iter().flat_map(move |chunk| {
            let mut rest = chunk.bytes();
            std::iter::from_fn(move || {
                let (id, after) = rest.split_first_chunk()?;
                let (len, after) = after.split_first_chunk()?;
                let (key, after) = after.split_at_checked(u64::from_le_bytes(*len) as usize)?;
                rest = after;
                pace::step();
                Some(Entry {
                    hash: hash(seed, key),
                    id: u32::from_le_bytes(*id),
                    key,
                })
            })
        })
    }
}
/// Bytes of the first chunk of a part, and of the largest one; each is twice as large as
/// the one before.
const FIRST: usize = 256;
const LARGEST: usize = 4 << 20;

/// From this size on, a chunk has pages of its own, which return to the system with it. The
/// allocator would keep the pages until the chunks of other parts next to it are free as
/// well, so that the table would be in memory twice.
const PAGES: usize = 64 << 10;

/// Memory that is filled from the front.
struct Chunk {
    room: Room,
    used: usize,
}

enum Room {
    Heap(Box<[u8]>),
    Pages(MmapMut),
}

impl Chunk {
    /// A chunk that follows one of `before` bytes, with room for at least `size`.
    fn after(before: usize, size: usize) -> Self {
        let size = before.clamp(FIRST, LARGEST).max(size);
        // The heap is the fallback if mapping fails.
        let pages = (size >= PAGES).then(|| MmapMut::map_anon(size).ok());
        let room = match pages.flatten() {
            Some(pages) => Room::Pages(pages),
            None => Room::Heap(vec![0; size].into()),
        };
        Self { room, used: 0 }
    }

    /// Appends `parts`; false if there is no room for all of them.
    fn put<const N: usize>(&mut self, parts: [&[u8]; N]) -> bool {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        let room = match &mut self.room {
            Room::Heap(bytes) => bytes.get_mut(self.used..),
            Room::Pages(bytes) => bytes.get_mut(self.used..),
        };
        let Some(mut room) = room.and_then(|room| room.get_mut(..size)) else {
            return false;
        };
        for part in parts {
            let (here, rest) = room.split_at_mut(part.len());
            here.copy_from_slice(part);
            room = rest;
        }
        self.used += size;
        true
    }

    /// The content.
    fn bytes(&self) -> &[u8] {
        let bytes = match &self.room {
            Room::Heap(bytes) => bytes.get(..self.used),
            Room::Pages(bytes) => bytes.get(..self.used),
        };
        bytes.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_holds_what_fits() {
        for (before, size) in [(0, 10), (PAGES, 1), (0, PAGES), (usize::MAX, 1)] {
            let mut chunk = Chunk::after(before, size);
            let room = before.clamp(FIRST, LARGEST).max(size);
            assert_eq!(matches!(chunk.room, Room::Pages(_)), room >= PAGES);
            let half = vec![1; room / 2];
            assert!(chunk.put([&half, b"ab"]));
            let rest = vec![2; room - chunk.used];
            assert!(!chunk.put([&rest, b"c"]));
            assert!(chunk.put([&rest]));
            assert_eq!(chunk.bytes(), [&half[..], b"ab", &rest].concat());
            assert!(chunk.put([]) && !chunk.put([b"d"]));
        }
    }
}
