mod placements;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::{Method, Response};
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::AdminApp;
use crate::http::Lifecycle;
use crate::state::{EdgeOptions, EdgeState, Source};
use crate::telemetry::metrics::Metrics;

const DOCUMENT: &[u8] = include_bytes!("../../config/routing.json");

struct Admin {
    app: AdminApp,
    state: Arc<EdgeState>,
    lifecycle: Arc<Lifecycle>,
}

fn empty() -> Admin {
    let metrics = Arc::new(Metrics::new());
    let hosts = [("cell-tier1".to_owned(), "127.0.0.1".parse().unwrap())];
    let options = EdgeOptions {
        hosts: hosts.into(),
        ..EdgeOptions::default()
    };
    let state = EdgeState::new(options, Arc::clone(&metrics));
    let lifecycle = Arc::new(Lifecycle::new());
    Admin {
        app: AdminApp::new(Arc::clone(&state), metrics, Arc::clone(&lifecycle)),
        state,
        lifecycle,
    }
}

fn loaded() -> Admin {
    let admin = empty();
    admin.apply(DOCUMENT);
    admin
}

impl Admin {
    fn apply(&self, document: &[u8]) {
        let now = UNIX_EPOCH + Duration::from_secs(1_767_473_112);
        self.state.apply(document, Source::File, now);
    }

    fn get(&self, target: &str) -> Response<Vec<u8>> {
        self.request(&Method::GET, target)
    }

    fn request(&self, method: &Method, target: &str) -> Response<Vec<u8>> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        self.app.respond(method, path, query)
    }
}

fn header<'a>(response: &'a Response<Vec<u8>>, name: &str) -> &'a str {
    let value = response.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

fn json(response: &Response<Vec<u8>>) -> Value {
    assert_eq!(header(response, "content-type"), "application/json");
    serde_json::from_slice(response.body()).unwrap()
}

#[test]
fn every_request_has_its_status_and_code() {
    let draining = loaded();
    draining.lifecycle.start_draining();
    let edges = [
        ("empty", empty()),
        ("loaded", loaded()),
        ("draining", draining),
    ];
    for (edge, target, status, code) in [
        ("empty", "/", 200, ""),
        ("empty", "/healthz", 200, ""),
        ("empty", "/metrics", 200, ""),
        ("empty", "/readyz", 503, "not_ready"),
        ("empty", "/debug/config", 503, "not_ready"),
        ("empty", "/debug/route?key=acme", 503, "not_ready"),
        ("empty", "/debug/route", 400, "missing_routing_key"),
        ("empty", "/debug/placements", 503, "not_ready"),
        (
            "empty",
            "/debug/placements?placement=visa",
            503,
            "not_ready",
        ),
        ("loaded", "/readyz", 200, ""),
        ("loaded", "/debug/config", 200, ""),
        ("loaded", "/debug/config?pretty", 200, ""),
        ("loaded", "/debug/route?key=acme", 200, ""),
        ("loaded", "/debug/route?other=1&key=acme", 200, ""),
        ("loaded", "/debug/route", 400, "missing_routing_key"),
        ("loaded", "/debug/route?key", 400, "missing_routing_key"),
        ("loaded", "/debug/route?key=", 400, "missing_routing_key"),
        (
            "loaded",
            "/debug/route?Key=acme",
            400,
            "missing_routing_key",
        ),
        (
            "loaded",
            "/debug/route?key=a&key=b",
            400,
            "ambiguous_routing_key",
        ),
        ("loaded", "/debug/placements", 200, ""),
        ("loaded", "/debug/placements?placement=visa", 200, ""),
        ("loaded", "/debug/placements?placement=%76isa&a=b", 200, ""),
        (
            "loaded",
            "/debug/placements?placement=Visa",
            404,
            "unknown_placement",
        ),
        (
            "loaded",
            "/debug/placements?placement=",
            404,
            "unknown_placement",
        ),
        (
            "loaded",
            "/debug/placements?placement=a&placement=a",
            400,
            "ambiguous_placement",
        ),
        ("loaded", "/nothing", 404, "not_found"),
        ("loaded", "/metrics/", 404, "not_found"),
        ("loaded", "/%6detrics", 404, "not_found"),
        ("loaded", "", 404, "not_found"),
        ("draining", "/readyz", 503, "draining"),
        ("draining", "/healthz", 200, ""),
        ("draining", "/debug/config", 200, ""),
    ] {
        let (_, admin) = edges.iter().find(|(name, _)| *name == edge).unwrap();
        let response = admin.get(target);
        assert_eq!(response.status(), status, "{edge} {target}");
        if !code.is_empty() {
            let body = json(&response);
            assert_eq!(body["error"], code, "{edge} {target}");
            assert!(body["message"].is_string(), "{edge} {target}");
        }

        // HEAD says the same and sends no body: RFC 9110, section 9.3.2.
        let head = admin.request(&Method::HEAD, target);
        assert_eq!(head.status(), status, "HEAD {edge} {target}");
        assert!(head.body().is_empty(), "HEAD {edge} {target}");
        let length: usize = header(&response, "content-length").parse().unwrap();
        assert_eq!(length, response.body().len(), "{edge} {target}");
        if target != "/metrics" {
            // Which is never the same twice.
            assert_eq!(head.headers(), response.headers(), "HEAD {edge} {target}");
        }
    }
}

