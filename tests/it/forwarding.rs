//! What a cell receives of a request, and what a client receives of a response.

use serde_json::json;

use crate::harness::{Cell, Edge, eventually};

#[tokio::test]
async fn method_target_and_body_arrive_as_they_came() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    for (method, target, body) in [
        ("GET", "/", ""),
        ("GET", "/a/b?c=d&e=%20f&g", ""),
        ("GET", "/%2e%2e/a%2Fb;v=1//c/./../d?q=a/b?c", ""),
        ("GET", "/?", ""),
        ("OPTIONS", "*", ""),
        ("DELETE", "/thing", ""),
        ("POST", "/orders", "name=value\0\r\n\r\n"),
        ("PUT", "/x", "{}"),
        ("PATCH", "/x", "p"),
        ("QUERY", "/own-method", "q"),
    ] {
        let length = body.len();
        client
            .send(format!(
                "{method} {target} HTTP/1.1\r\nHost: edge\r\nX-Routing-Key: acme\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            ))
            .await;
        let response = client.response().await;
        assert_eq!(response.status, 200, "{method} {target}: {response:?}");
        let received = cell.last();
        assert_eq!(received.head.method(), method);
        assert_eq!(received.head.target(), target);
        assert_eq!(received.body, body.as_bytes());
    }
}

#[tokio::test]
async fn headers_arrive_as_they_came() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell).start().await;
    let response = edge
        .exchange(
            "GET / HTTP/1.1\r\nHost: shop.example:8443\r\nX-Routing-Key: acme\r\nCookie: a=1; b=2\r\n\
             Accept: */*\r\nX-Two: one\r\nX-Two: two\r\nX-Empty:\r\nAuthorization: Basic eA==\r\n\r\n",
        )
        .await;
    assert_eq!(response.status, 200, "{response:?}");
    let received = cell.last();
    assert_eq!(received.head.all("host"), ["shop.example:8443"]);
    assert_eq!(received.get("x-routing-key"), Some("acme"));
    assert_eq!(received.get("cookie"), Some("a=1; b=2"));
    assert_eq!(received.head.all("x-two"), ["one", "two"]);
    assert_eq!(received.get("x-empty"), Some(""));
    assert_eq!(received.get("authorization"), Some("Basic eA=="));
    assert_eq!(received.get("x-forwarded-host"), Some("shop.example:8443"));
    assert_eq!(received.get("x-forwarded-proto"), Some("http"));
    assert_eq!(received.get("x-forwarded-for"), Some("127.0.0.1"));
}

#[tokio::test]
async fn a_stranger_cannot_claim_where_it_comes_from() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell).start().await;
    edge.exchange(
        "GET / HTTP/1.1\r\nHost: real\r\nX-Routing-Key: acme\r\nX-Forwarded-For: 6.6.6.6\r\n\
         X-Forwarded-For: 7.7.7.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: fake\r\n\
         Forwarded: for=6.6.6.6\r\n\r\n",
    )
    .await;
    let received = cell.last();
    assert_eq!(received.head.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(received.head.all("x-forwarded-proto"), ["http"]);
    assert_eq!(received.head.all("x-forwarded-host"), ["real"]);
    assert_eq!(received.get("forwarded"), None);
}

#[tokio::test]
async fn a_trusted_proxy_is_believed() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell)
        .set("cellgate.trusted_proxies", json!(["127.0.0.0/8"]))
        .start()
        .await;
    edge.exchange(
        "GET / HTTP/1.1\r\nHost: real\r\nX-Routing-Key: acme\r\nX-Forwarded-For: 6.6.6.6\r\n\
         X-Forwarded-For: 7.7.7.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: public\r\n\r\n",
    )
    .await;
    let received = cell.last();
    assert_eq!(
        received.head.all("x-forwarded-for").join(", "),
        "6.6.6.6, 7.7.7.7, 127.0.0.1"
    );
    assert_eq!(received.head.all("x-forwarded-proto"), ["https"]);
    assert_eq!(received.head.all("x-forwarded-host"), ["public"]);
}

