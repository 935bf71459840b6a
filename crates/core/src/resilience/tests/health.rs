//! What probes make of an endpoint.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::{Health, HealthState, jittered};
use crate::table::HealthCheck;
use Health::{Healthy, Unhealthy, Unprobed};

fn settings(healthy_threshold: u32, unhealthy_threshold: u32) -> HealthCheck {
    HealthCheck {
        healthy_threshold,
        unhealthy_threshold,
        ..HealthCheck::default()
    }
}

#[test]
fn words_and_json_are_the_same() {
    for (index, health) in Health::ALL.into_iter().enumerate() {
        assert_eq!(health as usize, index);
        assert_eq!(serde_json::to_value(health).unwrap(), health.as_str());
    }
}

/// `+` is a good probe, `-` one that failed; two and three in a row count.
#[test]
fn probes_in_a_row_decide() {
    let settings = settings(2, 3);
    for (probes, expected) in [
        ("", Unprobed),
        ("+", Healthy),
        ("-", Unprobed),
        ("--", Unprobed),
        ("---", Unhealthy),
        // One that was never well needs but one good probe until it is unhealthy.
        ("--+", Healthy),
        ("--+--", Healthy),
        ("--+---", Unhealthy),
        ("+--+--", Healthy),
        ("+---", Unhealthy),
        ("+----", Unhealthy),
        ("---+", Unhealthy),
        ("---+-+", Unhealthy),
        ("---++", Healthy),
        ("---++--", Healthy),
        ("---++---", Unhealthy),
    ] {
        let mut health = HealthState::new();
        for probe in probes.chars() {
            health.observe(probe == '+', &settings, Instant::now());
        }
        assert_eq!(health.status(), expected, "{probes}");
        assert_eq!(health.usable(), expected != Unhealthy, "{probes}");
    }
}

#[test]
fn it_knows_since_when() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let settings = settings(1, 2);
    let mut health = HealthState::new();
    for (second, well, transition, since) in [
        (0, false, None, None),
        (1, true, Some(Healthy), Some(1)),
        (2, true, None, Some(1)),
        (3, false, None, Some(1)),
        (4, false, Some(Unhealthy), Some(4)),
        (5, false, None, Some(4)),
        (6, true, Some(Healthy), Some(6)),
    ] {
        let observed = health.observe(well, &settings, at(second));
        assert_eq!(observed, transition, "second {second}");
        assert_eq!(health.since(), since.map(at), "second {second}");
    }
    health.reset();
    assert_eq!((health.status(), health.since()), (Unprobed, None));
}

#[test]
fn forgotten_probes_do_not_count() {
    let settings = settings(2, 3);
    let mut health = HealthState::new();
    for _ in 0..2 {
        health.observe(false, &settings, Instant::now());
    }
    health.reset();
    assert_eq!(health.observe(false, &settings, Instant::now()), None);
}

/// The status, from all probes since it was reached, oldest first.
fn next(status: Health, probes: &[bool], settings: &HealthCheck) -> Health {
    let last = |count: u32, well: bool| {
        let count = count as usize;
        probes.len() >= count && probes.iter().rev().take(count).all(|probe| *probe == well)
    };
    match status {
        Unprobed if probes.contains(&true) => Healthy,
        Unprobed | Healthy if last(settings.unhealthy_threshold, false) => Unhealthy,
        Unhealthy if last(settings.healthy_threshold, true) => Healthy,
        same => same,
    }
}

proptest! {
    #[test]
    fn health_is_what_the_probes_since_the_last_change_make_it(
        steps in prop::collection::vec((any::<bool>(), 1..4_u32, 1..4_u32), 0..100),
    ) {
        let start = Instant::now();
        let mut health = HealthState::new();
        let mut expected = Unprobed;
        let mut probes = Vec::new();
        for (second, (well, good, bad)) in steps.into_iter().enumerate() {
            let settings = settings(good, bad);
            let now = start + Duration::from_secs(second as u64);
            let before = expected;
            probes.push(well);
            expected = next(before, &probes, &settings);
            let changed = (expected != before).then_some(expected);
            prop_assert_eq!(health.observe(well, &settings, now), changed);
            prop_assert_eq!(health.status(), expected);
            if changed.is_some() {
                prop_assert_eq!(health.since(), Some(now));
                probes.clear();
            }
        }
    }

    #[test]
    fn jitter_is_a_tenth_either_way(millis in 1..86_400_000_u64, draw in 0.0..1.0_f64) {
        let interval = Duration::from_millis(millis);
        let wait = jittered(interval, draw).as_secs_f64() / interval.as_secs_f64();
        prop_assert!((wait - (0.9 + 0.2 * draw)).abs() < 1e-6, "{wait}");
    }
}

#[test]
fn jitter_of_anything_is_a_time() {
    let second = Duration::from_secs(1);
    for draw in [f64::NAN, f64::INFINITY, -1.0, 2.0] {
        assert_eq!(jittered(second, draw), second, "{draw}");
    }
    assert_eq!(jittered(Duration::ZERO, 0.5), Duration::ZERO);
    assert_eq!(jittered(Duration::MAX, 1.0), Duration::MAX);
}
