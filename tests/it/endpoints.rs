//! Placements with several endpoints: which endpoint gets a request, and which requests are retried.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::{Cell, Edge, eventually, guarded, within};

/// A placement `one` with these endpoints and the fields of `policy`.
fn placed(version: &str, endpoints: Value, policy: Value) -> Value {
    let mut placement = policy;
    placement["endpoints"] = endpoints;
    guarded(version, json!({"one": placement}))
}

fn url(address: SocketAddr) -> Value {
    json!({"url": format!("http://{address}")})
}

/// How many of `count` requests with one key each cell answers.
async fn answers(edge: &Edge, key: &str, count: usize) -> BTreeMap<String, usize> {
    let mut client = edge.client().await;
    let mut seen = BTreeMap::new();
    for _ in 0..count {
        let response = client.get(key, "/").await;
        assert_eq!(response.status, 200, "{response:?}");
        response.assert_routed("one", if key == "acme" { "tier" } else { "default" });
        let cell = response.get("x-cell-name").expect("a name").to_owned();
        *seen.entry(cell).or_default() += 1;
    }
    seen
}

#[tokio::test]
async fn round_robin_goes_by_weight() {
    let (a, b) = (Cell::echo("a").await, Cell::echo("b").await);
    let mut heavy = url(a.address);
    heavy["weight"] = 3.into();
    let document = placed(
        "1",
        json!([heavy, url(b.address)]),
        json!({"load_balancing": "round_robin"}),
    );
    let edge = Edge::serving(&document).await;
    let seen = answers(&edge, "acme", 40).await;
    assert_eq!(
        seen,
        BTreeMap::from([("a".to_owned(), 30), ("b".to_owned(), 10)])
    );
}

#[tokio::test]
async fn a_tenant_stays_at_its_endpoint_by_hash() {
    let cells = [
        Cell::echo("a").await,
        Cell::echo("b").await,
        Cell::echo("c").await,
    ];
    let endpoints: Vec<Value> = cells.iter().map(|cell| url(cell.address)).collect();
    let policy = || json!({"load_balancing": "hash"});
    let edge = Edge::serving(&placed("1", json!(endpoints), policy())).await;
    let mut homes = BTreeMap::new();
    for n in 0..30 {
        let key = format!("tenant-{n}");
        let seen = answers(&edge, &key, 3).await;
        assert_eq!(seen.len(), 1, "{key}: {seen:?}");
        homes.insert(key, seen.into_keys().next().expect("one"));
    }
    // One endpoint is removed: only its tenants move.
    edge.write_routing(&placed("2", json!(endpoints[1..]), policy()));
    edge.wait_version("2").await;
    for (key, home) in &homes {
        let seen = answers(&edge, key, 1).await;
        let (now, _) = seen.into_iter().next().expect("one");
        assert!(
            now == *home || home == "a",
            "{key} moved from {home} to {now}"
        );
    }
}

/// Nothing listens at one of two endpoints: no client notices, whatever it sends.
#[tokio::test]
async fn an_endpoint_that_is_down_is_no_failure() {
    let well = Cell::echo("well").await;
    let endpoints = json!([url(Cell::nobody().await), url(well.address)]);
    for balancing in ["round_robin", "least_request", "hash"] {
        let policy = json!({"load_balancing": balancing});
        let edge = Edge::serving(&placed("1", endpoints.clone(), policy)).await;
        for n in 0..20 {
            let response = edge.get(&format!("tenant-{n}"), "/").await;
            assert_eq!(response.status, 200, "{balancing}: {response:?}");
            let post = "POST / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\nContent-Length: 4\r\n\r\nbody";
            assert_eq!(edge.exchange(post).await.status, 200, "{balancing}");
        }
        // It is avoided instead of being tried each time.
        let tried = edge
            .metric(&["cellgate_upstream_connect_failures_total", "refused"])
            .await;
        assert!((1.0..=5.0).contains(&tried), "{balancing}: {tried}");
        let made = edge.metric(&["cellgate_retries_total", "made"]).await;
        assert_eq!(made, tried, "{balancing}");
    }
}