#[tokio::test]
async fn the_request_id_is_kept_or_made_and_returned() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;

    client
        .send("GET / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\nX-Request-Id: mine-42\r\n\r\n")
        .await;
    assert_eq!(client.response().await.get("x-request-id"), Some("mine-42"));
    assert_eq!(cell.last().get("x-request-id"), Some("mine-42"));

    let mut ids = std::collections::HashSet::new();
    for _ in 0..20 {
        let response = client.get("acme", "/").await;
        let id = response.get("x-request-id").expect("an id").to_owned();
        assert_eq!(cell.last().get("x-request-id"), Some(id.as_str()));
        assert!(id.len() >= 16, "{id}");
        assert!(ids.insert(id), "an id came twice");
    }

    // An id that must not be logged is replaced.
    for bad in ["with space", "", &"x".repeat(5_000)] {
        client
            .send(format!(
                "GET / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\nX-Request-Id: {bad}\r\n\r\n"
            ))
            .await;
        let response = client.response().await;
        let id = response.get("x-request-id").expect("an id");
        assert!(!id.is_empty() && id != bad, "{id:?}");
        assert_eq!(cell.last().head.all("x-request-id"), [id]);
    }
}

#[tokio::test]
async fn request_fields_for_the_edge_alone_stop_there() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell).start().await;
    let response = edge
        .exchange(
            "GET / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\nConnection: keep-alive, X-Mine\r\n\
             X-Mine: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\n\
             Proxy-Authorization: x\r\nX-Yours: 2\r\n\r\n",
        )
        .await;
    assert_eq!(response.status, 200, "{response:?}");
    let received = cell.last();
    for name in ["x-mine", "keep-alive", "proxy-connection", "te", "upgrade"] {
        assert_eq!(
            received.get(name),
            None,
            "{name}: {}",
            String::from_utf8_lossy(&received.head.raw)
        );
    }
    assert_eq!(received.get("x-yours"), Some("2"));
}

#[tokio::test]
async fn a_connection_header_cannot_remove_what_the_edge_adds() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell).start().await;
    let options = [
        "host",
        "x-forwarded-for",
        "X-Forwarded-Proto",
        "close, x-request-id",
        "X-Routing-Key",
        "content-length",
        "a, b, c, d, e, f, g, h, i, j, k, l",
    ];
    for option in options {
        let response = edge
            .exchange(format!(
                "GET / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\nConnection: {option}\r\n\r\n"
            ))
            .await;
        response.assert_error(400, "bad_request");
    }
    assert_eq!(cell.requests(), 0);
    assert_eq!(
        cell.connections(),
        0,
        "refusing cost a connection to the cell"
    );
}

#[tokio::test]
async fn response_fields_for_the_edge_alone_stop_there() {
    let cell = Cell::answering(
        "tier1",
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-Yours: 2\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    for _ in 0..2 {
        let response = client.get("acme", "/").await;
        assert_eq!(response.text(), "ok");
        for name in ["x-mine", "keep-alive", "proxy-connection", "upgrade"] {
            assert_eq!(response.get(name), None, "{response:?}");
        }
        assert_eq!(response.get("x-yours"), Some("2"));
        assert!(!response.closes(), "{response:?}");
    }
}

/// `Connection: close` from the cell does not close the client's connection.
#[tokio::test]
async fn a_closing_cell_does_not_close_the_client() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        conn.request().await?;
        let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
        conn.wire.send(answer.as_bytes()).await
    })
    .await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    for count in 1..=5 {
        let response = client.get("acme", "/").await;
        assert_eq!(response.text(), "ok");
        assert!(!response.closes(), "{response:?}");
        assert_eq!(cell.connections(), count);
    }
}

/// Routing headers that a cell sets do not reach the client.
#[tokio::test]
async fn a_cell_cannot_forge_the_decision() {
    let cell = Cell::answering(
        "tier1",
        "HTTP/1.1 200 OK\r\nX-Routed-To: visa\r\nX-Route-Reason: dedicated\r\nX-Request-Id: forged\r\n\
         Content-Length: 0\r\n\r\n",
    )
    .await;
    let edge = Edge::before(&cell).start().await;
    let response = edge.get("acme", "/").await;
    assert_eq!(response.head.all("x-routed-to"), ["tier1"]);
    assert_eq!(response.head.all("x-route-reason"), ["tier"]);
    assert_ne!(response.head.all("x-request-id"), ["forged"]);
}

