//! Every problem that `placements` and `defaults` can have, with its place and
//! words. A mark `«` stands before each value that one is expected at.

use super::policy_problems::{DURATION, INTERVAL};
use super::problems::{Expected, assert_problems};

/// Asserts one problem a mark, in order: its pointer and message.
#[track_caller]
pub(super) fn assert_marked(marked: &str, expected: &[(&str, &str)]) {
    let (mut line, mut column, mut places) = (1, 1, Vec::new());
    for character in marked.chars() {
        match character {
            '«' => places.push((line, column)),
            '\n' => (line, column) = (line + 1, 1),
            _ => column += 1,
        }
    }
    assert_eq!(places.len(), expected.len(), "marks in {marked}");
    let problems: Vec<Expected<'_>> = places
        .into_iter()
        .zip(expected)
        .map(|((line, column), (pointer, message))| (*pointer, line, column, *message))
        .collect();
    assert_problems(marked.replace('«', "").as_bytes(), &problems);
}

/// A document whose placement `a` has `fields` besides its URL.
pub(super) fn placement(fields: &str) -> String {
    document(&format!(
        r#""placements": {{"b": {{"url": "http://b"}},
  "a": {{"url": "http://a", {fields}}}}}"#
    ))
}

pub(super) fn defaults(fields: &str) -> String {
    document(&format!(
        "\"defaults\": {{{fields}}},\n \"placements\": {{\"b\": {{\"url\": \"http://b\"}}}}"
    ))
}

/// A document with `fields` for its placements, of which one is called `b`.
pub(super) fn document(fields: &str) -> String {
    format!(
        "{{\"version\": \"2\", \"routingTable\": {{\"k\": \"b\"}},\n {fields},\n \"defaultPlacement\": \"b\"}}"
    )
}

const FIELDS: &str = "known: fallback, tenancy, load_balancing, health_check, circuit_breaker, \
                      concurrency_limit, max_request_body_bytes, timeouts, retries, host_header";
pub(super) const PLACEMENT_FIELDS: &str = "known: url, endpoints, fallback, tenancy, load_balancing, health_check, \
                                circuit_breaker, concurrency_limit, max_request_body_bytes, timeouts and 2 more";

pub(super) const NULL: &str = "out; in a placement, null switches off: health_check, circuit_breaker, \
                    concurrency_limit, max_request_body_bytes, fallback, tenancy)";

#[test]
fn long_lists_and_values_are_refused() {
    let statuses = vec!["200"; 101].join(",");
    assert_marked(
        &placement(&format!(
            "\"health_check\": {{\"expected_status\": «[{statuses}]}}"
        )),
        &[(
            "/placements/a/health_check/expected_status",
            "101 statuses (valid: 1 to 100, such as [200, \"300-399\"])",
        )],
    );
    let path = "x".repeat(1024);
    assert_marked(
        &placement(&format!("\"health_check\": {{\"path\": «\"/{path}\"}}")),
        &[(
            "/placements/a/health_check/path",
            "path of 1025 bytes (at most 1024)",
        )],
    );
    let endpoints: Vec<_> = (0..1001)
        .map(|n| format!("{{\"url\": \"http://c{n}\"}}"))
        .collect();
    assert_marked(
        &document(&format!(
            "\"placements\": {{\"b\": {{\"endpoints\": «[{}]}}}}",
            endpoints.join(",")
        )),
        &[(
            "/placements/b/endpoints",
            "1001 endpoints (valid: 1 to 1000)",
        )],
    );
}