#[tokio::test]
async fn attempts_are_limited_and_can_be_switched_off() {
    let down = [
        Cell::nobody().await,
        Cell::nobody().await,
        Cell::nobody().await,
        Cell::nobody().await,
    ];
    let endpoints: Vec<Value> = down.iter().map(|address| url(*address)).collect();
    for (retries, attempts) in [
        (json!({"attempts": 1}), 1.0),
        (json!({"attempts": 2}), 2.0),
        (json!({}), 3.0),
        (json!({"attempts": 10}), 4.0),
        (json!({"on": []}), 1.0),
        (json!({"on": ["reset"]}), 1.0),
    ] {
        let policy = json!({"retries": retries, "load_balancing": "round_robin"});
        let edge = Edge::serving(&placed("1", json!(endpoints), policy)).await;
        let response = edge.get("acme", "/").await;
        response.assert_error(502, "upstream_unreachable");
        let failures = edge
            .metric(&["cellgate_upstream_connect_failures_total", "refused"])
            .await;
        assert_eq!(failures, attempts, "{retries}");
        // Having no further endpoint to try is not counted as a DNS failure.
        let names = edge
            .metric(&["cellgate_upstream_connect_failures_total", "dns"])
            .await;
        assert_eq!(names, 0.0, "{retries}");
    }
}

/// Retries are limited to a share of the requests: with everything down, they do not double the load.
#[tokio::test]
async fn retries_have_a_budget() {
    let endpoints = json!([url(Cell::nobody().await), url(Cell::nobody().await)]);
    let edge = Edge::serving(&placed("1", endpoints, json!({}))).await;
    let mut requests = 0.0;
    let mut client = edge.client().await;
    for _ in 0..60 {
        let response = client.get("acme", "/").await;
        response.assert_error(502, "upstream_unreachable");
        if response.closes() {
            client = edge.client().await;
        }
        requests += 1.0;
    }
    let retries = async |result: &str| {
        let result = format!("result=\"{result}\"");
        edge.metric(&["cellgate_retries_total", &result]).await
    };
    let (made, refused) = (retries("made").await, retries("refused").await);
    assert_eq!(
        made + refused,
        requests,
        "each had another endpoint to go to"
    );
    // One in five requests of the last ten seconds, and ten in any case.
    assert!(
        (10.0..=10.0 + requests / 5.0).contains(&made),
        "{made} made"
    );
}

/// A connection that breaks before the first byte of the response: the request is retried at another endpoint
/// if the document says so and the method is idempotent.
#[tokio::test]
async fn a_reset_is_tried_elsewhere_when_that_is_safe() {
    let well = Cell::echo("well").await;
    let resets = Cell::scripted("resets", |mut conn| async move {
        conn.head().await?;
        Ok(())
    })
    .await;
    let endpoints = json!([url(resets.address), url(well.address)]);
    let on = |on: Value| json!({"load_balancing": "round_robin", "retries": {"on": on}});
    let edge = Edge::serving(&placed(
        "1",
        endpoints.clone(),
        on(json!(["connect", "reset"])),
    ))
    .await;
    for _ in 0..4 {
        assert_eq!(edge.get("acme", "/").await.status, 200);
    }
    assert!(resets.requests() >= 2, "it was asked");
    let with_body =
        "PUT / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\nContent-Length: 4\r\n\r\nbody";
    let unsafe_to_repeat =
        "POST / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\nContent-Length: 0\r\n\r\n";
    for request in [with_body, unsafe_to_repeat] {
        let before = (resets.requests(), well.requests());
        let (one, other) = (edge.exchange(request).await, edge.exchange(request).await);
        let mut statuses = [one.status, other.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 502], "{request}");
        let asked = (resets.requests() - before.0, well.requests() - before.1);
        assert_eq!(asked, (1, 1), "{request}");
    }
    // By default it is not retried.
    let edge = Edge::serving(&placed("1", endpoints, on(json!(["connect"])))).await;
    let statuses = [
        edge.get("acme", "/").await.status,
        edge.get("acme", "/").await.status,
    ];
    assert!(
        statuses.contains(&502) && statuses.contains(&200),
        "{statuses:?}"
    );
}