/// The edge adds its fields to the head, however long it is, and not to a body that looks like one.
#[tokio::test]
async fn the_decision_is_in_the_head_and_nowhere_else() {
    const LIKE_A_HEAD: &str = "HTTP/1.1 200 OK\r\nServer: body\r\n\r\n";
    for padding in [0, 4_000, 4_090, 5_000, 20_000] {
        let cell = Cell::answering(
            "tier1",
            format!(
                "HTTP/1.1 200 OK\r\nX-Padding: {}\r\nContent-Length: {}\r\n\r\n{LIKE_A_HEAD}",
                "x".repeat(padding),
                LIKE_A_HEAD.len()
            ),
        )
        .await;
        let edge = Edge::before(&cell).start().await;
        let mut client = edge.client().await;
        for _ in 0..2 {
            let response = client.get("acme", "/").await;
            response.assert_routed("tier1", "tier");
            assert_eq!(response.get("x-padding").map(str::len), Some(padding));
            assert_eq!(response.text(), LIKE_A_HEAD);
        }
    }
}

#[tokio::test]
async fn the_access_log_has_one_line_a_request() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell)
        .set("cellgate.access_log", "stdout")
        .start()
        .await;
    edge.exchange(
        "POST /a?b=c HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\nX-Request-Id: one\r\n\
         Content-Length: 1\r\n\r\nx",
    )
    .await;
    let line = edge.output.wait("\"one\"").await;
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    for (name, value) in [
        ("request_id", json!("one")),
        ("method", json!("POST")),
        ("path", json!("/a?b=c")),
        ("routing_key", json!("acme")),
        ("placement_key", json!("tier1")),
        ("route_reason", json!("tier")),
        ("upstream_url", json!(cell.url())),
        ("status_code", json!(200)),
    ] {
        assert_eq!(line[name], value, "{name} in {line}");
    }
    assert!(line["duration_ms"].is_number(), "{line}");
    let timestamp = line["timestamp"].as_str().expect("a timestamp");
    assert!(humantime::parse_rfc3339(timestamp).is_ok(), "{timestamp}");

    edge.exchange("GET /none HTTP/1.1\r\nHost: e\r\nX-Request-Id: two\r\n\r\n")
        .await;
    let line = edge.output.wait("\"two\"").await;
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(line["status_code"], 400, "{line}");
    assert!(line["placement_key"].is_null(), "{line}");
    assert!(line["routing_key"].is_null(), "{line}");
}

/// When the edge overwrites the field that holds the key, a retry still uses the client's value.
#[tokio::test]
async fn the_key_may_be_in_a_field_that_the_edge_sets() {
    let cell = Cell::echo("tier1").await;
    for name in ["X-Forwarded-Host", "X-Request-Id", "Forwarded"] {
        let edge = Edge::before(&cell)
            .set("cellgate.access_log", "stdout")
            .set("cellgate.routing_key.header", name)
            .start()
            .await;
        let answer = edge
            .exchange(format!(
                "GET /key HTTP/1.1\r\nHost: e\r\n{name}: acme\r\n\r\n"
            ))
            .await;
        answer.assert_routed("tier1", "tier");
        let line = edge.output.wait("/key").await;
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(line["routing_key"], "acme", "{line}");
        let sent = cell.last().head;
        assert_eq!(sent.all("x-forwarded-host"), ["e"]);
        assert_eq!(sent.all("forwarded"), [""; 0]);
    }
}

/// Log rotation: the file is moved away, and on SIGUSR1 the edge opens a new one.
#[tokio::test]
async fn the_access_log_is_reopened_when_told() {
    let cell = Cell::echo("tier1").await;
    let builder = Edge::before(&cell);
    let path = builder.directory().join("access.log");
    let edge = builder
        .set("cellgate.access_log", path.to_string_lossy().into_owned())
        .start()
        .await;
    let written = async |path: &std::path::Path, what: &str| {
        eventually(&format!("{what} in {}", path.display()), async || {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.contains(what).then_some(text)
        })
        .await
    };
    edge.get("acme", "/before").await;
    written(&path, "/before").await;

    let moved = edge.path("access.log.1");
    std::fs::rename(&path, &moved).expect("move away");
    edge.signal(libc::SIGUSR1);
    eventually("the new file", async || path.exists().then_some(())).await;
    edge.get("acme", "/after").await;
    let text = written(&path, "/after").await;
    assert!(!text.contains("/before"), "{text}");
    let text = std::fs::read_to_string(moved).expect("the old file");
    assert!(!text.contains("/after"), "{text}");
}
