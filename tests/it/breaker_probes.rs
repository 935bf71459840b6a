//! Requests that say nothing about the cell neither open nor close a breaker, nor hold it half-open.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::{Value, json};

use crate::harness::{Cell, Client, Edge, eventually, guarded};

/// A cell whose status the test sets; it reads each body before it responds.
async fn moody(status: &Arc<AtomicU16>) -> Cell {
    let status = status.clone();
    Cell::scripted("one", move |mut conn| {
        let status = status.clone();
        async move {
            while conn.request().await?.is_some() {
                let status = status.load(Ordering::SeqCst);
                let answer = format!("HTTP/1.1 {status} Mood\r\nContent-Length: 0\r\n\r\n");
                conn.wire.send(answer.as_bytes()).await?;
            }
            Ok(())
        }
    })
    .await
}

fn one(cell: &Cell, timeout: &str) -> Value {
    json!({
        "url": cell.url(),
        "circuit_breaker": {"failure_threshold": 2, "timeout": timeout},
        "max_request_body_bytes": 1000,
    })
}

fn post(length: usize) -> String {
    format!("POST / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\nContent-Length: {length}\r\n\r\n")
}

/// A request that never left the edge does not count as a success of the cell.
#[tokio::test]
async fn a_refused_body_says_nothing_of_the_cell() {
    let status = Arc::new(AtomicU16::new(500));
    let cell = moody(&status).await;
    let edge = Edge::serving(&guarded("1", json!({"one": one(&cell, "300ms")}))).await;
    let refused = async || {
        edge.exchange(post(2000))
            .await
            .assert_error(413, "body_too_large");
    };
    assert_eq!(edge.get("acme", "/").await.status, 500);
    refused().await;
    assert_eq!(edge.get("acme", "/").await.status, 500);
    edge.get("acme", "/")
        .await
        .assert_error(503, "circuit_open");
    // Half-open, it is refused as well, and the breaker's state does not change.
    eventually("its timeout is over", async || {
        let response = edge.exchange(post(2000)).await;
        (response.status == 413).then_some(())
    })
    .await;
    let probe = edge.get("acme", "/").await;
    assert_eq!(probe.get("x-circuit-state"), Some("half_open"), "{probe:?}");
    assert_eq!(probe.status, 500);
}

/// A slow upload does not keep other requests from being admitted.
#[tokio::test]
async fn a_slow_client_does_not_hold_it_half_open() {
    let status = Arc::new(AtomicU16::new(500));
    let cell = moody(&status).await;
    let edge = Edge::serving(&guarded("1", json!({"one": one(&cell, "300ms")}))).await;
    for _ in 0..2 {
        assert_eq!(edge.get("acme", "/").await.status, 500);
    }
    status.store(200, Ordering::SeqCst);
    let mut slow: Vec<Client> = Vec::new();
    eventually("a slow upload is the probe", async || {
        let mut client = edge.client().await;
        client.send(post(100)).await;
        client.send("x").await;
        slow.push(client);
        let other = edge.get("acme", "/").await;
        (other.get("x-circuit-state") == Some("half_open")).then_some(())
    })
    .await;
    eventually("another one finds out", async || {
        let response = edge.get("acme", "/").await;
        (response.status == 200).then_some(())
    })
    .await;
    assert_eq!(
        edge.get("acme", "/").await.get("x-circuit-state"),
        Some("closed")
    );
}

/// A cell that responds early waits for a body that the client withholds.
#[tokio::test]
async fn a_client_that_stops_uploading_is_no_failure_of_the_cell() {
    let early = Cell::scripted("one", |mut conn| async move {
        while let Some(head) = conn.head().await? {
            if head.method() == "GET" {
                conn.reply().await?;
                continue;
            }
            let begin = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
            conn.wire.send(begin.as_bytes()).await?;
            conn.wire.rest().await?;
            return Ok(());
        }
        Ok(())
    })
    .await;
    let mut placement = one(&early, "1h");
    placement["timeouts"] = json!({"stream_idle": "200ms"});
    let edge = Edge::serving(&guarded("1", json!({"one": placement}))).await;
    for _ in 0..3 {
        let mut client = edge.client().await;
        client.send(post(100)).await;
        client.send("part").await;
        let head = client.wire().head().await.expect("a head").expect("a head");
        assert_eq!(head.status(), 200);
        let _ = client.wire().rest().await;
    }
    assert_eq!(
        edge.get("acme", "/").await.get("x-circuit-state"),
        Some("closed")
    );
}

/// The bytes after an upgrade are not a request body, and their end is not a failure.
#[tokio::test]
async fn tunnels_have_no_body_limit_and_no_outcome() {
    const SENT: usize = 5000;
    let cell = Cell::scripted("one", |mut conn| async move {
        while let Some(head) = conn.head().await? {
            if head.get("upgrade").is_none() {
                conn.reply().await?;
                continue;
            }
            let switch =
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            conn.wire.send(switch.as_bytes()).await?;
            let bytes = conn.wire.exactly(SENT).await?;
            conn.wire.send(&bytes).await?;
            conn.wire.rest().await?;
            return Ok(());
        }
        Ok(())
    })
    .await;
    let mut placement = one(&cell, "1h");
    placement["max_request_body_bytes"] = 0.into();
    placement["timeouts"] = json!({"stream_idle": "300ms"});
    let edge = Edge::serving(&guarded("1", json!({"one": placement}))).await;
    for _ in 0..3 {
        let mut client = edge.client().await;
        client
            .send(
                "GET / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\n\r\n",
            )
            .await;
        assert_eq!(client.response().await.status, 101);
        let sent = vec![b'x'; SENT];
        client.send(&sent).await;
        let echoed = client.wire().exactly(sent.len()).await.expect("the echo");
        assert_eq!(echoed, sent);
        // Neither side sends anything until stream_idle ends the tunnel.
        client.closed().await;
    }
    let after = edge.get("acme", "/").await;
    assert_eq!(
        (after.status, after.get("x-circuit-state")),
        (200, Some("closed"))
    );
}

/// A cell that closes idle connections is healthy, also for requests that are not retried.
#[tokio::test]
async fn a_kept_connection_that_was_closed_is_no_failure() {
    let cell = Cell::scripted("one", |mut conn| async move {
        // One response a connection, without `Connection: close`; the next request finds it closed.
        conn.request().await?;
        conn.reply().await?;
        conn.head().await?;
        Ok(())
    })
    .await;
    let edge = Edge::serving(&guarded("1", json!({"one": one(&cell, "1h")}))).await;
    let mut client = edge.client().await;
    for _ in 0..6 {
        assert_eq!(client.get("acme", "/").await.status, 200);
        client.send(format!("{}x", post(1))).await;
        let answer = client.response().await;
        assert!([200, 502].contains(&answer.status), "{answer:?}");
        if answer.closes() {
            client = edge.client().await;
        }
    }
    assert_eq!(
        edge.get("acme", "/").await.get("x-circuit-state"),
        Some("closed")
    );
}
