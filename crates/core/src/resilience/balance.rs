//! Choosing one of a placement's endpoints for a request.
//!
//! A [`Balancer`] is built from the weights of the members and does not change. What
//! changes is passed with each choice: which members are usable, their load, a turn or
//! random bits. All three ways return a usable member if there is one, and do not allocate.

use std::net::SocketAddr;

use xxhash_rust::xxh3::xxh3_64;

/// Largest weight.
const MAX_WEIGHT: u32 = 1000;
/// Draws before all members are searched for a usable one.
const DRAWS: usize = 8;

/// One of the endpoints to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its share of the requests relative to the other members, 1 to 1000; other values are
    /// clamped.
    pub weight: u32,
    /// The same on all edges and at all times for one endpoint, and different for different
    /// ones, such as [`member_id`] of its address.
    pub id: u64,
}

/// Chooses among the members of one placement, up to thousands, by their index.
#[derive(Debug)]
pub struct Balancer {
    members: Box<[Member]>,
    shares: Shares,
}

impl Balancer {
    /// Chooses among `members`, in their order.
    pub fn new(members: &[Member]) -> Self {
        let members: Box<[Member]> = members
            .iter()
            .map(|member| Member {
                weight: member.weight.clamp(1, MAX_WEIGHT),
                ..*member
            })
            .collect();
        let shares = Shares::new(members.iter().map(|member| member.weight));
        Self { members, shares }
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The power of two choices: two different usable members are drawn by weight with the
    /// random bits `draw`; the one with fewer requests in flight (`load`) for its weight is
    /// chosen, or the first one if they are equal, so that idle members get their share.
    ///
    /// Costs O(log members), or O(members) while most are unusable.
    pub fn least_request(
        &self,
        draw: u64,
        usable: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> u64,
    ) -> Option<usize> {
        let mut random = Random(draw);
        let first = self.draw(&mut random, &usable)?;
        let first_load = load(first);
        if first_load == 0 {
            return Some(first);
        }
        let other = self.draw(&mut random, |index| index != first && usable(index));
        let Some(second) = other else {
            return Some(first);
        };
        // load / weight < first_load / first_weight, without dividing.
        let per_weight = |load, other| u128::from(load) * u128::from(self.weight(other));
        let less = per_weight(load(second), first) < per_weight(first_load, second);
        Some(if less { second } else { first })
    }

    /// The member for turn number `turn`, which grows by one for each request and may wrap.
    /// While all are usable, each member gets exactly its share of the turns of a cycle,
    /// spread evenly; a cycle has as many turns as the sum of the weights, divided by their
    /// greatest common divisor. The turns of unusable members go to the others by weight,
    /// at random.
    ///
    /// Costs O(log members), or O(members) while most are unusable.
    pub fn round_robin(&self, turn: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let index = self.shares.of_turn(turn)?;
        if usable(index) {
            return Some(index);
        }
        self.draw(&mut Random(turn), usable)
    }

    /// The member for `key`, by weighted rendezvous hashing (highest random weight): each key
    /// ranks the members in its own order and goes to the first usable one. A member that
    /// leaves moves only its own keys, to all others by weight; a new member takes only the
    /// keys that it keeps. The order of the members does not matter. Edges of all versions
    /// compute the same rank.
    ///
    /// Costs O(members).
    pub fn hash(&self, key: &[u8], usable: impl Fn(usize) -> bool) -> Option<usize> {
        let rank = self.ranking(key);
        let mut best = None;
        for (index, member) in self.members.iter().enumerate() {
            // Equal ranks are decided by the id, not by the order of the members.
            let place = (rank(member), member.id);
            if best.is_none_or(|(first, _)| place < first) && usable(index) {
                best = Some((place, index));
            }
        }
        best.map(|(_, index)| index)
    }

    /// The rank of a member for `key`; the lowest is first.
    fn ranking(&self, key: &[u8]) -> impl Fn(&Member) -> u64 {
        let key = key_hash(key);
        let equal = self.shares.are_equal();
        move |member| {
            let hash = pair_hash(key, member.id);
            if equal {
                // The same order as the weighted rank, without the logarithm.
                !hash
            } else {
                weighted_rank(hash, member.weight)
            }
        }
    }

    /// A random usable member, by weight.
    fn draw(&self, random: &mut Random, usable: impl Fn(usize) -> bool) -> Option<usize> {
        for _ in 0..self.len().min(DRAWS) {
            let index = self.shares.at(random.below(self.shares.total()));
            if usable(index) {
                return Some(index);
            }
        }
        // Reservoir sampling by weight: each usable member replaces the one chosen before it
        // with the probability of its share of the weight so far.
        let mut chosen = None;
        let mut so_far = 0;
        for (index, member) in self.members.iter().enumerate() {
            if usable(index) {
                let weight = u64::from(member.weight);
                so_far += weight;
                if random.below(so_far) < weight {
                    chosen = Some(index);
                }
            }
        }
        chosen
    }

    fn weight(&self, index: usize) -> u32 {
        self.members.get(index).map_or(1, |member| member.weight)
    }
}

/// SplitMix64: any number of random numbers from one seed. Successive seeds are as good as
/// random ones.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in 0..`bound`, uniform up to a bias of `bound` in 2^64.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// The [`Member::id`] of an address: XXH3-64 of its text, such as `192.0.2.1:80` or
/// `[2001:db8::1]:80` (RFC 5952, section 6). IPv4 addresses mapped to IPv6 have the id of the
/// IPv4 address. The zone of a link-local address is left out, as it has a meaning on one
/// machine only.
pub fn member_id(address: SocketAddr) -> u64 {
    let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
    xxh3_64(canonical.to_string().as_bytes())
}

/// The hashes of [`Balancer::hash`] must be the same on all edges, platforms and versions:
/// XXH3-64 with seed 0 (the xxHash specification, version 0.2.0).
fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The hash of a key and a member: of 16 bytes, the key's hash and the member's id, each
/// little-endian.
fn pair_hash(key: u64, id: u64) -> u64 {
    let pair = u128::from(id) << 64 | u128::from(key);
    xxh3_64(&pair.to_le_bytes())
}

/// A number that orders members as `-ln(u) / weight` does, where `u` in 0..1 is made of the
/// upper 52 bits of the hash. `-ln(u) / weight` is exponentially distributed with the rate
/// `weight`, so that a member has the smallest number with the probability of its share of
/// all weights. `libm` computes the same logarithm on all platforms; the standard library does
/// not.
fn weighted_rank(hash: u64, weight: u32) -> u64 {
    // The half excludes 0 and 1.
    let u = ((hash >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
    let score = -libm::log(u) / f64::from(weight);
    // Positive numbers are ordered as their bits.
    score.to_bits()
}

/// The golden ratio's inverse.
const GOLDEN: f64 = 0.618_033_988_749_894_9;
/// The distance from the golden ratio of the line within which a step is searched. Of 65
/// successive numbers, at least one has no common divisor with any total below 10^11.
const SEARCH: u64 = 32;

/// Members' weights as shares of a line: each member has as many points of `0..total` as its
/// weight.
///
/// A random point selects a member by weight. Round robin walks the line in steps whose length
/// has no common divisor with the length of the line: it visits each point once in a cycle, so
/// each member exactly as often as its weight says, without a schedule. The step decides how
/// evenly the turns of a member are spread. The golden ratio of the line is the best one
/// (Knuth, The Art of Computer Programming, volume 3, section 6.4), as its continued fraction
/// has only ones; of the integers close to it, the one with the smallest quotients is taken.
#[derive(Debug)]
struct Shares {
    /// The end of each member's points, ascending. Empty if all weights are equal: then each
    /// member has the point that is its index.
    ends: Box<[u64]>,
    total: u64,
    step: u64,
}

impl Shares {
    /// `weights` are at least 1.
    fn new(weights: impl ExactSizeIterator<Item = u32> + Clone) -> Self {
        let divisor = weights.clone().map(u64::from).fold(0, gcd).max(1);
        let shares = weights.map(|weight| u64::from(weight) / divisor);
        if shares.clone().all(|share| share == 1) {
            return Self {
                ends: Box::default(),
                total: shares.len() as u64,
                step: 1,
            };
        }
        let ends: Box<[u64]> = shares
            .scan(0, |end, share| {
                *end += share;
                Some(*end)
            })
            .collect();
        let total = ends.last().copied().unwrap_or_default();
        Self {
            ends,
            total,
            step: step(total),
        }
    }

    /// The length of the line, and of a cycle of turns; 0 only without members.
    fn total(&self) -> u64 {
        self.total
    }

    /// Whether all members have the same weight.
    fn are_equal(&self) -> bool {
        self.ends.is_empty()
    }

    /// The member that has `point`, which is below the total.
    fn at(&self, point: u64) -> usize {
        if self.are_equal() {
            point as usize
        } else {
            self.ends.partition_point(|end| *end <= point)
        }
    }

    /// The member of a turn. `None` only if there are no members.
    fn of_turn(&self, turn: u64) -> Option<usize> {
        // Both factors are below the total, so that the product fits.
        let distance = turn.checked_rem(self.total)?.wrapping_mul(self.step);
        Some(self.at(distance.checked_rem(self.total)?))
    }
}

/// The distance on the line from one turn to the next.
fn step(total: u64) -> u64 {
    let middle = (total as f64 * GOLDEN) as u64;
    let close = middle.saturating_sub(SEARCH).max(1)..(middle + SEARCH).min(total);
    close
        .filter(|step| gcd(total, *step) == 1)
        .min_by_key(|step| (largest_quotient(total, *step), step.abs_diff(middle)))
        .unwrap_or(1)
}

/// The largest quotient in the continued fraction of `a / b`.
fn largest_quotient(mut a: u64, mut b: u64) -> u64 {
    let mut largest = 0;
    while let Some(quotient) = a.checked_div(b) {
        largest = largest.max(quotient);
        (a, b) = (b, a % b);
    }
    largest
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_ordered_by_hash_and_by_weight() {
        let hashes = [0, 1 << 12, 1 << 52, 1 << 63, u64::MAX - 4096, u64::MAX];
        for pair in hashes.windows(2) {
            assert!(
                weighted_rank(pair[0], 7) > weighted_rank(pair[1], 7),
                "{pair:?}"
            );
            assert!(
                weighted_rank(pair[0], 7) > weighted_rank(pair[0], 8),
                "{pair:?}"
            );
        }
        assert!(f64::from_bits(weighted_rank(0, 1)).is_finite());
        assert!(f64::from_bits(weighted_rank(u64::MAX, 1000)) > 0.0);
    }

    /// The values of other implementations of the specification.
    #[test]
    fn the_hash_is_xxh3() {
        assert_eq!(key_hash(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(key_hash(b"a"), 0xe6c6_32b6_1e96_4e1f);
    }
}
