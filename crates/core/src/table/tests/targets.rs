//! Every problem that `url` and `endpoints` of a placement can have.

use super::placements::{NULL, PLACEMENT_FIELDS, assert_marked, document};

#[test]
fn where_a_placement_may_not_be() {
    let endpoint = |what: &str| format!(r#""b": {{"endpoints": [{{"url": "http://c"}}, {what}]}}"#);
    let cases = [
        (
            r#""b": «{}"#.to_owned(),
            "/placements/b",
            "missing field \"url\" (or \"endpoints\" for several)",
        ),
        (
            r#""b": {"url": "http://b", "endpoints": «[{"url": "http://c"}]}"#.to_owned(),
            "/placements/b/endpoints",
            "endpoints beside a url (keep one of them)",
        ),
        (
            r#""b": «"http://b""#.to_owned(),
            "/placements/b",
            "expected an object with a url or endpoints, found a string \
             (write {\"url\": \"http://host:port\"}, or move it to cellEndpoints)",
        ),
        (
            r#""b": «null"#.to_owned(),
            "/placements/b",
            "expected an object with a url or endpoints, found null",
        ),
        (
            r#""b": {"url": «5}"#.to_owned(),
            "/placements/b/url",
            "expected a string, found the number 5",
        ),
        (
            r#""b": {"url": «"b:9001"}"#.to_owned(),
            "/placements/b/url",
            "endpoint \"b:9001\" has no scheme (write \"http://b:9001\")",
        ),
        (
            r#""b": {"endpoints": «"http://b"}"#.to_owned(),
            "/placements/b/endpoints",
            "expected an array such as [{\"url\": \"http://host:port\"}], found a string",
        ),
        (
            r#""b": {"endpoints": «[]}"#.to_owned(),
            "/placements/b/endpoints",
            "0 endpoints (valid: 1 to 1000)",
        ),
        // What was meant for one of the two is not missing as well.
        (
            r#""b": {«"urls": "http://b"}"#.to_owned(),
            "/placements/b/urls",
            &format!("unknown field \"urls\" ({PLACEMENT_FIELDS}; did you mean \"url\"?)"),
        ),
        (
            r#""b": {«"Endpoints": []}"#.to_owned(),
            "/placements/b/Endpoints",
            &format!(
                "unknown field \"Endpoints\" ({PLACEMENT_FIELDS}; did you mean \"endpoints\"?)"
            ),
        ),
        (
            endpoint("{«\"uri\": \"http://b\"}"),
            "/placements/b/endpoints/1/uri",
            "unknown field \"uri\" (known: url, weight; did you mean \"url\"?)",
        ),
        // Nor is what is unknown and null a second problem.
        (
            r#""b": {"url": "http://b", «"tires": null}"#.to_owned(),
            "/placements/b/tires",
            &format!("unknown field \"tires\" ({PLACEMENT_FIELDS})"),
        ),
        (
            endpoint("«\"http://b\""),
            "/placements/b/endpoints/1",
            "expected an object such as {\"url\": \"http://host:port\"}, found a string",
        ),
        (
            endpoint("«{\"weight\": 2}"),
            "/placements/b/endpoints/1",
            "missing field \"url\"",
        ),
        (
            endpoint(r#"{"url": "http://b", "weight": «0}"#),
            "/placements/b/endpoints/1/weight",
            "expected a whole number from 1 to 1000, found the number 0",
        ),
        (
            endpoint(r#"{"url": "http://b", "weight": «1001}"#),
            "/placements/b/endpoints/1/weight",
            "expected a whole number from 1 to 1000, found the number 1001",
        ),
        (
            endpoint(r#"{"url": "http://b", «"wieght": 1}"#),
            "/placements/b/endpoints/1/wieght",
            "unknown field \"wieght\" (known: url, weight; did you mean \"weight\"?)",
        ),
        (
            endpoint(r#"{"url": «"http://b:0"}"#),
            "/placements/b/endpoints/1/url",
            "endpoint \"http://b:0\" has the port \"0\" (valid: 1 to 65535)",
        ),
        (
            endpoint(r#"{"url": «"HTTP://C:80/"}"#),
            "/placements/b/endpoints/1/url",
            "duplicate endpoint http://c:80, first given at line 2 column 45",
        ),
        (
            r#""b": {"url": "http://b"}, «"b c": {"url": "http://c"}"#.to_owned(),
            "/placements/b c",
            "placement name with the character U+0020; valid is printable ASCII without spaces, \
             as the name is sent in the header X-Routed-To",
        ),
        (
            r#""b": {"url": "http://b"}, «"b": {"url": "http://c"}"#.to_owned(),
            "/placements/b",
            "duplicate key, first given at line 2 column 17",
        ),
        (
            r#""b": {"url": "http://b", «"url": "http://c"}"#.to_owned(),
            "/placements/b/url",
            "duplicate key, first given at line 2 column 23",
        ),
        (
            r#""b": {"url": "http://b", «"concurency_limit": 5}"#.to_owned(),
            "/placements/b/concurency_limit",
            &format!(
                "unknown field \"concurency_limit\" ({PLACEMENT_FIELDS}; did you mean \"concurrency_limit\"?)"
            ),
        ),
    ];
    for (placements, pointer, message) in cases {
        let fields = format!("\"placements\": {{{placements}}}");
        assert_marked(&document(&fields), &[(pointer, message)]);
    }
    let null = |field: &str| format!("null has no meaning here (leave \"{field}\" {NULL}");
    for (fields, expected) in [
        (r#""url": «null"#, vec![("url", null("url"))]),
        (
            r#""url": «null, "endpoints": [{"url": "http://b"}]"#,
            vec![("url", null("url"))],
        ),
        (
            r#""url": "http://b", "endpoints": «null"#,
            vec![("endpoints", null("endpoints"))],
        ),
        (
            r#""url": «null, "endpoints": «null"#,
            vec![("url", null("url")), ("endpoints", null("endpoints"))],
        ),
    ] {
        let expected: Vec<_> = expected
            .iter()
            .map(|(field, message)| (format!("/placements/b/{field}"), message))
            .collect();
        let expected: Vec<(&str, &str)> = expected
            .iter()
            .map(|(pointer, message)| (&**pointer, &***message))
            .collect();
        assert_marked(
            &document(&format!(r#""placements": {{"b": {{{fields}}}}}"#)),
            &expected,
        );
    }
    // Far from both, and all problems at once.
    assert_marked(
        &document(r#""placements": {"b": «{«"address": "http://b"}}"#),
        &[
            (
                "/placements/b",
                "missing field \"url\" (or \"endpoints\" for several)",
            ),
            (
                "/placements/b/address",
                &format!("unknown field \"address\" ({PLACEMENT_FIELDS})"),
            ),
        ],
    );
    assert_marked(
        &document(r#""placements": «["b"]"#),
        &[(
            "/placements",
            "expected an object of placements, found an array",
        )],
    );
    assert_marked(
        &document(
            r#""placements": {"b": {"endpoints": [{"url": "http://b"}, {"url": "http://c"}, {"url": «"http://b:80"}]}}"#,
        ),
        &[(
            "/placements/b/endpoints/2/url",
            "duplicate endpoint http://b:80, first given at line 2 column 45",
        )],
    );
}
