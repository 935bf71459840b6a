//! Decisions and attempts, without an engine.

use std::net::SocketAddr;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, Method, Version};
use serde_json::{Value, json};

use super::attempt::Broken;
use super::decide::{Decision, Head};
use super::*;
use crate::exchange::{Course, Destination, Exchange, Failure, tests::TIMEOUTS};
use crate::http::{Client, Deadlines, Downstream, Transport};
use crate::state::Source;

/// A proxy that routes `acme` to the placement `one` with two backends and this policy, which
/// falls back to `two`.
fn proxy(policy: Value) -> EdgeProxy {
    let mut one = json!({
        "endpoints": [{"url": "http://127.0.0.1:1"}, {"url": "http://127.0.0.1:2"}],
        "load_balancing": "round_robin",
        "fallback": "two",
    });
    let policy = policy.as_object().cloned().unwrap_or_default();
    one.as_object_mut().unwrap().extend(policy);
    let document = json!({
        "version": "1",
        "routingTable": {"acme": "one"},
        "defaultPlacement": "two",
        "placements": {"one": one, "two": {"url": "http://127.0.0.1:3"}},
    });
    let proxy = empty();
    let document = document.to_string();
    proxy
        .state
        .apply(document.as_bytes(), Source::File, SystemTime::now());
    assert!(proxy.state.current().is_some(), "a valid document");
    proxy
}

/// A proxy without a table.
fn empty() -> EdgeProxy {
    let config = ProxyConfig {
        routing_key: HeaderName::from_static("x-routing-key"),
        trusted_proxies: Vec::new(),
        timeouts: TIMEOUTS,
        max_attempts: 16,
        debug_config: true,
    };
    let metrics = Arc::new(Metrics::new());
    let state = EdgeState::new(Default::default(), Arc::clone(&metrics));
    let lifecycle = Arc::new(Lifecycle::new());
    EdgeProxy::new(config, state, lifecycle, metrics, AccessLog::default())
}

fn decide(
    proxy: &EdgeProxy,
    path: &str,
    fields: &[(&'static str, &'static str)],
) -> (Decision, Exchange) {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    let peer = SocketAddr::from(([192, 0, 2, 1], 4000));
    let client = Client::new(peer, None, Transport::Plain);
    let deadlines = Deadlines {
        response_header: TIMEOUTS.response_header,
        request: TIMEOUTS.request,
        stream_idle: TIMEOUTS.stream_idle,
    };
    let head = Head {
        method: &Method::GET,
        version: Version::HTTP_11,
        target: path.as_bytes(),
        path,
        fields: &headers,
    };
    let downstream = Downstream::new(Arc::new(client), deadlines);
    let mut exchange = proxy.begin(Arc::new(downstream), &head);
    let decision = proxy.decide(&mut exchange, &head);
    (decision, exchange)
}

const ACME: &[(&str, &str)] = &[("x-routing-key", "acme")];

fn admitted(proxy: &EdgeProxy) -> Exchange {
    let (decision, exchange) = decide(proxy, "/", ACME);
    assert_eq!(decision, Decision::Proxy);
    exchange
}

#[test]
fn a_request_is_refused_or_routed_by_its_head() {
    let proxy = proxy(json!({"max_request_body_bytes": 10, "timeouts": {"request": "60s"}}));
    let refused = |failure: Failure| Decision::Refuse(failure);
    for (path, fields, decision) in [
        ("/", ACME, Decision::Proxy),
        ("/", &[("x-routing-key", "unknown")][..], Decision::Proxy),
        ("/", &[], refused(Failure::MISSING_KEY)),
        ("/", &[("x-routing-key", "")], refused(Failure::MISSING_KEY)),
        (
            "/",
            &[("x-routing-key", "a"), ("x-routing-key", "b")],
            refused(Failure::AMBIGUOUS_KEY),
        ),
        (
            "/",
            &[("x-routing-key", "acme"), ("connection", "host")],
            refused(Failure::BAD_REQUEST),
        ),
        (
            "/",
            &[("x-routing-key", "acme"), ("content-length", "11")],
            refused(Failure::BODY_TOO_LARGE),
        ),
        ("/debug/config", &[], Decision::ShowConfig),
    ] {
        let (decided, exchange) = decide(&proxy, path, fields);
        assert_eq!(decided, decision, "{path} {fields:?}");
        let failure = match decided {
            Decision::Refuse(failure) => Some(failure),
            Decision::Proxy | Decision::ShowConfig => None,
        };
        assert_eq!(exchange.failure(), failure);
        let attempt = exchange.destination.as_ref().and_then(Destination::attempt);
        assert_eq!(attempt.is_some(), decided == Decision::Proxy);
    }
    let mut exchange = admitted(&proxy);
    assert_eq!(exchange.timeouts.request.as_secs(), 60);
    assert_eq!(exchange.timeouts.connect, TIMEOUTS.connect);
    assert_eq!(proxy.body_read(&mut exchange, 10), Ok(()));
    let too_large = proxy.body_read(&mut exchange, 11);
    assert_eq!(too_large, Err(Failure::BODY_TOO_LARGE));
    assert_eq!(exchange.failure(), Some(Failure::BODY_TOO_LARGE));

    let (decided, _) = decide(&empty(), "/", ACME);
    assert_eq!(decided, refused(Failure::NOT_READY));
}

