//! Limits of a placement: requests in flight, and the size of request bodies.

use serde_json::{Value, json};

use crate::harness::{Cell, Client, Edge, eventually, guarded};

/// A cell that holds a request for `/hold` until its connection closes, and answers all others.
async fn holding(name: &str) -> Cell {
    Cell::scripted(name, |mut conn| async move {
        while let Some(request) = conn.request().await? {
            if request.head.target() == "/hold" {
                conn.wire.rest().await?;
                return Ok(());
            }
            conn.reply().await?;
        }
        Ok(())
    })
    .await
}

async fn hold(edge: &Edge, key: &str) -> Client {
    let mut client = edge.client().await;
    client.ask(key, "/hold").await;
    client
}

async fn in_flight(edge: &Edge, placement: &str) -> u64 {
    let shown = edge.admin("/debug/route?key=acme").await.json();
    let candidates = shown["candidates"].as_array().expect("candidates").clone();
    let named = candidates
        .iter()
        .filter(|candidate| candidate["placement"] == placement);
    named.filter_map(|c| c["in_flight"].as_u64()).sum()
}

#[tokio::test]
async fn requests_over_the_limit_are_turned_away() {
    let cell = holding("one").await;
    let document = guarded(
        "1",
        json!({"one": {"url": cell.url(), "concurrency_limit": 2}}),
    );
    let edge = Edge::serving(&document).await;
    let held = [hold(&edge, "acme").await, hold(&edge, "acme").await];
    cell.wait_requests(2).await;

    let mut client = edge.client().await;
    for _ in 0..3 {
        let full = client.get("acme", "/").await;
        full.assert_error(429, "concurrency_limit");
        full.assert_routed("one", "tier");
        assert_eq!(full.get("retry-after"), Some("1"));
    }
    assert_eq!(cell.requests(), 2);
    let rejected = ["cellgate_requests_rejected_total", "concurrency_limit"];
    assert_eq!(edge.metric(&rejected).await, 3.0);
    let gauge = ["cellgate_placement_requests_in_flight", "placement=\"one\""];
    assert_eq!(edge.metric(&gauge).await, 2.0);

    // The limit is lowered below what is in flight, raised, and removed.
    for (version, limit, status) in [
        ("2", json!(1), 429),
        ("3", json!(3), 200),
        ("4", json!(null), 200),
    ] {
        let placement = match limit {
            Value::Null => json!({"url": cell.url()}),
            limit => json!({"url": cell.url(), "concurrency_limit": limit}),
        };
        edge.write_routing(&guarded(version, json!({"one": placement})));
        edge.wait_version(version).await;
        assert_eq!(client.get("acme", "/").await.status, status, "{version}");
    }
    drop(held);
    eventually("the places are given back", async || {
        (in_flight(&edge, "one").await == 0).then_some(())
    })
    .await;
}