#[test]
fn what_defaults_may_not_say() {
    assert_marked(
        &defaults(r#"«"url": "http://c""#),
        &[(
            "/defaults/url",
            &format!("unknown field \"url\" ({FIELDS})"),
        )],
    );
    for field in [
        "health_check",
        "circuit_breaker",
        "concurrency_limit",
        "max_request_body_bytes",
        "fallback",
        "tenancy",
    ] {
        let message = format!("null has no meaning here (leave \"{field}\" {NULL}");
        let fields = format!("\"{field}\": «null");
        assert_marked(
            &defaults(&fields),
            &[(&format!("/defaults/{field}"), &message)],
        );
    }
    assert_marked(
        &document(r#""defaults": «null, "placements": {"b": {"url": "http://b"}}"#),
        &[(
            "/defaults",
            "null has no meaning here (leave \"defaults\" out)",
        )],
    );
    assert_marked(
        &document("\"defaults\": «[], \"placements\": {\"b\": {\"url\": \"http://b\"}}"),
        &[(
            "/defaults",
            "expected an object, found an array ({} is one with all defaults)",
        )],
    );
}

#[test]
fn a_placement_is_declared_once() {
    for (first, second, message) in [
        (
            r#""cellEndpoints": {"b": "http://b"}"#,
            r#""placements": {«"b": {"url": "http://b"}}"#,
            "placement in cellEndpoints and placements, first given at line 2 column 20",
        ),
        (
            r#""placements": {"b": {"url": "http://b"}}"#,
            r#""cellEndpoints": {«"b": "http://b"}"#,
            "placement in placements and cellEndpoints, first given at line 2 column 17",
        ),
    ] {
        let pointer = if second.starts_with("\"p") {
            "/placements/b"
        } else {
            "/cellEndpoints/b"
        };
        assert_marked(
            &document(&format!("{first},\n {second}")),
            &[(pointer, message)],
        );
    }
    assert_marked(
        "«{\"version\": \"2\", \"routingTable\": {\"k\": \"b\"}, \"defaultPlacement\": \"b\"}",
        &[("", "missing field \"placements\" (or \"cellEndpoints\")")],
    );
}

#[test]
fn all_problems_of_all_places_come_at_once() {
    assert_marked(
        r#"{"version": "2", "routingTable": {"k": «"tier9"},
 "defaults": {"timeouts": {«"conect": "1s"}, "fallback": «"d"},
 "cellEndpoints": {"a": «"http:/a"},
 "placements": {
  "b": {"url": «"b", "health_check": {"interval": «5, "timeout": «6}, "fallback": «"e"},
  "c": {"endpoints": [{"url": "http://c", "weight": «"2"}, «7]}},
 "defaultPlacement": «"z"}"#,
        &[
            (
                "/routingTable/k",
                r#"unknown placement "tier9" (known: a, b, c)"#,
            ),
            (
                "/defaults/timeouts/conect",
                "unknown field \"conect\" (known: connect, response_header, request, stream_idle, \
                 upstream_idle; did you mean \"connect\"?)",
            ),
            (
                "/defaults/fallback",
                r#"unknown placement "d" (known: a, b, c; did you mean "a"?)"#,
            ),
            (
                "/cellEndpoints/a",
                r#"endpoint "http:/a" has no scheme (write "http://a")"#,
            ),
            (
                "/placements/b/url",
                r#"endpoint "b" has no scheme (write "http://b")"#,
            ),
            (
                "/placements/b/health_check/interval",
                &format!("{INTERVAL}the number 5 without a unit (write \"5s\" or \"5ms\")"),
            ),
            (
                "/placements/b/health_check/timeout",
                &format!("{DURATION}the number 6 without a unit (write \"6s\" or \"6ms\")"),
            ),
            (
                "/placements/b/fallback",
                r#"unknown placement "e" (known: a, b, c; did you mean "a"?)"#,
            ),
            (
                "/placements/c/endpoints/0/weight",
                "expected a whole number from 1 to 1000, found a string",
            ),
            (
                "/placements/c/endpoints/1",
                "expected an object such as {\"url\": \"http://host:port\"}, found the number 7",
            ),
            (
                "/defaultPlacement",
                r#"unknown placement "z" (known: a, b, c; did you mean "a"?)"#,
            ),
        ],
    );
}
