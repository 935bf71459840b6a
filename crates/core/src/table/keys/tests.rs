//! The trie against a plain map, with hashes good and bad.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, Hasher};

use proptest::prelude::*;
use proptest::sample::select;

use super::build::Duplicate;
use super::node::{BITS, MAX};
use super::*;

/// A hash of which only the bits of `MASK` say anything, so that keys collide
/// and the trie grows deep.
#[derive(Clone, Copy, Default)]
struct Weak<const MASK: u64>;

struct WeakHasher(u64, u64);

impl<const MASK: u64> BuildHasher for Weak<MASK> {
    type Hasher = WeakHasher;

    fn build_hasher(&self) -> WeakHasher {
        WeakHasher(0xcbf2_9ce4_8422_2325, MASK)
    }
}

impl Hasher for WeakHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        // FNV leaves the first bits of short keys alike.
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) & self.1
    }
}

/// Checks that a tree is as `node` says it is; returns how many keys it has.
fn check<S: BuildHasher>(keys: &Keys<S>) {
    let total = check_tree(&keys.root, 0, 0, &keys.seed);
    assert_eq!(total, keys.len());
    assert_eq!(keys.iter().count(), keys.len());
}

fn check_tree(tree: &Tree, prefix: u64, depth: u32, seed: &impl BuildHasher) -> usize {
    let starts_with = |key: &[u8], prefix: u64, bits: u32| {
        let mask = u64::MAX.checked_shl(64 - bits).unwrap_or(0);
        hash(seed, key) & mask == prefix & mask
    };
    match tree {
        Tree::Leaf(leaf) => {
            assert!(
                leaf.len() <= MAX || depth >= 64,
                "{} keys at {depth}",
                leaf.len()
            );
            assert!(
                leaf.view()
                    .items()
                    .all(|item| starts_with(item.key, prefix, depth))
            );
            assert!(
                leaf.view()
                    .items()
                    .all(|item| item.print == hash(seed, item.key) as u8)
            );
            leaf.len()
        }
        Tree::Node(slots) => {
            let bits = slots.len().trailing_zeros();
            assert!(slots.len().is_power_of_two() && (1..=BITS).contains(&bits));
            let (mut total, mut index) = (0, 0);
            while index < slots.len() {
                let same = slots[index..]
                    .iter()
                    .take_while(|slot| slot.same_leaf(&slots[index]))
                    .count()
                    .max(1);
                assert!(same.is_power_of_two() && index % same == 0 && same < slots.len());
                let below = depth + bits - same.trailing_zeros();
                let prefix = prefix | (index as u64) << (64 - depth - bits);
                if matches!(slots[index], Tree::Node(_)) {
                    assert_eq!(bits, BITS.min(64 - depth), "a node below a narrow node");
                }
                total += check_tree(&slots[index], prefix, below, seed);
                index += same;
            }
            total
        }
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Set(Vec<u8>, u32),
    Remove(Vec<u8>),
    /// Many keys at once, so that leaves split.
    Fill(u16),
    /// And few of them left, so that leaves merge.
    Empty(u16),
    /// Keep what there is, to look at it when everything is over.
    Snapshot,
    /// Forget the oldest snapshot.
    Forget,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(select(b"ab".to_vec()), 0..7),
        4 => (0..2000u32).prop_map(|number| number.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (select(vec![255, 256, 257, 65_535, 65_536]), any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let id = prop_oneof![0..4u32, select(vec![255, 256, 65_535, 65_536, u32::MAX])];
    prop_oneof![
        10 => (key(), id).prop_map(|(key, id)| Operation::Set(key, id)),
        10 => key().prop_map(Operation::Remove),
        1 => (0..150u16).prop_map(Operation::Fill),
        1 => (0..150u16).prop_map(Operation::Empty),
        1 => Just(Operation::Snapshot),
        1 => Just(Operation::Forget),
    ]
}

type Model = HashMap<Vec<u8>, u32>;

fn agrees<S: BuildHasher>(keys: &Keys<S>, model: &Model) {
    check(keys);
    let listed: HashMap<_, _> = keys.iter().map(|(key, id)| (key.to_vec(), id)).collect();
    assert_eq!(&listed, model);
    for (key, id) in model {
        assert_eq!(keys.get(key), Some(*id));
    }
}

/// What `unshared` says both ways is enough to tell two apart.
fn comparable<S: BuildHasher>(one: (&Keys<S>, &Model), other: (&Keys<S>, &Model)) {
    let mut seen = BTreeMap::new();
    one.0.unshared(other.0, |key, id| {
        assert_eq!(seen.insert(key.to_vec(), id), None, "seen twice");
        assert_eq!(one.1.get(key), Some(&id));
    });
    for (key, id) in one.1 {
        if other.1.get(key) != Some(id) {
            assert!(seen.contains_key(key), "overlooked {key:?}");
        }
    }
}

fn run<S: BuildHasher + Clone + Default>(start: &BTreeSet<Vec<u8>>, operations: &[Operation]) {
    let mut builder = Builder::<S>::new();
    let mut model = Model::new();
    for (key, id) in start.iter().zip(0..) {
        builder.push(key, id);
        model.insert(key.clone(), id);
    }
    let mut keys = builder.finish().unwrap();
    agrees(&keys, &model);
    let mut snapshots = Vec::new();
    for operation in operations {
        match operation {
            Operation::Set(key, id) => {
                assert_eq!(keys.set(key, *id), model.insert(key.clone(), *id));
                assert_eq!(keys.get(key), Some(*id));
            }
            Operation::Remove(key) => {
                assert_eq!(keys.remove(key), model.remove(key));
                assert_eq!(keys.get(key), None);
            }
            Operation::Fill(count) => {
                for number in 0..*count {
                    let key = number.to_string().into_bytes();
                    assert_eq!(keys.set(&key, 7), model.insert(key, 7));
                }
            }
            Operation::Empty(count) => {
                for number in 0..*count {
                    let key = number.to_string().into_bytes();
                    assert_eq!(keys.remove(&key), model.remove(&key));
                }
            }
            Operation::Snapshot => snapshots.push((keys.clone(), model.clone())),
            Operation::Forget if snapshots.is_empty() => {}
            Operation::Forget => drop(snapshots.remove(0)),
        }
        assert_eq!(keys.len(), model.len());
    }
    snapshots.push((keys, model));
    for (keys, model) in &snapshots {
        agrees(keys, model);
        for other in &snapshots {
            comparable((keys, model), (&other.0, &other.1));
        }
    }
    // All of it can go, and leaves one empty leaf.
    let (mut keys, model) = snapshots.pop().unwrap();
    for key in model.keys() {
        assert!(keys.remove(key).is_some());
    }
    check(&keys);
    assert!(matches!(keys.root, Tree::Leaf(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn is_a_map(
        start in prop::collection::btree_set(key(), 0..120),
        operations in prop::collection::vec(operation(), 0..50),
    ) {
        run::<Seed>(&start, &operations);
        // A few bits at either end, in the middle, and none at all.
        run::<Weak<{ u64::MAX }>>(&start, &operations);
        run::<Weak<0b111>>(&start, &operations);
        run::<Weak<{ 0b11111 << 59 }>>(&start, &operations);
        run::<Weak<0x0001_0000_8000_0100>>(&start, &operations);
        run::<Weak<0>>(&start, &operations);
    }

    #[test]
    fn a_key_given_twice_is_found(
        keys in prop::collection::btree_set(key(), 1..120),
        again in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
    ) {
        fn finishes<S: BuildHasher + Default>(keys: &[&Vec<u8>]) -> bool {
            let mut builder = Builder::<S>::new();
            keys.iter().zip(0..).for_each(|(key, id)| builder.push(key, id));
            builder.finish().is_ok()
        }
        let mut keys: Vec<_> = keys.iter().collect();
        prop_assert!(finishes::<Seed>(&keys) && finishes::<Weak<0>>(&keys));
        keys.insert(at.index(keys.len() + 1), keys[again.index(keys.len())]);
        prop_assert!(!finishes::<Seed>(&keys) && !finishes::<Weak<0>>(&keys));
    }
}

fn numbered<S: BuildHasher + Default>(count: u32) -> Keys<S> {
    let mut builder = Builder::<S>::new();
    for number in 0..count {
        builder.push(format!("tenant-{number}").as_bytes(), number % 300);
    }
    builder.finish().unwrap()
}

#[test]
fn many_keys_are_built_part_by_part() {
    fn try_it<S: BuildHasher + Default>() {
        // Around where the parts begin to be built on their own, and well above.
        for count in [64 * MAX as u32, 64 * MAX as u32 + 1, 20_000] {
            let keys = numbered::<S>(count);
            check(&keys);
            assert_eq!(keys.len(), count as usize);
            for number in 0..count {
                let key = format!("tenant-{number}");
                assert_eq!(keys.get(key.as_bytes()), Some(number % 300));
                assert_eq!(keys.get(format!("{key} ").as_bytes()), None);
            }
        }
    }
    try_it::<Seed>();
    try_it::<Weak<{ 0xfff << 30 }>>();
    let mut builder = Builder::<Seed>::new();
    (0..20_000).for_each(|number| builder.push(format!("{}", number % 19_999).as_bytes(), 0));
    assert!(builder.finish().is_err());
}

/// What a change costs is a leaf, whatever the size of the whole.
#[test]
fn a_change_shares_all_but_a_leaf() {
    let keys = numbered::<Seed>(50_000);
    let unshared = |one: &Keys, other: &Keys| {
        let mut count = 0;
        one.unshared(other, |_, _| count += 1);
        count
    };
    for number in [0, 17, 49_999] {
        let key = format!("tenant-{number}");
        let (mut moved, mut gone, mut more) = (keys.clone(), keys.clone(), keys.clone());
        moved.set(key.as_bytes(), 70_000);
        gone.remove(key.as_bytes());
        more.set(format!("{key} ").as_bytes(), 1);
        for changed in [&moved, &gone, &more] {
            check(changed);
            assert!((1..=MAX + 1).contains(&unshared(changed, &keys)));
            assert!((1..=MAX + 1).contains(&unshared(&keys, changed)));
        }
    }
    let mut same = keys.clone();
    assert_eq!(same.set(b"tenant-17", 17), Some(17));
    assert_eq!(same.remove(b"nobody"), None);
    assert_eq!(unshared(&same, &keys), 0);
}

#[test]
fn many_copies_of_a_key_are_refused() {
    for copies in [2, 5_000, 200_000] {
        let mut builder = Builder::<Seed>::new();
        for number in 0..10_000 {
            builder.push(format!("tenant-{number}").as_bytes(), 1);
        }
        for _ in 0..copies {
            builder.push(b"again", 1);
        }
        assert_eq!(builder.finish().err(), Some(Duplicate), "{copies} copies");
    }
}

/// Nearly the same key is another one, though the hash be the same.
#[test]
fn keys_are_compared_whole() {
    let mut keys = Keys::<Weak<0>>::default();
    let long = "k".repeat(65_536);
    for (key, id) in ["", "a", "aa", "ab", "b", &long].into_iter().zip(0..) {
        keys.set(key.as_bytes(), id);
    }
    for (key, id) in [
        ("", Some(0)),
        ("a", Some(1)),
        ("aa", Some(2)),
        ("ab", Some(3)),
        ("b", Some(4)),
        (long.as_str(), Some(5)),
        ("ba", None),
        ("aaa", None),
        ("A", None),
        (&long[1..], None),
    ] {
        assert_eq!(keys.get(key.as_bytes()), id, "{} bytes", key.len());
    }
}
