//! Documents that are no JSON, or far too much of it.

use std::time::Instant;

use super::super::{Problem, compile};
use super::placements::document;
use super::problems::{Expected, assert_problems, broken};

#[test]
fn what_is_not_json() {
    let cases: &[(&[u8], Expected<'_>)] = &[
        (b"", ("", 1, 1, "the document is empty")),
        (b" \n\n", ("", 1, 1, "the document is empty")),
        (b"\0\0\0\0", ("", 1, 1, "not valid JSON: expected value")),
        (
            b"{\n  \"version\": \"1.0.0\",\n",
            (
                "",
                2,
                22,
                "not valid JSON: the document ends too early: EOF while parsing an object",
            ),
        ),
        (
            b"{\"version\": \"1.0",
            (
                "",
                1,
                17,
                "not valid JSON: the document ends too early: EOF while parsing a string",
            ),
        ),
        (
            "{\n  \"ü\": ü\n}".as_bytes(),
            ("", 2, 8, "not valid JSON: expected value"),
        ),
        (
            b"{\"version\": \"1\",}",
            ("", 1, 16, "not valid JSON: comma before a closing bracket"),
        ),
        (b"{} {}", ("", 1, 4, "not valid JSON: trailing characters")),
        (
            b"{\"version\": \"1\n\"}",
            (
                "",
                1,
                14,
                "not valid JSON: control character (\\u0000-\\u001F) found while parsing a string",
            ),
        ),
        (
            b"[]",
            (
                "",
                1,
                1,
                "expected an object with the fields version, routingTable, placements or cellEndpoints, defaultPlacement; \
                 found an array",
            ),
        ),
        (
            b"{\n\"\xc3\xbc\": \"\xff\"}",
            ("", 2, 7, "not valid UTF-8: invalid byte 0xff"),
        ),
        (
            b"{\"\xc3",
            ("", 1, 3, "not valid UTF-8: it ends within a character"),
        ),
        (
            b"\xff\xfe{\0",
            ("", 1, 1, "not valid UTF-8: it looks like UTF-16"),
        ),
    ];
    for (document, expected) in cases {
        assert_problems(document, &[*expected]);
    }
    let marked = format!("\u{feff}{}", broken("tier1\"\n}", "tier9\"\n}"));
    assert_problems(
        marked.as_bytes(),
        &[
            (
                "",
                1,
                1,
                "starts with a byte order mark, which JSON must not have (save it as UTF-8 without BOM)",
            ),
            (
                "/defaultPlacement",
                11,
                23,
                r#"unknown placement "tier9" (known: tier1, visa; did you mean "tier1"?)"#,
            ),
        ],
    );
}

#[test]
fn many_problems_are_counted() {
    let document = |bad: usize| {
        let entries: Vec<String> = (0..bad).map(|n| format!(r#""k{n}": "tier9""#)).collect();
        broken(r#""acme": "tier1","#, &format!("{},", entries.join(",\n")))
    };
    for (bad, reported, last) in [
        (100, 100, None),
        (101, 101, Some("and 1 more problem")),
        (5_000, 101, Some("and 4900 more problems")),
    ] {
        let problems = compile(document(bad).as_bytes()).unwrap_err();
        assert_eq!(problems.len(), reported);
        assert!(problems[..100].iter().all(|problem| problem.line > 0));
        if let Some(last) = last {
            assert_eq!(problems[100], Problem::without_place(last));
        }
    }
}

/// Only what is reported is put into words: comparing names for each of a
/// million unknown fields would take a minute. Measured against keys that are
/// as many and as wrong, but need no comparison.
#[test]
fn what_is_only_counted_costs_no_words() {
    const COUNT: usize = 50_000;
    let many: Vec<_> = (0..COUNT).map(|n| format!(r#""k{n:05}": null"#)).collect();
    let many = many.join(",");
    let time = |document: String| {
        let times = (0..3).map(|_| {
            let start = Instant::now();
            let problems = compile(document.as_bytes()).unwrap_err();
            let took = start.elapsed();
            let counted = format!("and {} more problems", COUNT - 100);
            assert_eq!((problems.len(), &problems[100].message), (101, &counted));
            took
        });
        times.min().unwrap()
    };
    let keys = time(broken(r#""acme": "tier1","#, &format!("{many},")));
    let fields = format!(r#""placements": {{"b": {{"url": "http://b", {many}}}}}"#);
    let fields = time(document(&fields));
    assert!(fields < 6 * keys, "{fields:?} against {keys:?}");
}

#[test]
fn hostile_sizes_stay_bounded() {
    // No recursion, so no depth can overflow the stack.
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(200_000), close.repeat(200_000));
        assert_eq!(
            compile(deep.as_bytes()).map(drop).unwrap_err().len(),
            if open == "[" { 1 } else { 5 }
        );
        let nested = broken(r#""1.0.0""#, &deep);
        assert_eq!(compile(nested.as_bytes()).unwrap_err().len(), 1);
        let in_array = open == "[";
        for (fields, pointer) in [
            (r#""url": "#, "/url"),
            (
                r#""endpoints": "#,
                if in_array {
                    "/endpoints/0"
                } else {
                    "/endpoints"
                },
            ),
            (
                r#""url": "http://b", "retries": "#,
                if in_array { "/retries" } else { "/retries/a" },
            ),
            (
                r#""url": "http://b", "health_check": {"expected_status": "#,
                if in_array {
                    "/health_check/expected_status/0"
                } else {
                    "/health_check/expected_status"
                },
            ),
        ] {
            let end = if fields.contains(": {") { "}" } else { "" };
            let placements = format!(r#""placements": {{"b": {{{fields}{deep}{end}}}}}"#);
            let problems = compile(document(&placements).as_bytes()).unwrap_err();
            let pointers: Vec<_> = problems.iter().map(|problem| &*problem.pointer).collect();
            assert_eq!(pointers, [format!("/placements/b{pointer}")]);
        }
        assert!(compile(open.repeat(200_000).as_bytes()).is_err());
    }
    // What a problem quotes is short, however long the value.
    let long = "x".repeat(1_000_000);
    let document = broken(r#""acme": "tier1""#, &format!(r#""{long}": "{long}""#));
    let problems = compile(document.as_bytes()).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].pointer, "/routingTable");
    assert!(problems[0].to_string().len() < 500);
    let document = broken("http://cell-visa:9004", &format!("http://{long}"));
    assert!(
        compile(document.as_bytes()).unwrap_err()[0]
            .to_string()
            .len()
            < 500
    );
}