/// A request counts at the placement that serves it.
#[tokio::test]
async fn a_fallback_takes_the_place_where_it_serves() {
    let two = holding("two").await;
    let one = json!({
        "url": format!("http://{}", Cell::nobody().await), "fallback": "two", "concurrency_limit": 1,
        "circuit_breaker": {"failure_threshold": 1, "timeout": "1h"},
    });
    let document = guarded(
        "1",
        json!({"one": one, "two": {"url": two.url(), "concurrency_limit": 2}}),
    );
    let edge = Edge::serving(&document).await;
    assert_eq!(
        edge.get("acme", "/").await.status,
        200,
        "the first one goes on"
    );
    let _held = [hold(&edge, "acme").await, hold(&edge, "acme").await];
    two.wait_requests(3).await;
    assert_eq!(
        (in_flight(&edge, "one").await, in_flight(&edge, "two").await),
        (0, 2)
    );
    let full = edge.get("acme", "/").await;
    full.assert_error(429, "concurrency_limit");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_by_its_length() {
    let cell = Cell::echo("one").await;
    let document = guarded(
        "1",
        json!({"one": {"url": cell.url(), "max_request_body_bytes": 10}}),
    );
    let edge = Edge::serving(&document).await;
    let post = |length: usize, body: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    assert_eq!(edge.exchange(post(10, "0123456789")).await.status, 200);
    // The connection ends after the response, which reaches the client.
    for (length, body) in [(11, "0123456789a"), (1 << 30, "0123456789a")] {
        let mut client = edge.client().await;
        client.send(post(length, body)).await;
        let large = client.response().await;
        large.assert_error(413, "body_too_large");
        large.assert_routed("one", "tier");
        assert!(large.closes(), "{large:?}");
        client.closed().await;
    }
    assert_eq!(cell.requests(), 1);
    // A client with `Expect: 100-continue` does not need to send the body.
    let mut polite = edge.client().await;
    polite
        .send(
            "POST / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\nContent-Length: 11\r\n\
             Expect: 100-continue\r\n\r\n",
        )
        .await;
    let answer = polite.response().await;
    answer.assert_error(413, "body_too_large");
    assert!(answer.interim.is_empty());
    polite.closed().await;
    assert_eq!(cell.requests(), 1, "no cell saw any of it");
}

/// Chunked bodies announce no length, so they are counted as they pass. The cell must not take a part for the
/// whole.
#[tokio::test]
async fn a_chunked_body_over_the_limit_is_cut_off() {
    let cell = Cell::echo("one").await;
    let document = guarded(
        "1",
        json!({"one": {"url": cell.url(), "max_request_body_bytes": 10}}),
    );
    let edge = Edge::serving(&document).await;
    let head =
        "POST / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\nTransfer-Encoding: chunked\r\n\r\n";
    let fits = edge
        .exchange(format!("{head}5\r\nabcde\r\n5\r\nfghij\r\n0\r\n\r\n"))
        .await;
    assert_eq!(fits.status, 200);
    assert_eq!(cell.last().body, b"abcdefghij");

    // In one write, and in pieces.
    let whole = edge
        .exchange(format!("{head}b\r\nabcdefghijk\r\n0\r\n\r\n"))
        .await;
    whole.assert_error(413, "body_too_large");
    let mut slow = edge.client().await;
    slow.send(format!("{head}6\r\nabcdef\r\n")).await;
    eventually("the cell sees the request begin", async || {
        (cell.open() > 0).then_some(())
    })
    .await;
    slow.send("6\r\nghijkl\r\n").await;
    let answer = slow.response().await;
    answer.assert_error(413, "body_too_large");
    slow.closed().await;
    cell.wait_unconnected().await;
    assert_eq!(cell.requests(), 1, "neither was whole to the cell");
    let rejected = ["cellgate_requests_rejected_total", "body_too_large"];
    assert_eq!(edge.metric(&rejected).await, 2.0);
    // None of this counts as a failure of the cell.
    assert_eq!(edge.get("acme", "/").await.status, 200);
}

/// 0 allows requests without a body and no others.
#[tokio::test]
async fn no_body_at_all() {
    let cell = Cell::echo("one").await;
    let document = guarded(
        "1",
        json!({"one": {"url": cell.url(), "max_request_body_bytes": 0}}),
    );
    let edge = Edge::serving(&document).await;
    let head = "POST / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\n";
    assert_eq!(
        edge.exchange(format!("{head}Content-Length: 0\r\n\r\n"))
            .await
            .status,
        200
    );
    assert_eq!(edge.get("acme", "/").await.status, 200);
    let one = edge
        .exchange(format!("{head}Content-Length: 1\r\n\r\nx"))
        .await;
    one.assert_error(413, "body_too_large");
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
    let empty = edge.exchange(format!("{chunked}0\r\n\r\n")).await;
    assert_eq!(empty.status, 200);
    let one = edge.exchange(format!("{chunked}1\r\nx\r\n0\r\n\r\n")).await;
    one.assert_error(413, "body_too_large");
}
