//! The nodes of the trie.
//!
//! A node has 2 to 64 slots, a power of two; the next bits of the hash select one. A leaf
//! may fill several slots: an aligned run whose length is a power of two, for all hashes
//! that begin with the common bits of its keys. A full leaf is split along the next bit,
//! and the node is doubled if it has no slot for that. Only if it has 64 slots already, a
//! new node replaces the leaf. So a child node has exactly one slot of a node with 64
//! slots, and a node is only as large as its leaves need.

use std::iter;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::leaf::{Item, Leaf};

/// Most keys of a leaf that can be split. Measured with a million keys: 32 would save 3
/// bytes per key and make a lookup that finds its key a quarter slower.
pub(super) const MAX: usize = 16;

/// Two neighbours with at most this many keys together become one leaf. Well below `MAX`,
/// so that a key that is added and removed in turn does not split and merge leaves.
const MERGED: usize = MAX / 2;

/// Most bits of the hash that one node takes.
pub(super) const BITS: u32 = 6;

#[derive(Clone)]
pub(super) enum Tree {
    Leaf(Leaf),
    Node(Arc<[Tree]>),
}

/// A key with its number and its hash.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub hash: u64,
    pub id: u32,
    pub key: &'a [u8],
}

impl Entry<'_> {
    /// Whether the bit at `depth` is set, 0 being the highest.
    fn bit(&self, depth: u32) -> bool {
        (self.hash << depth) >> 63 == 1
    }
}

impl<'a> From<Entry<'a>> for Item<'a> {
    fn from(entry: Entry<'a>) -> Self {
        Self {
            print: print(entry.hash),
            id: entry.id,
            key: entry.key,
        }
    }
}

/// The bits of a hash that leaves store: not those that lead to the leaf.
fn print(hash: u64) -> u8 {
    hash as u8
}

/// How many bits of the hash a node takes.
fn bits(slots: &[Tree]) -> u32 {
    slots.len().trailing_zeros()
}

/// The slot for `hash`, of which `depth` bits are used already.
fn slot(hash: u64, depth: u32, slots: &[Tree]) -> usize {
    ((hash << depth) >> (u64::BITS - bits(slots))) as usize
}

impl Tree {
    pub fn get(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let mut tree = self;
        let mut depth = 0;
        loop {
            match tree {
                Self::Leaf(leaf) => return leaf.view().get(print(hash), key),
                Self::Node(slots) => {
                    tree = &slots[slot(hash, depth, slots)];
                    depth += bits(slots);
                }
            }
        }
    }

    /// Adds an entry, or changes its number. `hash` is the function that hashes keys.
    pub fn set(&mut self, entry: Entry<'_>, depth: u32, hash: &impl Fn(&[u8]) -> u64) {
        match self {
            Self::Leaf(leaf) => {
                *leaf = leaf.with(entry.into());
                if leaf.len() > MAX {
                    let full = leaf.clone();
                    *self = Self::build(&entries(&full, hash), depth);
                }
            }
            Self::Node(slots) => {
                let index = slot(entry.hash, depth, slots);
                let Self::Leaf(leaf) = &slots[index] else {
                    let below = depth + bits(slots);
                    return Arc::make_mut(slots)[index].set(entry, below, hash);
                };
                let leaf = leaf.with(entry.into());
                let (start, len) = run(slots, index);
                if leaf.len() <= MAX {
                    Arc::make_mut(slots)[start..start + len].fill(Self::Leaf(leaf));
                    return;
                }
                let entries = entries(&leaf, hash);
                let known = bits(slots) - len.trailing_zeros();
                let needed = known + levels(&entries, depth + known, room(depth) - known);
                let factor = 1 << needed.saturating_sub(bits(slots));
                if factor > 1 {
                    *slots = widened(slots, factor);
                }
                let run = start * factor..(start + len) * factor;
                fill(&mut Arc::make_mut(slots)[run], &entries, depth + known);
            }
        }
    }

    /// Removes `key`, which must be in the tree.
    pub fn remove(&mut self, hash: u64, key: &[u8], depth: u32) {
        match self {
            Self::Leaf(leaf) => *leaf = leaf.without(key),
            Self::Node(slots) => {
                let index = slot(hash, depth, slots);
                let below = depth + bits(slots);
                let (start, len) = run(slots, index);
                let run = &mut Arc::make_mut(slots)[start..start + len];
                match run {
                    [one] => one.remove(hash, key, below),
                    [first, rest @ ..] => {
                        first.remove(hash, key, below);
                        rest.fill(first.clone());
                    }
                    [] => {}
                }
                self.merge(index);
            }
        }
    }

    /// Merges the leaf at `index` of this node with its neighbours as far as possible.
    fn merge(&mut self, index: usize) {
        let Self::Node(slots) = self else { return };
        loop {
            let (start, len) = run(slots, index);
            let Self::Leaf(leaf) = &slots[start] else {
                return;
            };
            if len == slots.len() {
                *self = Self::Leaf(leaf.clone());
                return;
            }
            let (beside, beside_len) = run(slots, start ^ len);
            match &slots[beside] {
                Self::Leaf(other) if beside_len == len && leaf.len() + other.len() <= MERGED => {
                    let merged = leaf.merged(other);
                    let both = start.min(beside)..start.max(beside) + len;
                    Arc::make_mut(slots)[both].fill(Self::Leaf(merged));
                }
                _ => break,
            }
        }
        while let Some(half) = narrowed(slots) {
            *slots = half;
        }
    }

