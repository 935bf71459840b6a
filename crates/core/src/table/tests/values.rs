//! Every problem that a single value or key outside of `placements` can have,
//! with its exact place and words.

use super::problems::{Expected, assert_problems, broken};

#[test]
fn each_bad_value_is_one_problem() {
    let cases: &[(&str, &str, Expected<'_>)] = &[
        // Versions.
        (
            r#""1.0.0""#,
            r#""""#,
            (
                "/version",
                2,
                14,
                r#"empty version (give each change one, such as "1.0.0")"#,
            ),
        ),
        (
            r#""1.0.0""#,
            r#""  ""#,
            (
                "/version",
                2,
                14,
                r#"empty version (give each change one, such as "1.0.0")"#,
            ),
        ),
        (
            r#""1.0.0""#,
            r#""1\n0""#,
            (
                "/version",
                2,
                14,
                "version with the control character U+000A",
            ),
        ),
        (
            r#""1.0.0""#,
            "1.0",
            ("/version", 2, 14, "expected a string, found the number 1.0"),
        ),
        (
            r#""1.0.0""#,
            "null",
            ("/version", 2, 14, "expected a string, found null"),
        ),
        (
            r#""1.0.0""#,
            r#""\ud800""#,
            (
                "/version",
                2,
                14,
                "string with half of a surrogate pair (\\ud800 to \\udfff stand for text in pairs only)",
            ),
        ),
        // References.
        (
            r#""acme": "tier1""#,
            r#""acme": "tier9""#,
            (
                "/routingTable/acme",
                4,
                13,
                r#"unknown placement "tier9" (known: tier1, visa; did you mean "tier1"?)"#,
            ),
        ),
        (
            r#""acme": "tier1""#,
            r#""acme": """#,
            (
                "/routingTable/acme",
                4,
                13,
                r#"unknown placement "" (known: tier1, visa)"#,
            ),
        ),
        (
            r#""acme": "tier1""#,
            r#""zürich/€~": "Visa""#,
            (
                "/routingTable/zürich~1€~0",
                4,
                18,
                r#"unknown placement "Visa" (known: tier1, visa; did you mean "visa"?)"#,
            ),
        ),
        (
            r#""defaultPlacement": "tier1""#,
            r#""defaultPlacement": "mastercard""#,
            (
                "/defaultPlacement",
                11,
                23,
                r#"unknown placement "mastercard" (known: tier1, visa)"#,
            ),
        ),
        // Wrong types.
        (
            r#""acme": "tier1""#,
            r#""acme": ["tier1"]"#,
            (
                "/routingTable/acme",
                4,
                13,
                "expected a string, found an array",
            ),
        ),
        (
            r#""http://cell-visa:9004""#,
            r#"{"url": "http://cell-visa:9004"}"#,
            (
                "/cellEndpoints/visa",
                9,
                13,
                "expected a string, found an object",
            ),
        ),
        (
            r#""defaultPlacement": "tier1""#,
            r#""defaultPlacement": true"#,
            ("/defaultPlacement", 11, 23, "expected a string, found true"),
        ),
        // Routing keys.
        (
            r#""acme":"#,
            r#""":"#,
            (
                "/routingTable/",
                4,
                5,
                "empty routing key (a request without a key is answered 400)",
            ),
        ),
        (
            r#""acme":"#,
            r#"" acme":"#,
            (
                "/routingTable/ acme",
                4,
                5,
                "routing key with white space at its start or end, which is stripped from headers",
            ),
        ),
        (
            r#""acme":"#,
            r#""ac\u0000me":"#,
            (
                "/routingTable/ac\0me",
                4,
                5,
                "routing key with the control character U+0000, which no header can carry",
            ),
        ),
        (
            r#""acme":"#,
            r#""ac\udc00me":"#,
            (
                "/routingTable",
                4,
                5,
                "string with half of a surrogate pair (\\ud800 to \\udfff stand for text in pairs only)",
            ),
        ),
        // Placements.
        (
            r#""visa": "http://cell-visa:9004""#,
            r#""visa": "http://cell-visa:9004", "": "http://x""#,
            ("/cellEndpoints/", 9, 38, "empty placement name"),
        ),
        (
            r#""visa": "http://cell-visa:9004""#,
            r#""visa": "http://cell-visa:9004", "a b": "http://x""#,
            (
                "/cellEndpoints/a b",
                9,
                38,
                "placement name with the character U+0020; valid is printable ASCII without spaces, \
                 as the name is sent in the header X-Routed-To",
            ),
        ),
        (
            r#""visa": "http://cell-visa:9004""#,
            r#""visa": "http://cell-visa:9004", "ü": "http://x""#,
            (
                "/cellEndpoints/ü",
                9,
                38,
                "placement name with the character 'ü' (U+00FC); valid is printable ASCII without spaces, \
                 as the name is sent in the header X-Routed-To",
            ),
        ),
        // Endpoints; the full list is with their parser.
        (
            "http://cell-visa:9004",
            "http://cell-visa:9004/api",
            (
                "/cellEndpoints/visa",
                9,
                13,
                "endpoint \"http://cell-visa:9004/api\" has the path \"/api\", which would be dropped \
                 (requests keep their own path and query)",
            ),
        ),
        (
            "http://cell-visa:9004",
            "",
            (
                "/cellEndpoints/visa",
                9,
                13,
                "empty endpoint (valid: http://host:port or https://host:port)",
            ),
        ),
        // Duplicates.
        (
            r#""visa": "visa""#,
            r#""\u0061cme": "visa""#,
            (
                "/routingTable/acme",
                5,
                5,
                "duplicate key, first given at line 4 column 5",
            ),
        ),
        (
            r#""visa": "http://cell-visa:9004""#,
            r#""visa": "http://cell-visa:9004", "visa": "http://cell-visa:9004""#,
            (
                "/cellEndpoints/visa",
                9,
                38,
                "duplicate key, first given at line 9 column 5",
            ),
        ),
        (
            r#""defaultPlacement": "tier1""#,
            r#""defaultPlacement": "tier1", "version": "1.0.1""#,
            (
                "/version",
                11,
                32,
                "duplicate key, first given at line 2 column 3",
            ),
        ),
        // Fields.
        (
            r#""defaultPlacement": "tier1""#,
            r#""defaultPlacement": "tier1", "cells": {}"#,
            (
                "/cells",
                11,
                32,
                "unknown field \"cells\" \
                 (known: version, routingTable, defaults, placements, cellEndpoints, defaultPlacement)",
            ),
        ),
    ];
    for (from, to, expected) in cases {
        assert_problems(broken(from, to).as_bytes(), &[*expected]);
    }
}
