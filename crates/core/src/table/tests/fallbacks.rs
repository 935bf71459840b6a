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
            "fallbacks lead in a circle: c -> b (by defaults) -> c \
             (to end it, move b to placements and give it \"fallback\": null)",
        )],
    );
    assert_marked(
        &document(
            r#""defaults": {"fallback": "c"},
  "placements": {"b": {"url": "http://b"}, "d": {"url": "http://d", "fallback": «"b"},
                 "c": {"url": "http://c", "fallback": "d"}}"#,
        ),
        &[(
            "/placements/d/fallback",
            "fallbacks lead in a circle: d -> b (by defaults) -> c -> d \
             (to end it, give b \"fallback\": null)",
        )],
    );
}

#[test]
fn chains_have_a_limit() {
    const CHAIN: &str = "b>c c>d d>e e>f f>g g>h h>i i>j j>-";
    let table = compiled(&declared(CHAIN));
    assert_eq!(fallbacks(&table)[7..], [("i", Some("j")), ("j", None)]);
    // A problem for each that has to go, not for what leads there.
    let rest = "b -> c -> d -> e -> f -> g -> h -> i -> j";
    let too_long = |first: &str| format!("fallback chain of 9 hops (at most 8): {first} -> {rest}");
    assert_marked(
        &document(&declared(&format!("y>z z>a a>«b x>«b {CHAIN}"))),
        &[
            ("/placements/a/fallback", &too_long("a")),
            ("/placements/x/fallback", &too_long("x")),
        ],
    );
    // Once, where all that are too long have the same one by default.
    assert_marked(
        &document(&format!(
            "\"defaults\": {{\"fallback\": «\"b\"}},\n{},\n{}",
            r#""cellEndpoints": {"x": "http://x", "y": "http://y"}"#,
            declared(CHAIN),
        )),
        &[("/defaults/fallback", &too_long("x (by defaults)"))],
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
fn a_long_circle_is_cut_in_words() {
    const COUNT: usize = 50;
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
            "fallbacks lead in a circle: {} -> … 30 more … -> p0",
            named.join(" -> ")
        )
    );
}

/// `placements` with fallbacks such as `a>b c>-`, the last being null; a mark
/// before a name stays before it.
fn declared(fallbacks: &str) -> String {
    let placements: Vec<String> = fallbacks
        .split(' ')
        .map(|link| {
            let (from, to) = link.split_once('>').unwrap();
            let to = match (to, to.strip_prefix('«')) {
                ("-", _) => "null".to_owned(),
                (_, Some(to)) => format!("«\"{to}\""),
                (to, None) => format!("\"{to}\""),
            };
            format!(r#""{from}": {{"url": "http://c", "fallback": {to}}}"#)
        })
        .collect();
    format!("\"placements\": {{{}}}", placements.join(", "))
}