#[test]
fn nothing_but_get_and_head_is_allowed() {
    let admin = loaded();
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        for target in ["/debug/config", "/nothing"] {
            let response = admin.request(&method, target);
            assert_eq!(response.status(), 405);
            assert_eq!(header(&response, "allow"), "GET, HEAD");
            assert_eq!(json(&response)["error"], "method_not_allowed");
        }
    }
}

#[test]
fn the_configuration_begins_as_the_first_specification_has_it() {
    let admin = loaded();
    let body = String::from_utf8(admin.get("/debug/config").into_body()).unwrap();
    let begin = "{\"version\":\"1.0.0\",\"last_reload_at\":\"2026-01-03T20:45:12Z\",\
                 \"source\":\"file\",\"generation\":1,\"sha256\":\"";
    assert!(body.starts_with(begin), "{body}");
    let end = "\",\"keys\":4,\"placements\":4,\"last_error\":null,\"state\":null,\"control_plane\":null}\n";
    assert!(body.ends_with(end), "{body}");
}

#[test]
fn a_refusal_is_shown_until_a_good_document_arrives() {
    let admin = loaded();
    let bad = String::from_utf8(DOCUMENT.to_vec())
        .unwrap()
        .replace("\"acme\": \"tier1\"", "\"acme\": \"tier9\"");
    admin.apply(bad.as_bytes());
    let shown = json(&admin.get("/debug/config"));
    assert_eq!(shown["version"], "1.0.0");
    let error = &shown["last_error"];
    assert_eq!(error["at"], "2026-01-03T20:45:12Z");
    let problem = &error["problems"][0];
    assert_eq!(problem["pointer"], "/routingTable/acme");
    assert_eq!(problem["line"], 3);
    let message = problem["message"].as_str().unwrap();
    assert!(
        message.contains("tier9") && message.contains("tier1"),
        "{message}"
    );
    assert_eq!(
        admin.get("/readyz").status(),
        200,
        "the last good one serves"
    );

    admin.apply(DOCUMENT);
    assert!(json(&admin.get("/debug/config"))["last_error"].is_null());
}

#[test]
fn a_route_is_explained() {
    let admin = loaded();
    for (query, key, placement, reason) in [
        ("acme", "acme", "tier1", "tier"),
        ("visa", "visa", "visa", "dedicated"),
        ("%76isa", "visa", "visa", "dedicated"),
        ("a+b%2B", "a b+", "tier3", "default"),
        ("%FF", "\u{fffd}", "tier3", "default"),
    ] {
        let shown = json(&admin.get(&format!("/debug/route?key={query}")));
        assert_eq!(shown["key"], key, "{query}");
        assert_eq!(shown["placement"], placement, "{query}");
        assert_eq!(shown["reason"], reason, "{query}");
        assert_eq!(shown["generation"], 1);
        assert_eq!(shown["version"], "1.0.0");
    }
    let shown = json(&admin.get("/debug/route?key=acme"));
    assert_eq!(shown["endpoint"], "http://cell-tier1:9001");
    assert_eq!(shown["addresses"], serde_json::json!(["127.0.0.1:9001"]));
    assert_eq!(shown["resolution"], "resolved");
    let shown = json(&admin.get("/debug/route?key=visa"));
    assert_eq!(shown["addresses"], serde_json::json!([]));
    assert_eq!(shown["resolution"], "unresolved");
}

#[test]
fn what_is_here_is_listed() {
    let admin = loaded();
    let index = String::from_utf8(admin.get("/").into_body()).unwrap();
    let missing = json(&admin.get("/nothing"))["message"].to_string();
    for path in [
        "/debug/config",
        "/debug/route",
        "/debug/placements",
        "/healthz",
        "/readyz",
        "/metrics",
    ] {
        assert!(index.contains(&format!("GET {path}")), "{index}");
        assert!(missing.contains(path), "{missing}");
        assert_ne!(admin.get(path).status(), 404, "{path}");
    }
    let long = format!("/{}", "x".repeat(10_000));
    assert!(admin.get(&long).body().len() < 500);
}

#[test]
fn metrics_are_in_the_text_format() {
    let response = loaded().get("/metrics");
    assert!(header(&response, "content-type").starts_with("text/plain; version=0.0.4"));
    let text = String::from_utf8(response.into_body()).unwrap();
    assert!(text.contains("\ncellgate_generation 1\n"), "{text}");
}

/// What the service sends over a connection, until it closes it or has nothing
/// more to answer.
async fn exchange(request: &str) -> String {
    let Admin { app, .. } = loaded();
    let app = Arc::new(app);
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(async move {
        let (_shutdown, watch) = tokio::sync::watch::channel(false);
        let mut stream = Some(Box::new(server) as Stream);
        while let Some(open) = stream {
            let mut session = ServerSession::new_http1(open);
            session.set_keepalive(Some(1));
            let reused = app.process_new_http(session, &watch).await;
            stream = reused.map(|reused| reused.consume().0);
        }
    });
    client.write_all(request.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let reading = client.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(30), reading)
        .await
        .expect("it ends")
        .unwrap();
    serving.await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn it_speaks_http() {
    let answer = exchange("GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.to_lowercase().contains("content-length: 19"), "{head}");
    assert_eq!(body, "{\"status\":\"ready\"}\n");

    let answer = exchange("HEAD /debug/config HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");

    // The body is not waited for.
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc";
    let answer = exchange(request).await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
}
