use super::*;
use crate::exchange::tests::Fixture;

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, HeaderValue::from_static(value));
    }
    map
}

/// The fields after the changes, sorted.
fn changed(mut fields: HeaderMap, changes: Changes) -> Vec<String> {
    for change in changes {
        match change {
            Change::Remove(name) => drop(fields.remove(name)),
            Change::Set(name, value) => {
                let name = HeaderName::from_bytes(name.as_bytes());
                fields.insert(name.expect("a name"), value);
            }
        }
    }
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        format!("{name}: {}", value.to_str().expect("text"))
    };
    let mut lines: Vec<String> = fields.iter().map(line).collect();
    lines.sort();
    lines
}

#[test]
fn a_cell_is_told_whom_a_request_comes_from() {
    const CLAIMS: &[(&str, &str)] = &[
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-for", "5.6.7.8"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil"),
        ("forwarded", "for=1.2.3.4"),
        ("host", "real"),
        ("x-request-id", "theirs"),
    ];
    let fixture = Fixture::new(serde_json::json!({}));
    let told = |version, trusted, target: &str, fields: &[(&'static str, &'static str)]| {
        let exchange = fixture.admitted(Method::GET, version);
        let fields = map(fields);
        let changes = to_cell(&exchange, trusted, target.as_bytes(), &fields);
        changed(fields, changes)
    };
    let client = |host: &str| {
        let mut lines = vec![
            format!("host: {host}"),
            "x-forwarded-for: 192.0.2.7".to_owned(),
            format!("x-forwarded-host: {host}"),
            "x-forwarded-proto: http".to_owned(),
            "x-request-id: id-1".to_owned(),
        ];
        lines.sort();
        lines
    };
    let (old, new) = (Version::HTTP_10, Version::HTTP_11);
    // An untrusted client is not believed.
    assert_eq!(told(new, false, "/", CLAIMS), client("real"));
    assert_eq!(
        told(new, true, "/", CLAIMS),
        [
            "forwarded: for=1.2.3.4",
            "host: real",
            "x-forwarded-for: 1.2.3.4, 5.6.7.8, 192.0.2.7",
            "x-forwarded-host: evil",
            "x-forwarded-proto: https",
            "x-request-id: id-1",
        ]
    );
    for trusted in [false, true] {
        assert_eq!(told(new, trusted, "/", &[("host", "a:80")]), client("a:80"));
        assert_eq!(told(old, trusted, "/", &[]), client(""));
        assert_eq!(told(old, trusted, "http://h:1?q", &[]), client("h:1"));
    }
    let expects = [("host", "a"), ("expect", "100-continue")];
    assert_eq!(told(old, false, "/", &expects), client("a"));
    assert_eq!(told(new, false, "/", &expects).len(), 6);
}

#[test]
fn a_placement_chooses_the_host_that_its_cells_get() {
    for (policy, host) in [
        ("preserve", "client.example"),
        ("rewrite", "127.0.0.1:9001"),
        ("fixed.example", "fixed.example"),
    ] {
        let fixture = Fixture::new(serde_json::json!({"host_header": policy}));
        let exchange = fixture.admitted(Method::GET, Version::HTTP_11);
        let fields = map(&[("host", "client.example")]);
        let changes = to_cell(&exchange, false, b"/", &fields);
        let lines = changed(fields, changes);
        assert!(lines.contains(&format!("host: {host}")), "{lines:?}");
        assert!(lines.contains(&"x-forwarded-host: client.example".to_owned()));
    }
}

#[test]
fn cells_get_origin_form() {
    for (method, target, sent) in [
        (Method::GET, "/a?b", None),
        (Method::GET, "/a?b=http://h/", None),
        (Method::GET, "http://h/a?b", Some("/a?b")),
        (Method::GET, "http://h", Some("/")),
        (Method::GET, "http://h?q", Some("/?q")),
        (Method::OPTIONS, "http://h:1", Some("*")),
        (Method::OPTIONS, "http://h/", Some("/")),
        (Method::OPTIONS, "*", None),
    ] {
        let origin = origin_form(&method, target.as_bytes());
        assert_eq!(
            origin.as_deref(),
            sent.map(str::as_bytes),
            "{method} {target}"
        );
    }
}

