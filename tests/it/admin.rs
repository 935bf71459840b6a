//! The admin service: what it answers and what it never reveals.

use serde_json::{Value, json};

use crate::harness::{Cell, Client, Edge, EdgeBuilder, document, placements, table};

async fn edge(build: impl Fn(EdgeBuilder) -> EdgeBuilder) -> (Cell, Edge) {
    let cell = Cell::echo("tier1").await;
    let routes = table(&[("acme", "tier1"), ("secret-tenant", "tier1")]);
    let document = document("1.0.0", routes, placements(&[&cell]), "tier1");
    let edge = build(Edge::builder().routing(&document)).start().await;
    (cell, edge)
}

#[tokio::test]
async fn debug_config_has_the_fields_of_the_contract() {
    let (_cell, edge) = edge(|builder| builder).await;
    let response = edge.admin("/debug/config").await;
    assert_eq!(response.get("content-type"), Some("application/json"));
    let config = response.json();
    assert_eq!(config["version"], "1.0.0");
    assert_eq!(config["source"], "file");
    assert_eq!(config["generation"], 1);
    assert_eq!(config["keys"], 2);
    assert_eq!(config["placements"], 1);
    assert_eq!(config["last_error"], Value::Null);
    let sha256 = config["sha256"].as_str().expect("a hash");
    assert!(
        sha256.len() == 64 && sha256.chars().all(|c| c.is_ascii_hexdigit()),
        "{sha256}"
    );
    let at = config["last_reload_at"].as_str().expect("a time");
    assert!(
        at.ends_with('Z') && humantime::parse_rfc3339(at).is_ok(),
        "{at}"
    );
}

#[tokio::test]
async fn debug_route_explains() {
    let (cell, edge) = edge(|builder| builder).await;
    for (query, key, reason) in [
        ("acme", "acme", "tier"),
        ("no%20body", "no body", "default"),
        ("no+body", "no body", "default"),
    ] {
        let response = edge.admin(&format!("/debug/route?key={query}")).await;
        assert_eq!(response.status, 200, "{response:?}");
        let route = response.json();
        assert_eq!(route["key"], key, "{route}");
        assert_eq!(route["placement"], "tier1", "{route}");
        assert_eq!(route["reason"], reason, "{route}");
        assert_eq!(route["generation"], 1, "{route}");
        assert_eq!(route["endpoint"], cell.url(), "{route}");
    }
    for path in ["/debug/route", "/debug/route?key=", "/debug/route?other=1"] {
        let response = edge.admin(path).await;
        assert_eq!(response.status, 400, "{path}: {response:?}");
        assert!(response.json()["error"].is_string(), "{path}");
    }
}

#[tokio::test]
async fn health_and_readiness() {
    let (_cell, edge) = edge(|builder| builder).await;
    assert_eq!(edge.admin("/healthz").await.status, 200);
    assert_eq!(edge.admin("/readyz").await.status, 200);
}

#[tokio::test]
async fn the_index_names_everything() {
    let (_cell, edge) = edge(|builder| builder).await;
    let response = edge.admin("/").await;
    assert_eq!(response.status, 200);
    for path in [
        "/debug/config",
        "/debug/route",
        "/debug/placements",
        "/healthz",
        "/readyz",
        "/metrics",
    ] {
        assert!(
            response.text().contains(path),
            "nothing about {path}: {response:?}"
        );
    }
}

