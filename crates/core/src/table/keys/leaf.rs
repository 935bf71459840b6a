//! Leaves: about a dozen keys in one allocation.
//!
//! ```text
//! count   u32       how many keys
//! widths  u8 x 4    bytes of one length, bytes of one id, two unused
//! prints  u8 x n    the last byte of each key's hash, and zeros up to a multiple of 8
//! lengths n numbers how long each key is, and zeros as above
//! ids     n numbers
//! keys              one after the other
//! ```
//!
//! Numbers are little-endian and as wide as the largest one in the leaf needs. A lookup
//! scans the prints and so compares hardly any key but the one it looks for. Lengths are
//! stored, not offsets: adding up a few of them costs less than a second cache miss.

use std::iter;
use std::sync::Arc;

use crate::pace;

const HEADER: usize = 8;

#[derive(Clone)]
pub(super) struct Leaf(Arc<[u8]>);

/// A key with its number.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    /// The last byte of its hash.
    pub print: u8,
    pub id: u32,
    pub key: &'a [u8],
}

/// The parts of a leaf.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    count: usize,
    prints: &'a [u8],
    lengths: Column<'a>,
    ids: Column<'a>,
    keys: &'a [u8],
}

impl Drop for Leaf {
    fn drop(&mut self) {
        // Freeing a table is dropping its leaves, one after the other.
        pace::step();
    }
}

impl Leaf {
    /// Packs `items`, whose keys must differ.
    pub fn pack<'a>(items: impl Iterator<Item = Item<'a>> + Clone) -> Self {
        let (mut count, mut longest, mut id, mut total) = (0, 0, 0, 0);
        for item in items.clone() {
            count += 1;
            longest = longest.max(item.key.len());
            id = id.max(item.id);
            total += item.key.len();
        }
        let lengths = width(longest as u64);
        let ids = width(u64::from(id));
        let mut bytes =
            Vec::with_capacity(HEADER + padded(count) * (1 + lengths) + count * ids + total);
        // Large only if all their hashes are the same.
        bytes.extend((count as u32).to_le_bytes());
        bytes.extend([lengths as u8, ids as u8, 0, 0]);
        bytes.extend(items.clone().map(|item| item.print));
        bytes.resize(HEADER + padded(count), 0);
        for item in items.clone() {
            put(&mut bytes, item.key.len() as u64, lengths);
        }
        bytes.resize(HEADER + padded(count) * (1 + lengths), 0);
        for item in items.clone() {
            put(&mut bytes, u64::from(item.id), ids);
        }
        for item in items {
            bytes.extend(item.key);
        }
        pace::step();
        Self(bytes.into())
    }

    /// Whether both are the same allocation.
    pub fn same(&self, other: &Leaf) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// How many keys it has.
    pub fn len(&self) -> usize {
        number(&self.0[..4]) as usize
    }

    pub fn view(&self) -> View<'_> {
        let (header, rest) = self.0.split_at(HEADER);
        let count = number(&header[..4]) as usize;
        let (lengths, ids) = (usize::from(header[4]), usize::from(header[5]));
        let (prints, rest) = rest.split_at(padded(count));
        let (lengths, rest) = Column::split(rest, lengths, padded(count));
        let (ids, keys) = Column::split(rest, ids, count);
        View {
            count,
            prints,
            lengths,
            ids,
            keys,
        }
    }

    /// This leaf with `new`, which replaces an item with the same key.
    pub fn with(&self, new: Item<'_>) -> Self {
        let view = self.view();
        match view.find(new.print, new.key) {
            Some(_) => Self::pack(view.items().map(|item| match item.key == new.key {
                true => new,
                false => item,
            })),
            None => Self::pack(view.items().chain(iter::once(new))),
        }
    }

    /// This leaf without `key`.
    pub fn without(&self, key: &[u8]) -> Self {
        Self::pack(self.view().items().filter(|item| item.key != key))
    }

    /// The keys of both leaves, which must differ.
    pub fn merged(&self, other: &Leaf) -> Self {
        Self::pack(self.view().items().chain(other.view().items()))
    }
}

impl<'a> View<'a> {
    /// The number of `key`, if the leaf has it.
    pub fn get(&self, print: u8, key: &[u8]) -> Option<u32> {
        let index = self.find(print, key)?;
        Some(self.ids.get(index) as u32)
    }

    fn find(&self, print: u8, key: &[u8]) -> Option<usize> {
        let (eights, _) = self.prints.as_chunks();
        for (at, eight) in eights.iter().enumerate() {
            let mut candidates = equal_bytes(*eight, print);
            while candidates != 0 {
                let index = 8 * at + candidates.trailing_zeros() as usize / 8;
                if index < self.count && self.key(index) == key {
                    return Some(index);
                }
                candidates &= candidates - 1;
            }
        }
        None
    }

    fn key(&self, index: usize) -> &'a [u8] {
        let start = self.lengths.sum(index);
        &self.keys[start..start + self.lengths.get(index) as usize]
    }

    pub fn items(self) -> impl Iterator<Item = Item<'a>> + Clone {
        let mut keys = self.keys;
        (0..self.count).map(move |index| {
            let (key, rest) = keys.split_at(self.lengths.get(index) as usize);
            keys = rest;
            Item {
                print: self.prints[index],
                id: self.ids.get(index) as u32,
                key,
            }
        })
    }
}

/// Numbers of the same width.
#[derive(Clone, Copy)]
struct Column<'a> {
    bytes: &'a [u8],
    width: usize,
}

impl<'a> Column<'a> {
    fn split(bytes: &'a [u8], width: usize, count: usize) -> (Self, &'a [u8]) {
        let (bytes, rest) = bytes.split_at(width * count);
        (Self { bytes, width }, rest)
    }

    fn get(&self, index: usize) -> u64 {
        match self.width {
            1 => u64::from(self.bytes[index]),
            width => number(&self.bytes[width * index..][..width]),
        }
    }

    /// The sum of the first `count` numbers.
    fn sum(&self, count: usize) -> usize {
        if self.width > 1 {
            return (0..count).map(|index| self.get(index) as usize).sum();
        }
        let (eights, _) = self.bytes.as_chunks();
        let whole = eights[..count / 8].iter().copied().map(u64::from_le_bytes);
        let last = eights.get(count / 8).map_or(0, |last| {
            u64::from_le_bytes(*last) & !(u64::MAX << (8 * (count % 8)))
        });
        whole.map(sum_of_bytes).sum::<usize>() + sum_of_bytes(last)
    }
}

/// Sets the highest bit of each byte that equals `wanted`. Bytes above a match may be set
/// wrongly.
fn equal_bytes(bytes: [u8; 8], wanted: u8) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let zeros = u64::from_le_bytes(bytes) ^ (ONES * u64::from(wanted));
    zeros.wrapping_sub(ONES) & !zeros & (ONES << 7)
}

/// Adds neighbours first, then all pairs; the sum is in the upper bits.
fn sum_of_bytes(all: u64) -> usize {
    const LOW: u64 = 0x00ff_00ff_00ff_00ff;
    let pairs = (all & LOW) + ((all >> 8) & LOW);
    (pairs.wrapping_mul(0x0001_0001_0001_0001) >> 48) as usize
}

/// The bytes that `count` prints or lengths take: they are read eight at a time.
fn padded(count: usize) -> usize {
    count.next_multiple_of(8)
}

fn number(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    number[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(number)
}

fn put(bytes: &mut Vec<u8>, number: u64, width: usize) {
    bytes.extend(&number.to_le_bytes()[..width]);
}

/// The bytes that `largest` takes.
fn width(largest: u64) -> usize {
    match largest {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}
