//! What an operator is shown, and the gauges, of placements well and ill.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use crate::resilience::Fault;
use crate::state::Generation;
use crate::state::tests::{Fixture, at};
use crate::table::PlacementId;
use crate::upstream::{Backend, LastFailure};

fn apply(edge: &Fixture, placements: Value) -> Arc<Generation> {
    let document = json!({
        "version": "1",
        "routingTable": {"acme": "one"},
        "placements": placements,
        "defaultPlacement": "one",
    });
    edge.changed(&serde_json::to_vec(&document).unwrap())
}

fn id(generation: &Generation, name: &str) -> PlacementId {
    generation.table.placement_named(name).unwrap()
}

fn backend(generation: &Generation, name: &str) -> Arc<Backend> {
    let placement = generation.placements.get(id(generation, name));
    Arc::clone(&placement.backends()[0])
}

/// Its probes fail until it is unhealthy.
fn sicken(generation: &Generation, name: &str) {
    let placement = generation.placements.get(id(generation, name));
    let check = placement.policy.health_check.as_ref().unwrap();
    for _ in 0..check.unhealthy_threshold {
        let failed = Err("connection refused".to_owned());
        backend(generation, name).probed(failed, check, Instant::now(), at(5));
    }
}

/// Requests fail until its breaker opens.
fn trip(generation: &Generation, name: &str) {
    let (id, now) = (id(generation, name), Instant::now());
    let placement = generation.placements.get(id);
    let breaker = placement.policy.circuit_breaker.unwrap();
    for _ in 0..breaker.failure_threshold {
        let mut admitted = generation.placements.admit(id, b"acme", now).unwrap();
        let failure = LastFailure {
            at: at(7),
            reason: "upstream_bad_response",
            detail: "reset".to_owned(),
        };
        let attempt = admitted.attempt.as_mut().unwrap();
        attempt.failed(Fault::NoAnswer, now, failure);
    }
}

fn shown(generation: &Generation, name: &str) -> Value {
    serde_json::to_value({
        let id = id(generation, name);
        let keys = generation.table.keys_on(id);
        generation.placements.view(id, keys, Instant::now())
    })
    .unwrap()
}

fn three() -> Value {
    json!({
        "one": {"url": "http://127.0.0.1:1", "fallback": "two",
                "health_check": {}, "circuit_breaker": {}},
        "two": {"url": "http://127.0.0.1:2", "circuit_breaker": {}},
        "three": {"url": "http://away"},
    })
}

#[test]
fn an_unhealthy_placement_says_so_and_who_serves_instead() {
    let generation = apply(&Fixture::new(), three());
    sicken(&generation, "one");
    let one = shown(&generation, "one");
    assert_eq!(one["outage"], "unhealthy");
    assert_eq!(one["served_by"], "two");
    let backend = &one["endpoints"][0]["backends"][0];
    assert_eq!(backend["usable"], false);
    assert_eq!(backend["health"], "unhealthy");
    assert!(backend["health_since"].is_string());
    assert_eq!(backend["why_not"], "unhealthy: its health probes fail");
    assert_eq!(
        backend["last_failure"],
        json!({"at": "2026-01-03T20:45:17Z", "reason": "probe", "detail": "connection refused"})
    );
}

#[test]
fn an_open_breaker_says_so_and_when_the_next_try_is() {
    let generation = apply(&Fixture::new(), three());
    sicken(&generation, "one");
    trip(&generation, "two");
    for (name, outage) in [("one", "unhealthy"), ("two", "circuit_open")] {
        let shown = shown(&generation, name);
        assert_eq!(shown["outage"], outage, "{name}");
        assert_eq!(shown["served_by"], Value::Null, "{name}");
    }
    let two = shown(&generation, "two");
    let backend = &two["endpoints"][0]["backends"][0];
    assert_eq!(backend["circuit"], "open");
    assert_eq!(backend["last_failure"]["at"], "2026-01-03T20:45:19Z");
    let why = backend["why_not"].as_str().unwrap();
    assert!(
        why.starts_with("circuit open: the next try is in "),
        "{why}"
    );
}

#[test]
fn an_unknown_address_is_awaited_and_then_missed() {
    let generation = apply(&Fixture::new(), three());
    let three = shown(&generation, "three");
    assert_eq!(
        (&three["outage"], &three["served_by"]),
        (&json!("unresolved"), &json!("three"))
    );
    let placement = generation.placements.get(id(&generation, "three"));
    placement.endpoints()[0].0.resolution_failed("no such host");
    let three = shown(&generation, "three");
    assert_eq!(
        (&three["outage"], &three["served_by"]),
        (&json!("no_address"), &Value::Null)
    );
    assert_eq!(three["endpoints"][0]["resolution_error"], "no such host");
}

