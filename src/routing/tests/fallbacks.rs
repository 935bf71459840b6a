//! Where fallbacks may lead.

use super::super::{RoutingTable, compile};
use super::placements::{assert_marked, document};

/// The fallback of each placement, by name.
fn fallbacks(table: &RoutingTable) -> Vec<(&str, Option<&str>)> {
    let name = |id| table.placement(id).name.as_str();
    table
        .placements()
        .iter()
        .map(|placement| (placement.name.as_str(), placement.fallback.map(name)))
        .collect()
}

fn compiled(fields: &str) -> RoutingTable {
    compile(document(fields).as_bytes()).unwrap()
}

#[test]
fn fallbacks_lead_to_placements_of_both_formats() {
    let table = compiled(
        r#""placements": {"a": {"url": "http://a", "fallback": "\u0062"}, "b": {"url": "http://b", "fallback": "c"}},
           "cellEndpoints": {"c": "http://c"}"#,
    );
    assert_eq!(
        fallbacks(&table),
        [("a", Some("b")), ("b", Some("c")), ("c", None)]
    );
}

#[test]
fn the_default_fallback_is_for_all_but_itself() {
    let table = compiled(
        r#""cellEndpoints": {"a": "http://a", "b": "http://b"}, "defaults": {"fallback": "b"},
           "placements": {"c": {"url": "http://c", "fallback": null}, "d": {"url": "http://d", "fallback": "a"},
                          "e": {"url": "http://e"}}"#,
    );
    assert_eq!(
        fallbacks(&table),
        [
            ("a", Some("b")),
            ("b", None),
            ("c", None),
            ("d", Some("a")),
            ("e", Some("b")),
        ]
    );
}

#[test]
fn circles_are_reported_once_each() {
    for (fallbacks, pointer, message) in [
        (
            "b>«b",
            "/placements/b/fallback",
            "fallback \"b\" is the placement itself",
        ),
        (
            "b>«c c>b",
            "/placements/b/fallback",
            "fallbacks lead in a circle: b -> c -> b",
        ),
        // What leads into a circle is not on it.
        (
            "x>c b>«d c>b d>c y>x",
            "/placements/b/fallback",
            "fallbacks lead in a circle: b -> d -> c -> b",
        ),
    ] {
        assert_marked(&document(&declared(fallbacks)), &[(pointer, message)]);
    }
    assert_marked(
        &document(&declared("b>«a a>b c>«d d>c e>«e f>a")),
        &[
            (
                "/placements/b/fallback",
                "fallbacks lead in a circle: b -> a -> b",
            ),
            (
                "/placements/c/fallback",
                "fallbacks lead in a circle: c -> d -> c",
            ),
            (
                "/placements/e/fallback",
                "fallback \"e\" is the placement itself",
            ),
        ],
    );
}

#[test]
fn a_circle_through_the_default_is_reported_where_a_placement_says_so() {
    assert_marked(
        &document(
            r#""defaults": {"fallback": "c"}, "cellEndpoints": {"b": "http://b"},
  "placements": {"c": {"url": "http://c", "fallback": «"b"}}"#,
        ),
        &[(
            "/placements/c/fallback",
            "fallbacks lead in a circle: c -> b -> c",
        )],
    );
}

#[test]
fn a_default_fallback_that_is_unknown_is_one_problem() {
    assert_marked(
        &document(
            r#""defaults": {"fallback": «"bb"}, "cellEndpoints": {"b": "http://b", "c": "http://c"}"#,
        ),
        &[(
            "/defaults/fallback",
            r#"unknown placement "bb" (known: b, c; did you mean "b"?)"#,
        )],
    );
    assert_marked(
        &document(r#""placements": {"b": {"url": "http://b", "fallback": «["b"]}}"#),
        &[(
            "/placements/b/fallback",
            "expected a string, found an array",
        )],
    );
}

#[test]
fn a_long_circle_is_cut_in_words_and_found_in_one_walk() {
    const COUNT: usize = 20_000;
    let all: Vec<String> = (0..COUNT)
        .map(|n| {
            let next = (n + 1) % COUNT;
            format!(r#""p{n}": {{"url": "http://c", "fallback": "p{next}"}}"#)
        })
        .collect();
    let fields = format!(
        r#""placements": {{"b": {{"url": "http://b", "fallback": "p7"}}, {}}}"#,
        all.join(",")
    );
    let problems = compile(document(&fields).as_bytes()).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].pointer, "/placements/p0/fallback");
    let named: Vec<String> = (0..20).map(|n| format!("p{n}")).collect();
    assert_eq!(
        problems[0].message,
        format!(
            "fallbacks lead in a circle: {} -> … 19980 more … -> p0",
            named.join(" -> ")
        )
    );
}

/// `placements` with fallbacks such as `a>b c>d`; a mark before a name stays
/// before it.
fn declared(fallbacks: &str) -> String {
    let placements: Vec<String> = fallbacks
        .split(' ')
        .map(|link| {
            let (from, to) = link.split_once('>').unwrap();
            let (mark, to) = match to.strip_prefix('«') {
                Some(to) => ("«", to),
                None => ("", to),
            };
            format!(r#""{from}": {{"url": "http://c", "fallback": {mark}"{to}"}}"#)
        })
        .collect();
    format!("\"placements\": {{{}}}", placements.join(", "))
}
