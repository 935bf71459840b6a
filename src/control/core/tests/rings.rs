//! How much is remembered of the way to the newest generation.

use std::sync::Arc;

use super::super::truth::Ring;
use crate::control::store::Step;
use crate::protocol::Mark;
use crate::table::Delta;

fn mark(generation: u64) -> Mark {
    Mark {
        generation,
        digest: format!("{generation:032x}").parse().unwrap(),
    }
}

/// The step to `to` that sets this many keys.
fn step(to: u64, keys: usize) -> Step {
    let set = (0..keys).map(|key| (key.to_string(), "one".to_owned()));
    Step {
        from: mark(to - 1),
        to: mark(to),
        delta: Arc::new(Delta {
            set: set.collect(),
            ..Delta::default()
        }),
    }
}

fn known(ring: &Ring, from: u64) -> Option<usize> {
    ring.since(mark(from)).map(|steps| steps.len())
}

#[test]
fn the_oldest_steps_are_forgotten() {
    let mut ring = Ring::default();
    for to in 1..=10_001 {
        let _ = ring.push(step(to, 1));
    }
    assert_eq!(known(&ring, 0), None);
    assert_eq!(known(&ring, 1), Some(10_000));
    assert_eq!(known(&ring, 10_000), Some(1));
    assert_eq!(known(&ring, 10_001), None);
}

#[test]
fn large_steps_are_forgotten_sooner() {
    let mut ring = Ring::default();
    for to in 1..=3 {
        let _ = ring.push(step(to, 400_000));
    }
    assert_eq!(known(&ring, 0), None);
    assert_eq!(known(&ring, 1), Some(2));
    // More than all of the room there is.
    let _ = ring.push(step(4, 1_500_000));
    assert_eq!(known(&ring, 3), None);
    let _ = ring.push(step(5, 1));
    assert_eq!(known(&ring, 4), Some(1));
}

#[test]
fn a_step_from_elsewhere_begins_anew() {
    let mut ring = Ring::default();
    let _ = ring.push(step(1, 1));
    let _ = ring.push(step(2, 1));
    let _ = ring.push(step(9, 1));
    assert_eq!(known(&ring, 0), None);
    assert_eq!(known(&ring, 8), Some(1));
    let _ = ring.clear();
    assert_eq!(known(&ring, 8), None);
}