/// No retry after the first byte of the response.
#[tokio::test]
async fn a_begun_answer_is_not_begun_again() {
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart";
    let cuts = || {
        Cell::scripted("cuts", move |mut conn| async move {
            conn.head().await?;
            conn.wire.send(cut.as_bytes()).await
        })
    };
    let (one, two) = (cuts().await, cuts().await);
    let policy = json!({"retries": {"on": ["connect", "reset"]}});
    let endpoints = json!([url(one.address), url(two.address)]);
    let edge = Edge::serving(&placed("1", endpoints, policy)).await;
    let mut client = edge.client().await;
    client.ask("acme", "/").await;
    let read = client.try_response("GET").await;
    assert!(read.is_err(), "a cut answer stays cut: {read:?}");
    assert_eq!(one.requests() + two.requests(), 1);
}

/// A dead endpoint is tried again without a request of its own, and used as soon as it accepts.
#[tokio::test]
async fn an_endpoint_that_comes_back_is_used_again() {
    let well = Cell::echo("well").await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let endpoints = json!([url(address), url(well.address)]);
    let edge = Edge::serving(&placed(
        "1",
        endpoints,
        json!({"load_balancing": "round_robin"}),
    ))
    .await;
    assert_eq!(answers(&edge, "acme", 10).await.len(), 1);
    let back = Cell::echo_at("back", address).await;
    eventually("it is used again", async || {
        answers(&edge, "acme", 4).await;
        (back.requests() > 0).then_some(())
    })
    .await;
    let seen = answers(&edge, "acme", 10).await;
    assert_eq!(seen.get("back"), Some(&5), "{seen:?}");
}

/// Deadlines and Host of one placement override the settings.
#[tokio::test]
async fn a_placement_has_its_own_deadlines_and_host() {
    let hanging = Cell::scripted("hanging", |mut conn| async move {
        conn.head().await?;
        conn.wire.rest().await.map(drop)
    })
    .await;
    let echo = Cell::echo("echo").await;
    let mut document = guarded(
        "1",
        json!({
            "one": {"url": hanging.url(), "timeouts": {"response_header": "200ms"}},
            "total": {"url": hanging.url(), "timeouts": {"request": "200ms"}},
            "rewrite": {"url": echo.url(), "host_header": "rewrite"},
            "fixed": {"url": echo.url(), "host_header": "cell.internal:81"},
            "kept": {"url": echo.url()},
        }),
    );
    document["routingTable"] = json!({
        "acme": "one", "total": "total", "rewrite": "rewrite", "fixed": "fixed", "kept": "kept",
    });
    let edge = Edge::serving(&document).await;
    let ask = |key: &'static str| within(key, edge.get(key, "/"));
    ask("acme")
        .await
        .assert_error(504, "upstream_response_timeout");
    ask("total").await.assert_error(504, "request_timeout");
    for (key, host) in [
        ("rewrite", echo.address.to_string()),
        ("fixed", "cell.internal:81".to_owned()),
        ("kept", "edge".to_owned()),
    ] {
        assert_eq!(ask(key).await.status, 200);
        let seen = echo.last();
        assert_eq!(seen.get("host"), Some(host.as_str()), "{key}");
        assert_eq!(seen.head.all("host").len(), 1, "{key}");
        assert_eq!(seen.get("x-forwarded-host"), Some("edge"), "{key}");
    }
}

