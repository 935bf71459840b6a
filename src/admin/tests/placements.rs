//! `GET /debug/placements`.

use serde_json::{Value, json};

use super::{empty, json as body, loaded};

#[test]
fn every_field_of_a_placement_is_shown() {
    let admin = empty();
    let document = json!({
        "version": "1",
        "routingTable": {"acme": "tier1", "globex": "tier1"},
        "placements": {
            "tier1": {
                "endpoints": [{"url": "http://cell-tier1:9001", "weight": 3}, {"url": "http://away"}],
                "load_balancing": "hash",
                "fallback": "tier3",
                "health_check": {},
                "circuit_breaker": {},
                "concurrency_limit": 100,
            },
            "tier3": {"url": "http://127.0.0.1:9003"},
        },
        "defaultPlacement": "tier3",
    });
    admin.apply(document.to_string().as_bytes());
    let mut shown = body(&admin.get("/debug/placements"));
    let since = shown["placements"][0]["endpoints"][0]["backends"][0]["circuit_since"].take();
    assert!(humantime::parse_rfc3339(since.as_str().unwrap()).is_ok());
    let tier1 = json!({
        "placement": "tier1",
        "keys": 2,
        "load_balancing": "hash",
        "fallback": "tier3",
        "outage": null,
        "served_by": "tier1",
        "in_flight": 0,
        "concurrency_limit": 100,
        "endpoints": [
            {
                "url": "http://cell-tier1:9001",
                "weight": 3,
                "resolution": "resolved",
                "resolution_error": null,
                "backends": [{
                    "address": "127.0.0.1:9001",
                    "usable": true,
                    "why_not": null,
                    "health": "unprobed",
                    "health_since": null,
                    "circuit": "closed",
                    "circuit_since": null,
                    "in_flight": 0,
                    "last_failure": null,
                }],
            },
            {
                "url": "http://away:80",
                "weight": 1,
                "resolution": "unresolved",
                "resolution_error": null,
                "backends": [],
            },
        ],
    });
    let tier3 = json!({
        "placement": "tier3",
        "keys": 0,
        "load_balancing": "least_request",
        "fallback": null,
        "outage": null,
        "served_by": "tier3",
        "in_flight": 0,
        "concurrency_limit": null,
        "endpoints": [{
            "url": "http://127.0.0.1:9003",
            "weight": 1,
            "resolution": "resolved",
            "resolution_error": null,
            "backends": [{
                "address": "127.0.0.1:9003",
                "usable": true,
                "why_not": null,
                "health": null,
                "health_since": null,
                "circuit": null,
                "circuit_since": null,
                "in_flight": 0,
                "last_failure": null,
            }],
        }],
    });
    let all = json!({"generation": 1, "placements": [tier1, tier3], "omitted": 0});
    assert_eq!(shown, all);

    let one = body(&admin.get("/debug/placements?placement=tier3"));
    assert_eq!(
        one,
        json!({"generation": 1, "placements": [all["placements"][1]], "omitted": 0})
    );
}

#[test]
fn a_placement_that_is_not_there_suggests_one_that_is() {
    let admin = loaded();
    let shown = body(&admin.get("/debug/placements?placement=tier9"));
    assert_eq!(
        shown["message"],
        "unknown placement \"tier9\" (known: tier1, tier2, tier3, visa; did you mean \"tier1\"?)"
    );
    let long = format!("/debug/placements?placement={}", "x".repeat(10_000));
    assert!(admin.get(&long).body().len() < 500);
}

#[test]
fn of_very_many_a_thousand_are_shown() {
    let admin = empty();
    let endpoints: serde_json::Map<String, Value> = (0..1200)
        .map(|n| {
            (
                format!("cell-{n}"),
                format!("http://127.0.0.1:{}", 1000 + n).into(),
            )
        })
        .collect();
    let document = json!({
        "version": "1",
        "routingTable": {},
        "cellEndpoints": endpoints,
        "defaultPlacement": "cell-0",
    });
    admin.apply(document.to_string().as_bytes());
    let shown = body(&admin.get("/debug/placements"));
    assert_eq!(shown["placements"].as_array().unwrap().len(), 1000);
    assert_eq!(shown["omitted"], 200);
    let one = body(&admin.get("/debug/placements?placement=cell-1199"));
    assert_eq!(one["placements"][0]["placement"], "cell-1199");
    assert_eq!(one["omitted"], 0);
}