/// The ports that attempts are made at while each fails to connect, and the final failure.
async fn ports(proxy: &EdgeProxy) -> (Vec<u16>, Failure) {
    let mut exchange = admitted(proxy);
    let mut ports = Vec::new();
    loop {
        let next = match proxy.next_attempt(&mut exchange).await {
            Ok(next) => next,
            Err((failure, _)) => return (ports, failure),
        };
        ports.push(next.backend.address.port());
        let failure = Failure::UNREACHABLE;
        if !proxy.connect_failed(&mut exchange, failure, "refused", "no".to_owned()) {
            return (ports, exchange.failure().expect("it failed"));
        }
    }
}

#[tokio::test]
async fn a_failed_connection_leads_to_the_next_backend_as_policy_allows() {
    for (retries, expected) in [
        (json!({"attempts": 1}), 1),
        (json!({"attempts": 2, "on": ["connect"]}), 2),
        (json!({"attempts": 3, "on": ["connect"]}), 2),
        (json!({"attempts": 3, "on": ["reset"]}), 1),
    ] {
        let proxy = proxy(json!({"retries": retries}));
        let (mut ports, failure) = ports(&proxy).await;
        ports.sort_unstable();
        assert_eq!(ports, [1, 2][..expected], "{retries}");
        assert_eq!(failure, Failure::UNREACHABLE);
    }
}

fn broken(failure: Failure) -> Broken {
    Broken {
        failure,
        detail: "it broke".to_owned(),
        stale: false,
        reset: true,
        repeatable: true,
        tunnel: false,
    }
}

#[tokio::test]
async fn what_follows_when_an_exchange_breaks() {
    let policy = json!({
        "retries": {"attempts": 2, "on": ["reset"]},
        "circuit_breaker": {"failure_threshold": 1},
    });
    // Whether another attempt follows, on a new connection, and counts as one; and whether
    // the backend's breaker opened.
    let broke = async |begun: bool, how: Broken| {
        let proxy = proxy(policy.clone());
        let mut exchange = admitted(&proxy);
        let first = proxy.next_attempt(&mut exchange).await;
        let backend = first.expect("a backend").backend;
        exchange.connected(true);
        if begun {
            exchange.answer_begins();
        }
        let again = proxy.broke(&mut exchange, how);
        if again {
            let next = proxy.next_attempt(&mut exchange).await;
            assert!(next.is_ok_and(|next| next.new_connection == exchange.new_connection));
        } else {
            assert!(matches!(exchange.course, Course::Failed { .. }));
        }
        let opened = backend.breaker().0.as_str() == "open";
        ((again, exchange.new_connection, exchange.attempts), opened)
    };
    let bad = Failure::BAD_RESPONSE;
    let (elsewhere, no) = ((true, false, 2), (false, false, 1));
    assert_eq!(broke(false, broken(bad)).await, (elsewhere, true));
    // A part of the answer is here.
    assert_eq!(broke(true, broken(bad)).await, (no, true));
    // It is not known to be safe to send it again.
    let unsafe_ = Broken {
        repeatable: false,
        ..broken(bad)
    };
    assert_eq!(broke(false, unsafe_).await, (no, true));
    // A kept connection that the cell had closed says nothing about the cell.
    let stale = |repeatable| Broken {
        stale: true,
        repeatable,
        ..broken(bad)
    };
    assert_eq!(broke(false, stale(true)).await, ((true, true, 1), false));
    assert_eq!(broke(false, stale(false)).await, (no, false));
    // Nor does a tunnel's end, or a client that left.
    let tunnel = Broken {
        tunnel: true,
        repeatable: false,
        ..broken(bad)
    };
    assert_eq!(broke(true, tunnel).await, (no, false));
    let gone = Broken {
        repeatable: false,
        ..broken(Failure::CLIENT_GONE)
    };
    assert_eq!(broke(false, gone).await, (no, false));
}
