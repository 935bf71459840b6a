//! Which placement and which backend take a request.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::resilience::{BreakerState, Fault};
use crate::state::Generation;
use crate::state::tests::Fixture;
use crate::upstream::{Admitted, Cause, FailoverReason, LastFailure, Rejected, Unresolved};

struct Edge {
    fixture: Fixture,
    start: Instant,
}

impl Edge {
    fn new() -> Self {
        Self {
            fixture: Fixture::new(),
            start: Instant::now(),
        }
    }

    /// Applies placements; `key` lives in the first of them by name.
    fn apply(&self, version: &str, placements: Value) -> Arc<Generation> {
        let first = placements.as_object().unwrap().keys().next().unwrap();
        let document = json!({
            "version": version,
            "routingTable": {"key": first},
            "placements": placements,
            "defaultPlacement": first,
        });
        self.fixture.changed(document.to_string().as_bytes())
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn admit(&self, generation: &Generation, seconds: u64) -> Result<Admitted, Rejected> {
        let home = generation.table.route(b"key").placement;
        generation.placements.admit(home, b"key", self.at(seconds))
    }

    /// A request that its backend answers with a failure.
    fn fail(&self, generation: &Generation, seconds: u64) {
        let mut admitted = self.admit(generation, seconds).expect("admitted");
        let attempt = admitted.attempt.as_mut().expect("a backend");
        attempt.failed(Fault::NoAnswer, self.at(seconds), failure());
    }
}

fn failure() -> LastFailure {
    LastFailure {
        at: SystemTime::now(),
        reason: "test",
        detail: "it was told to".to_owned(),
    }
}

fn port(admitted: &Admitted) -> u16 {
    admitted.backend().expect("a backend").address.port()
}

fn name(generation: &Generation, admitted: &Admitted) -> String {
    generation.table.placement(admitted.placement).name.clone()
}

fn guarded(port: u16, fallback: Option<&str>) -> Value {
    let mut placement = json!({
        "url": format!("http://127.0.0.1:{port}"),
        "circuit_breaker": {"failure_threshold": 2, "timeout": "10s"},
    });
    if let Some(fallback) = fallback {
        placement["fallback"] = fallback.into();
    }
    placement
}

#[test]
fn without_a_fallback_an_open_circuit_is_a_rejection() {
    let edge = Edge::new();
    let generation = edge.apply("1", json!({"a": guarded(1, None), "b": guarded(2, None)}));
    edge.fail(&generation, 0);
    edge.fail(&generation, 0);
    assert_eq!(
        edge.admit(&generation, 4).unwrap_err(),
        Rejected {
            cause: Cause::Unavailable(FailoverReason::CircuitOpen),
            placement: generation.table.route(b"key").placement,
            failover: None,
            circuit: Some(BreakerState::Open),
            retry_after: Duration::from_secs(6),
        }
    );
    // Half-open: one finds out, the others wait.
    let mut probe = edge.admit(&generation, 10).expect("the probe");
    assert_eq!(probe.circuit, Some(BreakerState::HalfOpen));
    let turned_away = edge.admit(&generation, 10).unwrap_err();
    assert_eq!(turned_away.circuit, Some(BreakerState::HalfOpen));
    probe.attempt.as_mut().unwrap().answered();
    let closed = edge.admit(&generation, 10).expect("closed again");
    assert_eq!(closed.circuit, Some(BreakerState::Closed));
}

#[test]
fn a_probe_that_says_nothing_frees_its_place() {
    let edge = Edge::new();
    let generation = edge.apply("1", json!({"a": guarded(1, None)}));
    edge.fail(&generation, 0);
    edge.fail(&generation, 0);
    drop(edge.admit(&generation, 10).expect("the probe"));
    assert!(edge.admit(&generation, 10).is_ok());
    let [placement] = &*generation.placements else {
        panic!("one placement");
    };
    assert_eq!(placement.state.in_flight(), 0);
    assert_eq!(placement.backends()[0].in_flight(), 0);
}

#[test]
fn fallbacks_are_followed_to_the_first_that_takes_requests() {
    let edge = Edge::new();
    let chain = json!({
        "a": guarded(1, Some("b")), "b": guarded(2, Some("c")), "c": {"url": "http://127.0.0.1:3"},
    });
    let generation = edge.apply("1", chain);
    for _ in 0..2 {
        edge.fail(&generation, 0);
    }
    let second = edge.admit(&generation, 1).expect("the fallback");
    assert_eq!(name(&generation, &second), "b");
    assert_eq!(second.failover, Some(FailoverReason::CircuitOpen));
    assert_eq!(
        second.circuit,
        Some(BreakerState::Open),
        "of its own placement"
    );
    let [a, b, _] = &*generation.placements else {
        panic!("three placements");
    };
    assert_eq!((a.state.in_flight(), b.state.in_flight()), (0, 1));
    drop(second);
    for _ in 0..2 {
        edge.fail(&generation, 1);
    }
    let third = edge.admit(&generation, 2).expect("the fallback's");
    assert_eq!(name(&generation, &third), "c");
    let (state, _) = b.backends()[0].breaker();
    assert_eq!(
        state,
        BreakerState::Open,
        "the outcome counts where it served"
    );
}

#[test]
fn the_limit_is_that_of_the_placement_that_serves() {
    let edge = Edge::new();
    let mut b = guarded(2, None);
    b["concurrency_limit"] = 1.into();
    let generation = edge.apply("1", json!({"a": guarded(1, Some("b")), "b": b}));
    for _ in 0..2 {
        edge.fail(&generation, 0);
    }
    let held = edge.admit(&generation, 1).expect("one is allowed");
    let full = edge.admit(&generation, 1).unwrap_err();
    assert_eq!(full.cause, Cause::ConcurrencyLimit);
    assert_eq!(generation.table.placement(full.placement).name, "b");
    assert_eq!(full.failover, Some(FailoverReason::CircuitOpen));
    assert_eq!(
        full.circuit,
        Some(BreakerState::Open),
        "of its own placement"
    );
    drop(held);
    assert!(edge.admit(&generation, 1).is_ok());
}

/// Full of requests that find out whether it works again, it is down for all
/// others, which have somewhere else to go.
#[test]
fn a_placement_that_recovers_and_is_full_is_an_outage() {
    let edge = Edge::new();
    let mut a = guarded(1, Some("b"));
    a["concurrency_limit"] = 1.into();
    let generation = edge.apply("1", json!({"a": a, "b": guarded(2, None)}));
    for _ in 0..2 {
        edge.fail(&generation, 0);
    }
    let probe = edge.admit(&generation, 10).expect("the probe");
    assert_eq!(port(&probe), 1);
    for seconds in [11, 60] {
        // A minute later the probe is overdue, and its place is still taken.
        let other = edge.admit(&generation, seconds).expect("the fallback");
        assert_eq!(port(&other), 2);
        assert_eq!(other.failover, Some(FailoverReason::CircuitOpen));
    }
    drop(probe);
    assert_eq!(
        port(&edge.admit(&generation, 61).expect("the next probe")),
        1
    );
}

/// A request that is turned away does not use up what a backend is tried by.
#[test]
fn a_full_placement_still_finds_out_what_works_again() {
    let edge = Edge::new();
    let generation = edge.apply("1", two(json!({"concurrency_limit": 1})));
    let mut admitted = edge.admit(&generation, 0).unwrap();
    let first = port(&admitted);
    let attempt = admitted.attempt.as_mut().unwrap();
    attempt.connect_failed(edge.at(0), failure());
    drop(admitted);
    let held = edge.admit(&generation, 0).unwrap();
    for _ in 0..100 {
        let full = edge.admit(&generation, 5).unwrap_err();
        assert_eq!(full.cause, Cause::ConcurrencyLimit);
    }
    drop(held);
    let next: Vec<u16> = (0..50)
        .map(|_| port(&edge.admit(&generation, 5).unwrap()))
        .collect();
    assert!(next.contains(&first), "{next:?}");
}

#[test]
fn limits_count_requests_of_earlier_generations() {
    let edge = Edge::new();
    let limited =
        |limit: u32| json!({"a": {"url": "http://127.0.0.1:1", "concurrency_limit": limit}});
    let first = edge.apply("1", limited(5));
    let held: Vec<_> = (0..3).map(|_| edge.admit(&first, 0).unwrap()).collect();
    let second = edge.apply("2", limited(3));
    assert!(edge.admit(&second, 0).is_err());
    drop(held);
    assert!(edge.admit(&second, 0).is_ok());
}

#[test]
fn a_breaker_survives_a_reload_that_changes_other_things() {
    let edge = Edge::new();
    let first = edge.apply("1", json!({"a": guarded(1, None)}));
    edge.fail(&first, 0);
    let second = edge.apply("2", json!({"a": guarded(1, None), "b": guarded(2, None)}));
    edge.fail(&second, 0);
    assert!(edge.admit(&second, 1).is_err(), "one failure on each");
    let moved = edge.apply("3", json!({"a": guarded(9, None)}));
    assert!(edge.admit(&moved, 1).is_ok(), "another endpoint");
}

fn two(policy: Value) -> Value {
    let mut placement = json!({
        "endpoints": [{"url": "http://127.0.0.1:1"}, {"url": "http://127.0.0.1:2"}],
    });
    for (name, value) in policy.as_object().unwrap() {
        placement[name] = value.clone();
    }
    json!({"a": placement, "b": {"url": "http://127.0.0.1:3"}})
}

#[test]
fn another_attempt_is_made_elsewhere() {
    let edge = Edge::new();
    let generation = edge.apply("1", two(json!({})));
    let home = generation.table.route(b"key").placement;
    let mut admitted = edge.admit(&generation, 0).unwrap();
    let first = port(&admitted);
    let now = edge.at(0);
    let attempt = admitted.attempt.as_mut().unwrap();
    attempt.connect_failed(now, failure());
    admitted.set_aside();
    generation
        .placements
        .admit_again(home, b"key", &mut admitted, Unresolved::Wait, now)
        .expect("there is another");
    assert_eq!(port(&admitted), 3 - first);
    admitted.set_aside();
    assert_eq!(
        generation
            .placements
            .admit_again(home, b"key", &mut admitted, Unresolved::Wait, now),
        Err(None),
        "both were tried"
    );
    assert_eq!(port(&admitted), 3 - first, "the last one tried");
    drop(admitted);
    // The next ones keep away from the one that failed.
    for _ in 0..20 {
        assert_eq!(port(&edge.admit(&generation, 0).unwrap()), 3 - first);
    }
    let held: Vec<_> = (0..200)
        .map(|_| edge.admit(&generation, 2).unwrap())
        .collect();
    let tried = held.iter().filter(|admitted| port(admitted) == first);
    assert_eq!(tried.count(), 1, "one finds out");
    // It has not, so the next one does.
    drop(held);
    let next: Vec<_> = (0..50)
        .map(|_| port(&edge.admit(&generation, 2).unwrap()))
        .collect();
    assert!(next.contains(&first), "{next:?}");
}

#[test]
fn a_failed_probe_goes_on_to_the_fallback() {
    let edge = Edge::new();
    let generation = edge.apply(
        "1",
        json!({"a": guarded(1, Some("b")), "b": guarded(2, None)}),
    );
    let home = generation.table.route(b"key").placement;
    for _ in 0..2 {
        edge.fail(&generation, 0);
    }
    let mut probe = edge.admit(&generation, 10).expect("the probe");
    assert_eq!(port(&probe), 1);
    let now = edge.at(10);
    let attempt = probe.attempt.as_mut().unwrap();
    attempt.connect_failed(now, failure());
    probe.set_aside();
    generation
        .placements
        .admit_again(home, b"key", &mut probe, Unresolved::Wait, now)
        .expect("the fallback");
    assert_eq!(port(&probe), 2);
    assert_eq!(probe.failover, Some(FailoverReason::CircuitOpen));
}

#[test]
fn requests_are_balanced_as_the_policy_says() {
    let edge = Edge::new();
    let ports = |generation: &Generation, key: &[u8]| -> Vec<u16> {
        let home = generation.table.route(key).placement;
        let admit = |_| port(&generation.placements.admit(home, key, edge.at(0)).unwrap());
        (0..100).map(admit).collect()
    };
    let turns = edge.apply("1", two(json!({"load_balancing": "round_robin"})));
    let seen = ports(&turns, b"key");
    assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "{seen:?}");

    let hashed = edge.apply("2", two(json!({"load_balancing": "hash"})));
    let mut both = std::collections::BTreeSet::new();
    for n in 0..50 {
        let seen = ports(&hashed, format!("tenant-{n}").as_bytes());
        assert!(seen.iter().all(|port| *port == seen[0]), "{n}: {seen:?}");
        both.insert(seen[0]);
    }
    assert_eq!(both.len(), 2, "tenants are spread");

    let least = edge.apply("3", two(json!({"load_balancing": "least_request"})));
    let held: Vec<_> = (0..40).map(|_| edge.admit(&least, 0).unwrap()).collect();
    let ones = held.iter().filter(|admitted| port(admitted) == 1).count();
    assert!((15..=25).contains(&ones), "{ones} of 40");
}