    /// The tree of `entries`, which are sorted by hash and have the first `depth` bits in
    /// common.
    pub fn build(entries: &[Entry<'_>], depth: u32) -> Self {
        let bits = levels(entries, depth, room(depth));
        if bits == 0 {
            return Self::Leaf(Leaf::pack(entries.iter().map(|entry| (*entry).into())));
        }
        let mut slots = vec![Self::default(); 1 << bits];
        fill(&mut slots, entries, depth);
        Self::Node(slots.into())
    }

    /// Each leaf once.
    pub fn leaves(&self) -> Leaves<'_> {
        Leaves {
            levels: vec![std::slice::from_ref(self).iter()],
            last: None,
        }
    }

    /// Whether both are the same leaf.
    pub fn same_leaf(&self, other: &Tree) -> bool {
        matches!((self, other), (Self::Leaf(one), Self::Leaf(other)) if one.same(other))
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::Leaf(Leaf::pack(iter::empty()))
    }
}

/// The most bits of a node at `depth`.
fn room(depth: u32) -> u32 {
    BITS.min(u64::BITS - depth)
}

/// The run of slots of the leaf at `index`: the first, and their number.
fn run(slots: &[Tree], index: usize) -> (usize, usize) {
    let mut len = 1;
    while len < slots.len() && slots[index].same_leaf(&slots[index ^ len]) {
        len *= 2;
    }
    (index & !(len - 1), len)
}

/// The bits beyond `depth` that are needed until no leaf is too full; at most `most`.
fn levels(entries: &[Entry<'_>], depth: u32, most: u32) -> u32 {
    if entries.len() <= MAX || most == 0 {
        return 0;
    }
    let (left, right) = halves(entries, depth);
    1 + levels(left, depth + 1, most - 1).max(levels(right, depth + 1, most - 1))
}

/// Puts `entries`, which are sorted and have `depth` bits in common, into an aligned run of
/// slots.
fn fill(slots: &mut [Tree], entries: &[Entry<'_>], depth: u32) {
    if let [slot] = slots {
        *slot = Tree::build(entries, depth);
    } else if entries.len() <= MAX {
        slots.fill(Tree::build(entries, depth));
    } else {
        let (left, right) = halves(entries, depth);
        let (lower, upper) = slots.split_at_mut(slots.len() / 2);
        fill(lower, left, depth + 1);
        fill(upper, right, depth + 1);
    }
}

fn halves<'s, 'a>(entries: &'s [Entry<'a>], depth: u32) -> (&'s [Entry<'a>], &'s [Entry<'a>]) {
    entries.split_at(entries.partition_point(|entry| !entry.bit(depth)))
}

/// The entries of a leaf, in order.
fn entries<'a>(leaf: &'a Leaf, hash: &impl Fn(&[u8]) -> u64) -> Vec<Entry<'a>> {
    let mut entries: Vec<_> = leaf
        .view()
        .items()
        .map(|Item { id, key, .. }| Entry {
            hash: hash(key),
            id,
            key,
        })
        .collect();
    entries.sort_unstable_by_key(|entry| entry.hash);
    entries
}

/// Each slot repeated `factor` times.
fn widened(slots: &[Tree], factor: usize) -> Arc<[Tree]> {
    slots
        .iter()
        .flat_map(|slot| iter::repeat_n(slot.clone(), factor))
        .collect()
}

/// Every second slot, if each pair is one leaf.
fn narrowed(slots: &[Tree]) -> Option<Arc<[Tree]>> {
    let pairs = || slots.chunks_exact(2);
    let all = slots.len() > 2 && pairs().all(|pair| pair[0].same_leaf(&pair[1]));
    all.then(|| pairs().map(|pair| pair[0].clone()).collect())
}

/// An iterator over the leaves of a tree.
pub(super) struct Leaves<'a> {
    levels: Vec<std::slice::Iter<'a, Tree>>,
    last: Option<&'a Leaf>,
}

impl<'a> Iterator for Leaves<'a> {
    type Item = &'a Leaf;

    fn next(&mut self) -> Option<&'a Leaf> {
        loop {
            match self.levels.last_mut()?.next() {
                None => drop(self.levels.pop()),
                Some(Tree::Node(slots)) => self.levels.push(slots.iter()),
                Some(Tree::Leaf(leaf)) => {
                    if !self.last.is_some_and(|last| last.same(leaf)) {
                        self.last = Some(leaf);
                        return self.last;
                    }
                }
            }
        }
    }
}

/// Visits the leaves of `mine` that `theirs` does not share, until `visit` breaks. Both
/// begin at the same bits of the hash.
pub(super) fn unshared<'a>(
    mine: &'a Tree,
    theirs: &Tree,
    visit: &mut impl FnMut(&'a Leaf) -> ControlFlow<()>,
) -> ControlFlow<()> {
    match (mine, theirs) {
        (Tree::Leaf(leaf), _) => {
            if !mine.same_leaf(theirs) {
                visit(leaf)?;
            }
        }
        (Tree::Node(slots), Tree::Node(others)) if Arc::ptr_eq(slots, others) => {}
        (Tree::Node(slots), _) => {
            for (index, slot) in slots.iter().enumerate() {
                let again = index > 0 && slot.same_leaf(&slots[index - 1]);
                if !again {
                    unshared(slot, opposite(theirs, index, slots.len()), visit)?;
                }
            }
        }
    }
    ControlFlow::Continue(())
}

/// The part of `theirs` for the slot `index` of a node with `len` slots. A node with fewer
/// than the most slots has leaves only, so that nodes opposite each other have the same
/// depth.
fn opposite(theirs: &Tree, index: usize, len: usize) -> &Tree {
    match theirs {
        Tree::Leaf(_) => theirs,
        Tree::Node(others) => &others[index * others.len() / len],
    }
}
