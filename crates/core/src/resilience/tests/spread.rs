//! How often each member is chosen, against its weight's share.

use proptest::prelude::*;

use super::super::{Balancer, Member};

/// A prime, so that no cycle of anything falls in with it.
const CHOICES: u64 = 60_013;

fn balancer(weights: &[u32]) -> Balancer {
    let member = |(index, weight): (usize, &u32)| Member {
        weight: *weight,
        id: 0x0123_4567_89ab_cdef ^ index as u64,
    };
    Balancer::new(&weights.iter().enumerate().map(member).collect::<Vec<_>>())
}

/// How often each of `members` is chosen.
fn count(members: usize, choices: impl Iterator<Item = Option<usize>>) -> Vec<u64> {
    let mut counts = vec![0; members];
    choices.for_each(|chosen| counts[chosen.expect("one is usable")] += 1);
    counts
}

/// Each count is within five standard deviations of its share of `weights`.
#[track_caller]
fn assert_shares(counts: &[u64], weights: &[u32], case: &str) {
    let all: u64 = counts.iter().sum();
    let total: u32 = weights.iter().sum();
    for (count, weight) in counts.iter().zip(weights) {
        let share = f64::from(*weight) / f64::from(total);
        let mean = all as f64 * share;
        let deviation = (mean * (1.0 - share)).sqrt();
        let off = (*count as f64 - mean).abs();
        assert!(off <= 5.0 * deviation, "{case}: {counts:?} for {weights:?}");
    }
}

/// `weights` without those whose index is in `unusable`.
fn usable_weights(weights: &[u32], unusable: &[usize]) -> Vec<u32> {
    let usable = |index| u32::from(!unusable.contains(&index));
    let weights = weights.iter().enumerate();
    weights
        .map(|(index, weight)| weight * usable(index))
        .collect()
}

const CASES: [(&[u32], &[usize]); 9] = [
    (&[1, 1], &[]),
    (&[500, 500, 500], &[]),
    (&[1, 2, 3, 4], &[]),
    (&[1000, 1, 100], &[]),
    (&[1, 1, 1], &[1]),
    (&[5, 3, 2], &[0]),
    (&[90, 10, 3, 7], &[0, 2]),
    (
        &[1; 30],
        &[
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23,
            24, 25, 26,
        ],
    ),
    (&[1000, 1, 2, 3, 4, 5, 6, 7, 8, 9], &[0]),
];

/// All idle, or all equally loaded for their weight.
#[test]
fn least_request_draws_by_weight() {
    for (weights, unusable) in CASES {
        let balancer = balancer(weights);
        let usable = |index| !unusable.contains(&index);
        for busy in [0, 3] {
            let load = |index: usize| busy * u64::from(weights[index]);
            let chosen = (0..CHOICES).map(|draw| balancer.least_request(draw, usable, load));
            let counts = count(weights.len(), chosen);
            assert_shares(&counts, &usable_weights(weights, unusable), "least request");
        }
    }
}

/// Requests that never end fill members up in the proportion of their weights.
#[test]
fn least_request_fills_up_evenly() {
    for weights in [&[1, 1, 1, 1, 1, 1, 1, 1][..], &[8, 4, 2, 1, 1], &[100, 10]] {
        let balancer = balancer(weights);
        let mut loads = vec![0; weights.len()];
        for draw in 0..10_000 {
            let chosen = balancer.least_request(draw, |_| true, |index| loads[index]);
            loads[chosen.unwrap()] += 1;
        }
        let total: u32 = weights.iter().sum();
        for (load, weight) in loads.iter().zip(weights) {
            let even = 10_000.0 * f64::from(*weight) / f64::from(total);
            // Random draws alone would be off by some tens to hundreds.
            assert!(
                (*load as f64 - even).abs() <= 10.0,
                "{loads:?} for {weights:?}"
            );
        }
    }
}

#[test]
fn keys_are_spread_by_weight() {
    for (weights, unusable) in CASES {
        let balancer = balancer(weights);
        let usable = |index| !unusable.contains(&index);
        let key = |number: u64| format!("tenant-{number}");
        let chosen = (0..CHOICES).map(|number| balancer.hash(key(number).as_bytes(), usable));
        let counts = count(weights.len(), chosen);
        assert_shares(&counts, &usable_weights(weights, unusable), "hash");
    }
}

#[test]
fn turns_of_the_unusable_go_to_all_others_by_weight() {
    for (weights, unusable) in CASES {
        let balancer = balancer(weights);
        let usable = |index| !unusable.contains(&index);
        let chosen = (0..CHOICES).map(|turn| balancer.round_robin(turn, usable));
        let counts = count(weights.len(), chosen);
        assert_shares(&counts, &usable_weights(weights, unusable), "round robin");
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The turns after which everything comes again.
fn cycle(weights: &[u32]) -> u64 {
    let weights = || weights.iter().map(|weight| u64::from(*weight));
    weights().sum::<u64>() / weights().fold(0, gcd)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_cycle_of_turns_has_exactly_each_weights_share(
        weights in prop_oneof![
            prop::collection::vec(1..10_u32, 1..20),
            prop::collection::vec(1..=1000_u32, 1..20),
        ],
        start in 0..1_000_000_u64,
    ) {
        let balancer = balancer(&weights);
        let cycle = cycle(&weights);
        let turns = start..start + cycle;
        let counts = count(weights.len(), turns.map(|turn| balancer.round_robin(turn, |_| true)));
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        for (count, weight) in counts.iter().zip(&weights) {
            prop_assert_eq!(*count, u64::from(*weight) * cycle / total);
        }
    }

    /// At every moment, each member has had its share of the turns so far, give
    /// or take a few.
    #[test]
    fn turns_are_well_spread_over_the_cycle(
        weights in prop_oneof![
            prop::collection::vec(1..10_u32, 2..20),
            prop::collection::vec(1..=1000_u32, 2..20),
        ],
    ) {
        let balancer = balancer(&weights);
        let total: u32 = weights.iter().sum();
        let mut counts = vec![0; weights.len()];
        for turn in 0..cycle(&weights) {
            counts[balancer.round_robin(turn, |_| true).unwrap()] += 1;
            for (count, weight) in counts.iter().zip(&weights) {
                let share = (turn + 1) as f64 * f64::from(*weight) / f64::from(total);
                prop_assert!((f64::from(*count) - share).abs() <= 5.0, "turn {turn}: {counts:?}");
            }
        }
    }
}