#[tokio::test]
async fn errors_are_json() {
    let (_cell, edge) = edge(|builder| builder).await;
    for path in ["/nothing", "/debug", "/metrics/", "//"] {
        let response = edge.admin(path).await;
        assert_eq!(response.status, 404, "{path}");
        assert_eq!(
            response.get("content-type"),
            Some("application/json"),
            "{path}"
        );
        assert!(response.json()["error"].is_string(), "{path}");
        assert!(response.json()["message"].is_string(), "{path}");
    }
    let mut client = Client::connect(edge.admin).await;
    client
        .send("POST /debug/config HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        .await;
    let response = client.response().await;
    assert_eq!(response.status, 405);
    assert!(
        response
            .get("allow")
            .is_some_and(|allow| allow.contains("GET")),
        "{response:?}"
    );
    assert!(response.json()["error"].is_string());
}

#[tokio::test]
async fn head_has_no_body() {
    let (_cell, edge) = edge(|builder| builder).await;
    let mut client = Client::connect(edge.admin).await;
    for path in ["/debug/config", "/healthz", "/metrics", "/"] {
        client
            .send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        let response = client
            .try_response("HEAD")
            .await
            .expect("an answer")
            .expect("an answer");
        assert_eq!(response.status, 200, "{path}");
        assert_eq!(client.wire().pending(), b"", "{path}");
        if response.closes() {
            client = Client::connect(edge.admin).await;
        }
    }
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let (_cell, edge) = edge(|builder| builder).await;
    for _ in 0..7 {
        edge.get("acme", "/").await;
    }
    for _ in 0..3 {
        edge.get("nobody", "/").await;
    }
    edge.exchange("GET / HTTP/1.1\r\nHost: e\r\n\r\n").await;
    edge.write_routing_bytes("not json");
    edge.wait_refused().await;

    let response = edge.admin("/metrics").await;
    assert!(
        response
            .get("content-type")
            .is_some_and(|t| t.starts_with("text/plain")),
        "{response:?}"
    );
    let requests = "cellgate_requests_total{";
    let tier = edge
        .metric(&[
            requests,
            "placement=\"tier1\"",
            "reason=\"tier\"",
            "\"2xx\"",
        ])
        .await;
    let default = edge
        .metric(&[
            requests,
            "placement=\"tier1\"",
            "reason=\"default\"",
            "\"2xx\"",
        ])
        .await;
    assert_eq!((tier, default), (7.0, 3.0), "{}", response.text());
    assert_eq!(
        edge.metric(&["cellgate_reloads_total", "refused"]).await,
        1.0
    );
    assert_eq!(
        edge.metric(&["cellgate_reloads_total", "\"ok\""]).await,
        1.0
    );
    assert_eq!(edge.metric(&["cellgate_generation "]).await, 1.0);
    for name in [
        "cellgate_request_duration_seconds_bucket",
        "cellgate_requests_in_flight",
        "cellgate_client_connections",
        "cellgate_upstream_connect",
        "cellgate_access_log_dropped",
    ] {
        assert!(
            response.text().contains(name),
            "no {name}:\n{}",
            response.text()
        );
    }
}

/// No routing key and no other value that clients choose becomes a metric label: the edge cannot bound how
/// many there are.
#[tokio::test]
async fn no_label_is_a_tenant() {
    let (_cell, edge) = edge(|builder| builder).await;
    edge.get("secret-tenant", "/secret-path").await;
    edge.get("secret-stranger", "/").await;
    let text = edge.admin("/metrics").await.text();
    assert!(!text.contains("secret"), "{text}");
    let before = text.lines().count();
    for number in 0..200 {
        edge.get(&format!("k{number}"), &format!("/p{number}"))
            .await;
    }
    let after = edge.admin("/metrics").await.text().lines().count();
    assert!(
        after <= before + 40,
        "{before} lines of metrics became {after}"
    );
}

#[tokio::test]
async fn the_proxy_port_answers_debug_config_only_when_told_to() {
    let (cell, edge) = edge(|builder| builder).await;
    // Switched off, the path is one like any other: it needs a key and goes to the cell.
    let plain = "GET /debug/config HTTP/1.1\r\nHost: e\r\n\r\n";
    edge.exchange(plain)
        .await
        .assert_error(400, "missing_routing_key");
    assert_eq!(edge.get("acme", "/debug/config").await.text(), "tier1");
    assert_eq!(cell.last().head.target(), "/debug/config");

    let (_cell, edge) = self::edge(|b| b.set("cellgate.debug_config_on_proxy", true)).await;
    let mut client = edge.client().await;
    for _ in 0..2 {
        client.send(plain).await;
        let response = client.response().await;
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(response.json()["version"], "1.0.0");
    }
    // No other path of the admin service is reachable there.
    client
        .send("GET /metrics HTTP/1.1\r\nHost: e\r\n\r\n")
        .await;
    client
        .response()
        .await
        .assert_error(400, "missing_routing_key");
}

/// What operators see when a document was refused: the place, the value, and what would be valid.
#[tokio::test]
async fn last_error_is_for_people() {
    let (cell, edge) = edge(|builder| builder).await;
    let bad = document("2", json!({"acme": "teir1"}), placements(&[&cell]), "tier1");
    edge.write_routing(&bad);
    let error = edge.wait_refused().await;
    let at = error["at"].as_str().expect("a time");
    assert!(humantime::parse_rfc3339(at).is_ok(), "{at}");
    let problem = &error["problems"][0];
    assert_eq!(problem["pointer"], "/routingTable/acme");
    let message = problem["message"].as_str().expect("a message");
    assert!(
        message.contains("teir1") && message.contains("tier1"),
        "{message}"
    );
    assert!(
        problem["line"].as_u64().is_some_and(|line| line >= 1),
        "{problem}"
    );
}
