//! Tests of a document's whole way, from bytes to routes or problems.

mod changes;
mod deltas;
mod endpoints;
mod fallbacks;
mod hostile;
mod model;
mod nearly_valid;
mod placements;
mod policies;
mod policy_problems;
mod problems;
mod properties;
mod targets;
mod values;

use super::*;

const SAMPLE: &str = include_str!("../../../../config/routing.json");

fn routes(table: &RoutingTable, key: &str) -> (String, RouteReason) {
    let route = table.route(key.as_bytes());
    (table.placement(route.placement).name.clone(), route.reason)
}

#[test]
fn the_sample_routes_as_the_reference_says() {
    let table = compile(SAMPLE.as_bytes()).unwrap();
    assert_eq!(table.version(), "1.0.0");
    assert_eq!(table.key_count(), 4);
    for (key, placement, reason) in [
        ("acme", "tier1", RouteReason::Tier),
        ("globex", "tier2", RouteReason::Tier),
        ("initech", "tier3", RouteReason::Tier),
        ("visa", "visa", RouteReason::Dedicated),
        ("hooli", "tier3", RouteReason::Default),
        ("ACME", "tier3", RouteReason::Default),
        ("acme ", "tier3", RouteReason::Default),
        ("", "tier3", RouteReason::Default),
    ] {
        assert_eq!(routes(&table, key), (placement.to_owned(), reason), "{key}");
    }
    let by_bytes = table.route(b"\xff\xfe");
    assert_eq!(
        (by_bytes.placement, by_bytes.reason),
        (table.default_placement(), RouteReason::Default)
    );

    let placements: Vec<_> = table
        .placements()
        .iter()
        .zip(0..)
        .map(|(placement, id)| {
            (
                placement.name.as_str(),
                placement.endpoints[0].endpoint.to_string(),
                table.keys_on(PlacementId(id)),
            )
        })
        .collect();
    assert_eq!(
        placements,
        [
            ("tier1", "http://cell-tier1:9001".to_owned(), 1),
            ("tier2", "http://cell-tier2:9002".to_owned(), 1),
            ("tier3", "http://cell-tier3:9003".to_owned(), 1),
            ("visa", "http://cell-visa:9004".to_owned(), 1),
        ]
    );
}

#[test]
fn the_sample_with_policies_is_what_it_says() {
    let table = compile(include_bytes!("../../../../config/resilience.json")).unwrap();
    for (key, placement, reason) in [
        ("acme", "tier1", RouteReason::Tier),
        ("globex", "tier2", RouteReason::Tier),
        ("initech", "tier3", RouteReason::Tier),
        ("visa", "visa", RouteReason::Dedicated),
        ("hooli", "tier3", RouteReason::Default),
    ] {
        assert_eq!(routes(&table, key), (placement.to_owned(), reason), "{key}");
    }
    let limits: Vec<_> = table
        .placements()
        .iter()
        .map(|placement| {
            let policy = &placement.policy;
            assert!(policy.health_check.is_some() && policy.circuit_breaker.is_some());
            let fallback = placement.fallback.map(|id| &*table.placement(id).name);
            (
                placement.endpoints.len(),
                policy.concurrency_limit,
                policy.max_request_body_bytes,
                fallback,
            )
        })
        .collect();
    assert_eq!(
        limits,
        [
            (1, Some(100), Some(10_485_760), Some("tier3")),
            (1, Some(1000), None, Some("tier3")),
            (2, Some(1000), None, None),
            (1, None, None, Some("tier3")),
        ]
    );
}

#[test]
fn a_placement_is_shared_by_name_by_use_or_as_the_default() {
    let table = compile(
        br#"{"version": "1", "defaultPlacement": "main",
             "routingTable": {"a": "main", "b": "pair", "c": "pair", "d": "tier9", "e": "own", "\u0066": "tierra"},
             "cellEndpoints": {"main": "http://m", "pair": "http://p", "tier9": "http://t", "own": "http://o",
                               "tierra": "http://r", "idle": "http://i"}}"#,
    )
    .unwrap();
    for (key, placement, reason, why) in [
        (
            "a",
            "main",
            RouteReason::Tier,
            "main is the default placement",
        ),
        ("b", "pair", RouteReason::Tier, "pair serves 2 keys"),
        (
            "d",
            "tier9",
            RouteReason::Tier,
            "tier9 is named as a shared tier",
        ),
        (
            "e",
            "own",
            RouteReason::Dedicated,
            "own serves this key alone",
        ),
        (
            "f",
            "tierra",
            RouteReason::Dedicated,
            "tierra serves this key alone",
        ),
        (
            "g",
            "main",
            RouteReason::Default,
            "the key is not in the table, and main is the default placement",
        ),
    ] {
        assert_eq!(routes(&table, key), (placement.to_owned(), reason), "{key}");
        let explanation = table.explain(key);
        assert_eq!(
            (explanation.placement.as_str(), explanation.reason),
            (placement, reason)
        );
        assert_eq!(explanation.why, why);
    }
    assert_eq!(
        serde_json::to_value(table.explain("b")).unwrap(),
        serde_json::json!({
            "key": "b", "placement": "pair", "reason": "tier", "why": "pair serves 2 keys",
            "endpoint": "http://p:80", "endpoints": [{"url": "http://p:80", "weight": 1}],
            "fallback": null, "version": "1",
        })
    );
}

#[test]
fn tenancy_decides_the_reason() {
    let table = compile(
        br#"{"version": "2", "defaultPlacement": "tier1", "defaults": {"tenancy": "shared"},
             "routingTable": {"a": "tier1", "b": "own", "c": "pair", "d": "pair", "e": "plain", "f": "cell"},
             "placements": {"tier1": {"url": "http://t", "tenancy": "dedicated"},
                            "own": {"url": "http://o"},
                            "pair": {"url": "http://p", "tenancy": "dedicated"},
                            "plain": {"url": "http://x", "tenancy": null}},
             "cellEndpoints": {"cell": "http://c"}}"#,
    )
    .unwrap();
    for (key, placement, reason, why) in [
        (
            "a",
            "tier1",
            RouteReason::Dedicated,
            "tier1 is declared dedicated",
        ),
        ("b", "own", RouteReason::Tier, "own is declared shared"),
        (
            "c",
            "pair",
            RouteReason::Dedicated,
            "pair is declared dedicated",
        ),
        (
            "e",
            "plain",
            RouteReason::Dedicated,
            "plain serves this key alone",
        ),
        ("f", "cell", RouteReason::Tier, "cell is declared shared"),
        (
            "g",
            "tier1",
            RouteReason::Default,
            "the key is not in the table, and tier1 is the default placement",
        ),
    ] {
        assert_eq!(routes(&table, key), (placement.to_owned(), reason), "{key}");
        assert_eq!(table.explain(key).why, why);
    }
}

#[test]
fn a_table_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<RoutingTable>();
}