/// What is left of an answer's fields, without those that the edge sets.
fn passed(
    version: Version,
    status: u16,
    fields: &[(&'static str, &'static str)],
) -> (Vec<String>, bool) {
    let fixture = Fixture::new(serde_json::json!({}));
    let exchange = fixture.admitted(Method::GET, version);
    let (mut fields, status) = (map(fields), StatusCode::from_u16(status).expect("one"));
    let changes = to_client(&exchange, status, &fields);
    for change in &changes {
        if let Change::Remove(name) = change {
            fields.remove(name);
        }
    }
    let delimited = is_delimited(&exchange.request, status, &fields);
    let lines = changed(fields, changes);
    let ours = |line: &String| {
        ["x-request-id: id-1", "x-routed-to: one"].contains(&line.as_str())
            || line.starts_with("x-route-reason: ")
    };
    (
        lines.into_iter().filter(|line| !ours(line)).collect(),
        delimited,
    )
}

#[test]
fn hop_by_hop_fields_stay_on_their_hop() {
    let fields = [
        ("connection", "close, X-Private"),
        ("connection", "content-length, Upgrade"),
        ("x-private", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("trailer", "a"),
        ("upgrade", "h2c"),
        ("content-length", "3"),
        ("x-kept", "1"),
    ];
    let kept = ["content-length: 3", "x-kept: 1"];
    for status in [200, 103] {
        assert_eq!(passed(Version::HTTP_11, status, &fields).0, kept);
    }
    assert_eq!(
        passed(Version::HTTP_11, 426, &fields).0,
        ["content-length: 3", "upgrade: h2c", "x-kept: 1"]
    );
    let switching = [("connection", "Upgrade"), ("upgrade", "websocket")];
    assert_eq!(
        passed(Version::HTTP_11, 101, &switching).0,
        ["connection: Upgrade", "upgrade: websocket"]
    );
}

#[test]
fn a_cell_cannot_speak_for_the_edge() {
    let fields = [
        ("x-routed-to", "elsewhere"),
        ("x-routed-to", "nowhere"),
        ("x-request-id", "1"),
        ("x-failover-reason", "none"),
        ("x-circuit-state", "open"),
        ("x-route-reason", "wish"),
        ("x-own", "1"),
    ];
    for status in [200, 101, 103] {
        let left = passed(Version::HTTP_11, status, &fields).0;
        assert_eq!(left, ["x-own: 1"], "{status}");
    }
}

#[test]
fn an_answer_tells_where_the_request_went() {
    let set = |exchange: &Exchange| changed(HeaderMap::new(), routing(exchange));
    let fixture = Fixture::new(serde_json::json!({"circuit_breaker": {}}));
    assert_eq!(
        set(&fixture.undecided(Method::GET, Version::HTTP_11)),
        ["x-request-id: id-1"]
    );
    assert_eq!(
        set(&fixture.admitted(Method::GET, Version::HTTP_11)),
        [
            "x-circuit-state: closed",
            "x-request-id: id-1",
            "x-route-reason: tier",
            "x-routed-to: one",
        ]
    );
}

#[test]
fn the_framing_is_one_the_client_understands() {
    const CHUNKED: &[(&str, &str)] = &[("transfer-encoding", "chunked")];
    const TWICE: &[(&str, &str)] = &[("content-length", "3"), ("content-length", "3")];
    const LIST: &[(&str, &str)] = &[("content-length", "3, 3")];
    const LENGTH: &[&str] = &["content-length: 3"];
    const STILL_CHUNKED: &[&str] = &["transfer-encoding: chunked"];
    let (old, new) = (Version::HTTP_10, Version::HTTP_11);
    for (version, status, fields, left, delimited) in [
        (new, 200, CHUNKED, STILL_CHUNKED, true),
        (old, 200, CHUNKED, &[], false),
        (old, 304, CHUNKED, &[], true),
        (new, 204, CHUNKED, &[], true),
        (new, 204, TWICE, &[], true),
        (new, 200, TWICE, LENGTH, true),
        (old, 200, LIST, LENGTH, true),
    ] {
        let (lines, is_delimited) = passed(version, status, fields);
        assert_eq!(lines, left, "{version:?} {status} {fields:?}");
        assert_eq!(is_delimited, delimited, "{version:?} {status} {fields:?}");
    }
}
