//! The keys of a routing table: a packed map from bytes to small numbers, which successive
//! tables share.
//!
//! It is a persistent hash trie with packed leaves. The first bits of a key's hash lead
//! through nodes of up to 64 slots to a leaf, which holds about a dozen keys in one
//! allocation. Cloning is free. A change copies the leaf and the nodes above it, a few
//! kilobytes however many keys there are, and shares the rest with all clones; a shared
//! part is freed with the last clone that has it. A batch of changes to one value copies no
//! node twice.
//!
//! Keys are always compared as a whole: two keys may have the same hash, and a tenant must
//! not reach another tenant's cell. The hash has a secret seed, so that nobody can choose
//! keys that fall into one leaf.

mod build;
mod leaf;
mod node;

#[cfg(test)]
mod tests;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::ops::ControlFlow;
use std::sync::LazyLock;

use self::leaf::Leaf;
use self::node::Tree;

pub(super) use self::build::Builder;
use crate::pace;

/// An immutable map of keys that is cheap to clone and cheap to change a little.
#[derive(Clone)]
pub(super) struct Keys<S = Seed> {
    root: Tree,
    len: usize,
    seed: S,
}

/// The keyed hash (SipHash) of all tables of a process. With one seed, all tables have the
/// same order, so that comparing two that share nothing reads the memory of both in order.
#[derive(Clone, Copy, Default)]
pub(super) struct Seed;

impl BuildHasher for Seed {
    type Hasher = <RandomState as BuildHasher>::Hasher;

    fn build_hasher(&self) -> Self::Hasher {
        static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        STATE.build_hasher()
    }
}

fn hash(seed: &impl BuildHasher, key: &[u8]) -> u64 {
    let mut hasher = seed.build_hasher();
    hasher.write(key);
    hasher.finish()
}

impl<S: BuildHasher> Keys<S> {
    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The number of `key`, if the map has it. Does not allocate.
    pub fn get(&self, key: &[u8]) -> Option<u32> {
        self.root.get(hash(&self.seed, key), key)
    }

    /// Sets the number of `key` to `id`; returns the old one.
    pub fn set(&mut self, key: &[u8], id: u32) -> Option<u32> {
        let seed = &self.seed;
        let item = node::Entry {
            hash: hash(seed, key),
            id,
            key,
        };
        let old = self.root.get(item.hash, key);
        // What is the same stays shared.
        if old != Some(id) {
            self.root.set(item, 0, &|key: &[u8]| hash(seed, key));
            self.len += usize::from(old.is_none());
        }
        old
    }

    /// Removes `key`; returns its number.
    pub fn remove(&mut self, key: &[u8]) -> Option<u32> {
        let hash = hash(&self.seed, key);
        let old = self.root.get(hash, key)?;
        self.root.remove(hash, key, 0);
        self.len -= 1;
        Some(old)
    }

    /// Every key with its number, in an order that stays the same for this value
    /// and its clones: roughly that of the hashes.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], u32)> {
        self.root
            .leaves()
            .flat_map(|leaf| leaf.view().items())
            .map(|item| {
                pace::step();
                (item.key, item.id)
            })
    }

    /// The keys that may be missing in `other` or have another number there, with their
    /// number here. Parts that both share are skipped; all keys of the other parts are
    /// listed.
    pub fn unshared<'a>(&'a self, other: &Self, visit: impl FnMut(&'a [u8], u32)) {
        self.unshared_within(other, usize::MAX, visit);
    }

    /// As [`unshared`](Self::unshared), but stops after `most` keys. Returns whether
    /// these were all.
    pub fn unshared_within<'a>(
        &'a self,
        other: &Self,
        most: usize,
        mut visit: impl FnMut(&'a [u8], u32),
    ) -> bool {
        let mut left = most;
        let end = node::unshared(&self.root, &other.root, &mut |leaf: &'a Leaf| {
            match left.checked_sub(leaf.len()) {
                Some(rest) => left = rest,
                None => return ControlFlow::Break(()),
            }
            for item in leaf.view().items() {
                visit(item.key, item.id);
                pace::step();
            }
            ControlFlow::Continue(())
        });
        end.is_continue()
    }
}

impl<S: Default> Default for Keys<S> {
    fn default() -> Self {
        Self {
            root: Tree::default(),
            len: 0,
            seed: S::default(),
        }
    }
}