/// A response on a kept connection proves that an endpoint can be reached: one that once refused a connection
/// gets its share again, although no new connection is needed.
#[tokio::test]
async fn an_answer_on_a_kept_connection_ends_the_avoidance() {
    let (a, b) = (Cell::echo("a").await, Cell::echo("b").await);
    let endpoints = json!([url(a.address), url(b.address)]);
    let policy = json!({"load_balancing": "round_robin"});
    let edge = Edge::serving(&placed("1", endpoints, policy)).await;
    // The pool has a connection to each.
    answers(&edge, "acme", 4).await;
    a.stop_accepting().await;
    // Two requests at a time need a second connection, which `a` refuses.
    eventually("a is avoided", async || {
        let (mut one, mut two) = (edge.client().await, edge.client().await);
        let mut three = edge.client().await;
        tokio::join!(
            one.get("acme", "/"),
            two.get("acme", "/"),
            three.get("acme", "/")
        );
        let tried = edge
            .metric(&["cellgate_upstream_connect_failures_total", "refused"])
            .await;
        (tried > 0.0).then_some(())
    })
    .await;
    eventually("a serves again", async || {
        let seen = answers(&edge, "acme", 10).await;
        (seen.get("a") == Some(&5)).then_some(())
    })
    .await;
}

/// The response reports the first failure and its placement, not the state of the fallback that could not
/// serve the request either.
#[tokio::test]
async fn a_failure_is_told_of_the_cell_that_failed() {
    let hanging = Cell::scripted("two", |mut conn| async move {
        conn.head().await?;
        conn.wire.rest().await.map(drop)
    })
    .await;
    let one = json!({
        "url": format!("http://{}", Cell::nobody().await), "fallback": "two",
        "circuit_breaker": {"failure_threshold": 1, "timeout": "1h"},
    });
    let two = json!({"url": hanging.url(), "concurrency_limit": 1});
    let mut document = guarded("1", json!({"one": one, "two": two}));
    document["routingTable"] = json!({"acme": "one", "other": "two"});
    let edge = Edge::serving(&document).await;
    let mut held = edge.client().await;
    held.ask("other", "/").await;
    hanging.wait_requests(1).await;
    let first = edge.get("acme", "/").await;
    first.assert_error(502, "upstream_unreachable");
    first.assert_routed("one", "tier");
    edge.log.wait("placement=one").await;
    let made = edge.metric(&["cellgate_retries_total", "made"]).await;
    assert_eq!(made, 0.0, "no second attempt was made");
    // The next request is not sent to the first at all, and the second is full.
    let second = edge.get("acme", "/").await;
    second.assert_error(429, "concurrency_limit");
    second.assert_routed("two", "tier");
    assert_eq!(second.get("x-failover-reason"), Some("circuit_open"));
    assert_eq!(second.get("x-circuit-state"), Some("open"));
}

/// A fallback without addresses is no fallback: the response is that of a placement without one.
#[tokio::test]
async fn a_fallback_without_an_address_is_none() {
    let one = json!({
        "url": format!("http://{}", Cell::nobody().await), "fallback": "two",
        "circuit_breaker": {"failure_threshold": 1, "timeout": "1h"},
    });
    let two = json!({"url": "http://nowhere.invalid:1"});
    let edge = Edge::serving(&guarded("1", json!({"one": one, "two": two}))).await;
    edge.log.wait("nowhere.invalid does not resolve").await;
    edge.get("acme", "/")
        .await
        .assert_error(502, "upstream_unreachable");
    let down = edge.get("acme", "/").await;
    down.assert_error(503, "circuit_open");
    down.assert_routed("one", "tier");
    assert!(down.get("retry-after").is_some(), "{down:?}");
    let explained = edge.admin("/debug/route?key=acme").await.json();
    assert_eq!(explained["served_by"], Value::Null);
    assert_eq!(explained["without_address"][0]["placement"], "two");
}
