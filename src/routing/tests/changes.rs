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