/// The explanation goes the way that requests go.
#[test]
fn an_explanation_agrees_with_admission() {
    for (sick, tripped, unknown) in [
        (false, false, false),
        (true, false, false),
        (true, true, false),
        (false, false, true),
    ] {
        let edge = Fixture::new();
        let mut placements = three();
        if unknown {
            placements["one"]["url"] = "http://away".into();
        }
        let generation = apply(&edge, placements);
        if sick {
            sicken(&generation, "one");
        }
        if tripped {
            trip(&generation, "two");
        }
        let shown = edge.state.explain("acme").unwrap();
        let admitted = generation
            .placements
            .admit(id(&generation, "one"), b"acme", Instant::now());
        let case = (sick, tripped, unknown);
        match admitted {
            Ok(admitted) => {
                let name = &generation.table.placement(admitted.placement).name;
                assert_eq!(shown.served_by.as_ref(), Some(name), "{case:?}");
                assert_eq!(shown.failover_reason, admitted.failover, "{case:?}");
                let address = admitted.backend().map(|backend| backend.address);
                assert_eq!(shown.chosen, address, "{case:?}");
            }
            Err(_) => {
                assert!(tripped, "{case:?}");
                assert_eq!((shown.served_by, shown.chosen), (None, None), "{case:?}");
                assert!(shown.failover_reason.is_some(), "{case:?}");
            }
        }
    }
}

#[test]
fn of_too_many_placements_the_ailing_come_first() {
    let edge = Fixture::new();
    let named = (0..50).map(|n| {
        let url = format!("http://127.0.0.1:{}", 1000 + n);
        (format!("cell-{n}"), json!({"url": url, "health_check": {}}))
    });
    let mut placements: serde_json::Map<_, _> = named.collect();
    placements.insert("one".to_owned(), json!({"url": "http://away"}));
    let generation = apply(&edge, placements.into());
    sicken(&generation, "cell-40");
    let names = |limit| -> Vec<String> {
        let views = generation.placements.views(limit, |_| 0, Instant::now());
        views.into_iter().map(|view| view.placement).collect()
    };
    let all: Vec<String> = generation
        .table
        .placements()
        .iter()
        .map(|placement| placement.name.clone())
        .collect();
    assert_eq!(names(51), all);
    let mut first = names(4);
    assert_eq!(first.split_off(2), all[..2]);
    first.sort();
    assert_eq!(first, ["cell-40", "one"]);
}

#[test]
fn gauges_follow_what_is_there() {
    let edge = Fixture::new();
    let first = apply(&edge, three());
    let now = Instant::now();
    let admitted = first
        .placements
        .admit(id(&first, "one"), b"acme", now)
        .unwrap();
    admitted
        .attempt
        .as_ref()
        .unwrap()
        .backend()
        .probed(Ok(()), &Default::default(), now, at(0));
    let gauges = |placement: &str| {
        edge.state.show_gauges();
        let of = |name: &str, more: &str| {
            edge.metric(&format!(
                "cellgate_{name}{{placement=\"{placement}\"{more}}}"
            ))
        };
        (
            of("placement_requests_in_flight", ""),
            of("backends", ",usable=\"true\""),
            of("backends", ",usable=\"false\""),
        )
    };
    assert_eq!(gauges("one"), (Some(1.0), Some(1.0), Some(0.0)));
    assert_eq!(
        gauges("two"),
        (None, None, None),
        "nothing has happened there"
    );
    sicken(&first, "one");
    assert_eq!(gauges("one"), (Some(1.0), Some(0.0), Some(1.0)));

    // A request of a replaced generation is still in flight where no new one goes.
    drop(first);
    let mut without = three();
    without.as_object_mut().unwrap().remove("one");
    let document = json!({"version": "2", "routingTable": {}, "placements": without,
                          "defaultPlacement": "two"});
    let held = edge.state.read(|current| current.placements.clone());
    edge.changed(&serde_json::to_vec(&document).unwrap());
    assert_eq!(gauges("one"), (Some(1.0), Some(0.0), Some(0.0)));
    drop(admitted);
    assert_eq!(gauges("one"), (Some(0.0), Some(0.0), Some(0.0)));
    drop(held);
    assert_eq!(gauges("one"), (None, None, None));
}
