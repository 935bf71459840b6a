//! Which member is chosen: always a usable one, and the same on every edge.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::super::{Balancer, Member, member_id};

fn members(weights: &[u32]) -> Vec<Member> {
    let member = |(index, weight): (usize, &u32)| Member {
        weight: *weight,
        id: member_id(SocketAddr::from(([10, 0, 0, index as u8 + 1], 80))),
    };
    weights.iter().enumerate().map(member).collect()
}

/// What all three ways choose.
fn choices(
    balancer: &Balancer,
    draw: u64,
    usable: impl Fn(usize) -> bool,
    load: impl Fn(usize) -> u64,
) -> [Option<usize>; 3] {
    [
        balancer.least_request(draw, &usable, load),
        balancer.round_robin(draw, &usable),
        balancer.hash(&draw.to_le_bytes(), &usable),
    ]
}

#[test]
fn of_none_and_of_one() {
    let none = Balancer::new(&[]);
    assert!(none.is_empty());
    let one = Balancer::new(&members(&[7]));
    assert_eq!((one.len(), one.is_empty()), (1, false));
    for draw in [0, 1, u64::MAX] {
        assert_eq!(choices(&none, draw, |_| true, |_| 0), [None; 3]);
        assert_eq!(choices(&one, draw, |_| true, |_| u64::MAX), [Some(0); 3]);
        assert_eq!(choices(&one, draw, |_| false, |_| 0), [None; 3]);
    }
}

#[test]
fn weights_out_of_range_are_taken_as_the_nearest_in_it() {
    let odd = Balancer::new(&members(&[0, u32::MAX]));
    let even = Balancer::new(&members(&[1, 1000]));
    for draw in 0..3000 {
        assert_eq!(
            choices(&odd, draw, |_| true, |_| 0),
            choices(&even, draw, |_| true, |_| 0)
        );
    }
}

/// Computed from the text with another implementation of XXH3.
#[test]
fn ids_are_the_same_everywhere() {
    for (address, id) in [
        ("127.0.0.1:9001", 0x1e01_ca79_1738_a079),
        ("192.0.2.1:80", 0x393b_a78a_cb80_b196),
        ("[::ffff:192.0.2.1]:80", 0x393b_a78a_cb80_b196),
        ("[2001:db8::1]:443", 0x637b_acf2_32bb_4574),
        ("[2001:db8::1%3]:443", 0x637b_acf2_32bb_4574),
        ("[2001:0db8:0::1]:443", 0x637b_acf2_32bb_4574),
    ] {
        assert_eq!(member_id(address.parse().unwrap()), id, "{address}");
    }
}

/// Computed from the description in `rank.rs` with another implementation of
/// XXH3. A change of these moves the keys of all tenants at the next upgrade.
#[test]
fn keys_are_where_they_have_always_been() {
    let equal = Balancer::new(&members(&[1; 5]));
    let weighted = Balancer::new(&members(&[1, 2, 3, 4, 10]));
    for (key, among_equals, by_weight) in [
        ("visa", 0, 1),
        ("acme", 3, 3),
        ("globex", 1, 4),
        ("initech", 4, 4),
        ("umbrella", 1, 4),
        ("", 4, 4),
        (&"a".repeat(200), 0, 0),
        ("größe", 4, 4),
    ] {
        let key = key.as_bytes();
        assert_eq!(equal.hash(key, |_| true), Some(among_equals));
        assert_eq!(weighted.hash(key, |_| true), Some(by_weight));
    }
}

#[test]
fn the_less_loaded_for_its_weight_of_two_is_chosen() {
    for (weights, loads, expected) in [
        ([1, 1], [5, 4], 1),
        ([1, 1], [4, 5], 0),
        ([1, 10], [1, 9], 1),
        ([1, 10], [1, 11], 0),
        ([1000, 1], [u64::MAX, 1], 1),
        ([3, 1], [2, 1], 0),
        ([1, 1], [0, 1], 0),
    ] {
        let balancer = Balancer::new(&members(&weights));
        for draw in 0..100 {
            let chosen = balancer.least_request(draw, |_| true, |index| loads[index]);
            assert_eq!(chosen, Some(expected), "{weights:?} {loads:?} {draw}");
        }
    }
}

#[test]
fn turns_come_round_in_order_among_equals() {
    let balancer = Balancer::new(&members(&[20; 4]));
    for turn in 0..20 {
        assert_eq!(
            balancer.round_robin(turn, |_| true),
            Some(turn as usize % 4)
        );
    }
}

/// Few weights or all sorts, so that the equal come up often.
fn weights(most: usize) -> impl Strategy<Value = Vec<u32>> {
    prop_oneof![
        (1..=1000_u32, 1..=most).prop_map(|(weight, len)| vec![weight; len]),
        prop::collection::vec(1..4_u32, 1..=most),
        prop::collection::vec(1..=1000_u32, 1..=most),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_usable_one_is_chosen_whenever_there_is_one(
        weights in weights(40),
        usable in prop::collection::vec(prop::bool::weighted(0.1), 40),
        load in prop::collection::vec(0..5_u64, 40),
        draws in prop::collection::vec(any::<u64>(), 20),
    ) {
        let balancer = Balancer::new(&members(&weights));
        let any = usable[..weights.len()].contains(&true);
        for draw in draws {
            for chosen in choices(&balancer, draw, |index| usable[index], |index| load[index]) {
                prop_assert_eq!(chosen.is_some(), any);
                prop_assert!(chosen.is_none_or(|index| usable[index]));
            }
        }
    }

    /// That a member leaves is the same as that it is not usable, and moves none
    /// but its own keys.
    #[test]
    fn a_key_moves_only_when_its_member_leaves(
        weights in weights(12),
        leaving in any::<prop::sample::Index>(),
        keys in prop::collection::vec("[a-z]{0,20}", 20),
    ) {
        let before = members(&weights);
        let leaving = leaving.index(before.len());
        let mut after = before.clone();
        after.remove(leaving);
        let (old, new) = (Balancer::new(&before), Balancer::new(&after));
        for key in &keys {
            let key = key.as_bytes();
            let home = old.hash(key, |_| true).map(|index| before[index]);
            let moved = new.hash(key, |_| true).map(|index| after[index]);
            let skipped = old.hash(key, |index| index != leaving).map(|index| before[index]);
            prop_assert_eq!(moved, skipped);
            if home != Some(before[leaving]) {
                prop_assert_eq!(moved, home);
            }
        }
    }

    #[test]
    fn the_order_of_members_does_not_matter_to_keys(
        (ordered, shuffled) in weights(12).prop_flat_map(|weights| {
            let members = members(&weights);
            (Just(members.clone()), Just(members).prop_shuffle())
        }),
        keys in prop::collection::vec("[a-z]{0,20}", 20),
    ) {
        let (one, other) = (Balancer::new(&ordered), Balancer::new(&shuffled));
        for key in &keys {
            let key = key.as_bytes();
            prop_assert_eq!(
                one.hash(key, |_| true).map(|index| ordered[index]),
                other.hash(key, |_| true).map(|index| shuffled[index])
            );
        }
    }
}
