//! What the log says about a change.

use super::super::{compile, diff};

fn table(version: &str, routing: &str, endpoints: &str, default: &str) -> super::RoutingTable {
    let document = format!(
        r#"{{"version": "{version}", "routingTable": {{{routing}}},
             "cellEndpoints": {{{endpoints}}}, "defaultPlacement": "{default}"}}"#
    );
    compile(document.as_bytes()).unwrap()
}

#[test]
fn each_kind_of_change_is_counted_and_named() {
    let old = table(
        "1",
        r#""a": "x", "b": "y", "c": "x", "gone": "x""#,
        r#""x": "http://x", "y": "http://y", "w": "http://w""#,
        "x",
    );
    let new = table(
        "2",
        r#""c": "x", "b": "y", "a": "z", "n1": "x", "n3": "x", "n2": "x", "n4": "x""#,
        r#""z": "http://z", "y": "http://y:81", "x": "http://x""#,
        "y",
    );
    let change = diff(&old, &new);
    assert!(!change.is_empty());
    assert_eq!(
        change.to_string(),
        "version 1 -> 2; default placement x -> y; 4 keys added (n1, n2, n3, …); 1 key removed (gone); \
         1 key moved (a: x -> z); 1 placement added (z); 1 placement removed (w); \
         1 placement changed (y: http://y:80 -> http://y:81)"
    );
}

#[test]
fn the_order_of_a_document_is_no_change() {
    let old = table(
        "1",
        r#""a": "x", "b": "y""#,
        r#""x": "http://x", "y": "http://y""#,
        "x",
    );
    let new = table(
        "1",
        r#""b": "y", "a": "x""#,
        r#""y": "http://y:80/", "x": "http://X""#,
        "x",
    );
    let change = diff(&old, &new);
    assert!(change.is_empty());
    assert_eq!(change.to_string(), "no change");

    let renamed = table(
        "1\u{e9}",
        r#""a": "x", "b": "y""#,
        r#""x": "http://x", "y": "http://y""#,
        "x",
    );
    let change = diff(&old, &renamed);
    assert!(change.is_empty(), "a version alone moves nobody");
    assert_eq!(change.to_string(), "version 1 -> 1é");
}

#[test]
fn a_placement_changes_with_its_endpoints_fallback_and_policy() {
    let table = |defaults: &str, a: &str| {
        let document = format!(
            r#"{{"version": "1", "routingTable": {{}}, "defaults": {{{defaults}}}, "defaultPlacement": "b",
                 "cellEndpoints": {{"b": "http://b", "c": "http://c"}}, "placements": {{"a": {{{a}}}}}}}"#
        );
        compile(document.as_bytes()).unwrap()
    };
    let plain = r#""url": "http://a""#;
    let old = table("", plain);
    for (defaults, a, expected) in [
        ("", plain, "no change"),
        (
            "",
            r#""endpoints": [{"url": "http://a:80", "weight": 1}]"#,
            "no change",
        ),
        (
            "",
            r#""url": "http://z""#,
            "1 placement changed (a: http://a:80 -> http://z:80)",
        ),
        (
            "",
            r#""endpoints": [{"url": "http://a", "weight": 2}]"#,
            "1 placement changed (a: endpoints)",
        ),
        (
            "",
            r#""endpoints": [{"url": "http://a"}, {"url": "http://z"}], "fallback": "c""#,
            "1 placement changed (a: endpoints, fallback)",
        ),
        (
            "",
            r#""url": "http://z", "circuit_breaker": {}"#,
            "1 placement changed (a: endpoints, circuit_breaker)",
        ),
        (
            "",
            r#""url": "http://a", "fallback": "c", "tenancy": "shared", "load_balancing": "hash", "health_check": {},
               "circuit_breaker": {}, "concurrency_limit": 1, "max_request_body_bytes": 1,
               "timeouts": {"connect": "1s"}, "retries": {"attempts": 1}, "host_header": "rewrite""#,
            "1 placement changed (a: fallback, tenancy, load_balancing, health_check, circuit_breaker, \
             concurrency_limit, max_request_body_bytes, timeouts, retries, host_header)",
        ),
        (
            r#""concurrency_limit": 5"#,
            plain,
            "3 placements changed (a: concurrency_limit, b: concurrency_limit, c: concurrency_limit)",
        ),
        (
            r#""fallback": "b""#,
            plain,
            "2 placements changed (a: fallback, c: fallback)",
        ),
    ] {
        let change = diff(&old, &table(defaults, a));
        assert_eq!(change.to_string(), expected, "{a}");
        assert_eq!(change.is_empty(), expected == "no change");
    }
}

#[test]
fn hostile_names_stay_short_and_on_one_line() {
    let old = table("1", "", r#""x": "http://x""#, "x");
    let long = "k".repeat(100_000);
    let new = table(
        "1",
        &format!(r#""\u0085": "x", "{long}": "x""#),
        r#""x": "http://x""#,
        "x",
    );
    let line = diff(&old, &new).to_string();
    assert_eq!(
        line,
        format!("2 keys added ({}…, \\u{{85}})", "k".repeat(40))
    );
}
