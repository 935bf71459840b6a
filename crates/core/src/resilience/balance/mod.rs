//! Choosing one of a placement's endpoints for a request.
//!
//! A [`Balancer`] is built from the weights of the members and does not change. What
//! changes is passed with each choice: which members are usable, their load, a turn or
//! random bits. All three ways return a usable member if there is one, and do not allocate.

mod rank;
mod shares;

pub use rank::member_id;

use shares::Shares;

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

    /// The member for `key`: weighted rendezvous hashing, also called highest
    /// random weight. Every key ranks the members in an order of its own and goes
    /// to its first usable one. So a member that leaves moves only its own keys,
    /// to all others by weight; one that comes takes only those that it keeps;
    /// and nothing depends on the order of the members. What the rank is
    /// computed from does not change: edges of all versions agree.
    ///
    /// Costs O(members).
    pub fn hash(&self, key: &[u8], usable: impl Fn(usize) -> bool) -> Option<usize> {
        let rank = self.ranking(key);
        let mut best = None;
        for (index, member) in self.members.iter().enumerate() {
            // The id decides between equal ranks, so that the order does not.
            let place = (rank(member), member.id);
            if best.is_none_or(|(first, _)| place < first) && usable(index) {
                best = Some((place, index));
            }
        }
        best.map(|(_, index)| index)
    }

    /// How `key` ranks a member: the lowest comes first.
    fn ranking(&self, key: &[u8]) -> impl Fn(&Member) -> u64 {
        let key = rank::key_hash(key);
        let equal = self.shares.are_equal();
        move |member| {
            let hash = rank::pair_hash(key, member.id);
            if equal {
                // The order of the weighted rank, without the logarithm.
                !hash
            } else {
                rank::weighted(hash, member.weight)
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
        // Each usable member takes the place of those before it as often as its
        // share of the weight so far, which makes all as likely as they should be.
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

    /// A number in 0..`bound`. Not all are exactly as likely as the others; the
    /// difference is under `bound` in 2^64.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}
