//! Problems that a document has at its top and across its fields, with their
//! exact places and words.

use super::super::{Problem, compile};

/// A valid document, one value a line; the cases below break it in one place.
const VALID: &str = r#"{
  "version": "1.0.0",
  "routingTable": {
    "acme": "tier1",
    "visa": "visa"
  },
  "cellEndpoints": {
    "tier1": "http://cell-tier1:9001",
    "visa": "http://cell-visa:9004"
  },
  "defaultPlacement": "tier1"
}
"#;

pub(super) type Expected<'a> = (&'a str, u32, u32, &'a str);

#[track_caller]
pub(super) fn assert_problems(document: &[u8], expected: &[Expected<'_>]) {
    let problems = compile(document).expect_err("the document is valid");
    let found: Vec<Expected<'_>> = problems
        .iter()
        .map(
            |Problem {
                 pointer,
                 line,
                 column,
                 message,
             }| (&**pointer, *line, *column, &**message),
        )
        .collect();
    assert_eq!(found, expected, "in {}", String::from_utf8_lossy(document));
}

/// The valid document with `from`, which it has once, replaced.
#[track_caller]
pub(super) fn broken(from: &str, to: &str) -> String {
    assert_eq!(VALID.matches(from).count(), 1, "{from}");
    VALID.replace(from, to)
}

#[test]
fn the_base_of_these_cases_is_valid() {
    compile(VALID.as_bytes()).unwrap();
}

#[test]
fn a_misspelled_field_is_missing_and_unknown() {
    assert_problems(
        broken(r#""version""#, r#""Version""#).as_bytes(),
        &[
            ("", 1, 1, "missing field \"version\""),
            (
                "/Version",
                2,
                3,
                "unknown field \"Version\" (known: version, routingTable, defaults, placements, cellEndpoints, defaultPlacement; \
                 did you mean \"version\"?)",
            ),
        ],
    );
}

#[test]
fn fields_of_the_wrong_type_are_not_reported_again_by_what_needs_them() {
    assert_problems(
        br#"{"version": "1", "routingTable": {"acme": "tier1"}, "cellEndpoints": [], "defaultPlacement": "tier1"}"#,
        &[("/cellEndpoints", 1, 70, "expected an object of placements and URLs, found an array")],
    );
    assert_problems(
        br#"{"version": "1", "routingTable": "acme", "cellEndpoints": {"tier1": "http://t"}, "defaultPlacement": "tier1"}"#,
        &[("/routingTable", 1, 34, "expected an object of routing keys and placements, found a string")],
    );
    // An endpoint that is wrong is still one that keys may name.
    assert_problems(
        broken("http://cell-tier1:9001", "cell-tier1:9001").as_bytes(),
        &[(
            "/cellEndpoints/tier1",
            8,
            14,
            r#"endpoint "cell-tier1:9001" has no scheme (write "http://cell-tier1:9001")"#,
        )],
    );
    // An empty object does define all there is: nothing.
    assert_problems(
        br#"{"version": "1", "routingTable": {}, "cellEndpoints": {}, "defaultPlacement": "tier1"}"#,
        &[("/defaultPlacement", 1, 79, r#"unknown placement "tier1" (known: none)"#)],
    );
}

#[test]
fn all_problems_come_at_once_and_in_order() {
    let document = r#"{
  "version": "",
  "routingTable": {"acme": "tier9", "visa": 4, "acme": "visa"},
  "cellEndpoints": {"tier1": "tcp://x", "visa": "http://cell-visa:0"},
  "extra": {}
}"#;
    assert_problems(
        document.as_bytes(),
        &[
            ("", 1, 1, "missing field \"defaultPlacement\""),
            (
                "/version",
                2,
                14,
                r#"empty version (give each change one, such as "1.0.0")"#,
            ),
            (
                "/routingTable/acme",
                3,
                28,
                r#"unknown placement "tier9" (known: tier1, visa; did you mean "tier1"?)"#,
            ),
            (
                "/routingTable/visa",
                3,
                45,
                "expected a string, found the number 4",
            ),
            (
                "/routingTable/acme",
                3,
                48,
                "duplicate key, first given at line 3 column 20",
            ),
            (
                "/cellEndpoints/tier1",
                4,
                30,
                r#"endpoint "tcp://x" has the scheme "tcp" (valid: http, https)"#,
            ),
            (
                "/cellEndpoints/visa",
                4,
                49,
                r#"endpoint "http://cell-visa:0" has the port "0" (valid: 1 to 65535)"#,
            ),
            (
                "/extra",
                5,
                3,
                "unknown field \"extra\" (known: version, routingTable, defaults, placements, cellEndpoints, defaultPlacement)",
            ),
        ],
    );
}

#[test]
fn the_example_of_the_documentation() {
    let document = r#"{"version": "1.0.1",
 "cellEndpoints": {"tier1": "http://a", "tier2": "http://b", "tier3": "http://c", "visa": "http://d"},
 "defaultPlacement": "tier3", "routingTable": {
    "acme": "tier9"}}"#;
    let problems = compile(document.as_bytes()).unwrap_err();
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            r#"routingTable["acme"]: unknown placement "tier9" (known: tier1, tier2, tier3, visa; did you mean "tier1"?) at line 4 column 13"#
        ]
    );
    assert_eq!(
        serde_json::to_value(&problems).unwrap(),
        serde_json::json!([{
            "pointer": "/routingTable/acme", "line": 4, "column": 13,
            "message": "unknown placement \"tier9\" (known: tier1, tier2, tier3, visa; did you mean \"tier1\"?)",
        }])
    );
}
