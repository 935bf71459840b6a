//! Deadlines and limits towards clients: slow and idle connections are closed.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Cell, Client, Edge, document, eventually, memory, within};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\n\r\n";

/// A client that sends a byte now and then: each read succeeds, and the header never ends.
#[tokio::test]
async fn a_dripping_header_is_cut_off() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell)
        .set("cellgate.timeouts.client_header", "600ms")
        .start()
        .await;
    let began = Instant::now();
    let mut client = edge.client().await;
    client
        .send("GET / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\nX-Slow: ")
        .await;
    let dripping = async {
        loop {
            tokio::select! {
                answer = client.try_response("GET") => break answer,
                // The pace of the drip.
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
            if client.wire().send(b"x").await.is_err() {
                break client.try_response("GET").await;
            }
        }
    };
    let answer = within("the end of the drip", dripping).await;
    assert!(
        began.elapsed() >= Duration::from_millis(590),
        "{:?}",
        began.elapsed()
    );
    if let Ok(Some(response)) = answer {
        response.assert_error(408, "request_header_timeout");
        assert!(response.closes());
    }
    client.closed().await;
    assert_eq!(cell.requests(), 0);
}

/// The same on a connection that has served requests before.
#[tokio::test]
async fn a_dripping_header_is_cut_off_on_a_kept_connection() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell)
        .set("cellgate.timeouts.client_header", "600ms")
        .set("cellgate.timeouts.client_idle", "60s")
        .start()
        .await;
    let mut client = edge.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("acme", "/").await.status, 200);
    }
    client.send("GET / HTTP/1.1\r\nHost").await;
    let began = Instant::now();
    if let Ok(Some(response)) = client.try_response("GET").await {
        response.assert_error(408, "request_header_timeout");
    }
    client.closed().await;
    let waited = began.elapsed();
    assert!(waited >= Duration::from_millis(590), "{waited:?}");
}

/// A connection without any byte is closed after the header timeout.
#[tokio::test]
async fn a_silent_connection_is_closed() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell)
        .set("cellgate.timeouts.client_header", "400ms")
        .set("cellgate.timeouts.client_idle", "60s")
        .start()
        .await;
    let mut client = edge.client().await;
    if let Ok(Some(response)) = client.try_response("GET").await {
        response.assert_error(408, "request_header_timeout");
    }
    client.closed().await;
}

#[tokio::test]
async fn an_idle_kept_connection_is_closed() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell)
        .set("cellgate.timeouts.client_idle", "400ms")
        .start()
        .await;
    let mut client = edge.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("acme", "/").await.status, 200);
    }
    let began = Instant::now();
    // Between requests there is nothing to respond to: the connection is just closed.
    client.closed().await;
    let waited = began.elapsed();
    assert!(waited >= Duration::from_millis(350), "{waited:?}");
}

#[tokio::test]
async fn a_header_may_be_large_but_not_too_large() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell)
        .set("cellgate.limits.header_bytes", 16_384)
        .start()
        .await;
    let request = |filler: usize| {
        let filler = "x".repeat(filler);
        format!("GET / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\nX-Fill: {filler}\r\n\r\n")
    };
    assert_eq!(edge.exchange(request(15_000)).await.status, 200);
    assert_eq!(cell.last().get("x-fill").map(str::len), Some(15_000));
    let response = edge.exchange(request(17_000)).await;
    response.assert_error(431, "header_too_large");
    assert!(response.closes());
    // The limit counts one long line, many short ones, and a long target alike.
    let many = "X-A: b\r\n".repeat(3_000);
    let many = format!("GET / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\n{many}\r\n");
    edge.exchange(many)
        .await
        .assert_error(431, "header_too_large");
    let long = format!("GET /{} HTTP/1.1\r\nHost: e\r\n\r\n", "x".repeat(17_000));
    edge.exchange(long)
        .await
        .assert_error(431, "header_too_large");
    // An endless header is refused at the limit, and its memory is bounded.
    let before = memory(edge.pid());
    let mut endless = edge.client().await;
    let chunk = "X-More: 0123456789\r\n".repeat(1_000);
    endless.send("GET / HTTP/1.1\r\nHost: e\r\n").await;
    for _ in 0..500 {
        if endless.wire().send(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    let grown = memory(edge.pid()).saturating_sub(before);
    assert!(grown < 8 << 20, "grew by {grown} bytes");
    assert_eq!(cell.requests(), 1);
}

#[tokio::test]
async fn connections_have_a_cap() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell)
        .set("cellgate.limits.client_connections", 5)
        .start()
        .await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = edge.client().await;
        assert_eq!(client.get("acme", "/").await.status, 200);
        clients.push(client);
    }
    // A connection above the limit is closed at once or not served; the others are not affected.
    let mut surplus = Client::connect(edge.proxy).await;
    surplus.patience(Duration::from_millis(500));
    let _ = surplus.wire().send(REQUEST).await;
    if let Ok(Some(response)) = surplus.try_response("GET").await {
        assert_eq!(response.status, 503, "{response:?}");
    }
    drop(surplus);
    for client in &mut clients {
        assert_eq!(client.get("acme", "/").await.status, 200);
    }
    assert!(edge.metric(&["cellgate_client_connections_refused"]).await >= 1.0);
    // A connection that ends makes room for another.
    clients.pop();
    eventually("a free place is taken", async || {
        let mut next = Client::connect(edge.proxy).await;
        next.wire().send(REQUEST).await.ok()?;
        let answer = next.try_response("GET").await.ok()??;
        (answer.status == 200).then_some(())
    })
    .await;
}

/// The admin service is reachable when the proxy has reached its connection limit.
#[tokio::test]
async fn the_cap_is_not_the_admin_services() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell)
        .set("cellgate.limits.client_connections", 1)
        .start()
        .await;
    let mut client = edge.client().await;
    assert_eq!(client.get("acme", "/").await.status, 200);
    assert_eq!(edge.admin("/readyz").await.status, 200);
}

/// A client that stops reading an endless response.
#[tokio::test]
async fn a_stalled_reader_is_let_go() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        conn.request().await?;
        conn.wire
            .send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            .await?;
        loop {
            conn.wire.send(&[b'x'; 65_536]).await?;
        }
    })
    .await;
    let edge = Edge::before(&cell)
        .set("cellgate.timeouts.stream_idle", "500ms")
        .start()
        .await;
    let mut client = Client::connect_narrow(edge.proxy).await;
    client.ask("acme", "/").await;
    cell.wait_requests(1).await;
    cell.wait_unconnected().await;
}

/// A client that stops sending a body that it announced.
#[tokio::test]
async fn a_stalled_sender_is_let_go() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        conn.head().await?;
        conn.wire.rest().await.map(drop)
    })
    .await;
    let edge = Edge::before(&cell)
        .set("cellgate.timeouts.stream_idle", "500ms")
        .start()
        .await;
    let mut client = edge.client().await;
    client
        .send(
            "POST / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\nContent-Length: 100\r\n\r\nsome",
        )
        .await;
    cell.wait_requests(1).await;
    if let Ok(Some(response)) = client.try_response("POST").await {
        assert!(matches!(response.status, 408 | 504), "{response:?}");
        assert!(response.closes());
    }
    client.closed().await;
    cell.wait_unconnected().await;
}

/// A cell that stops in the middle of a response.
#[tokio::test]
async fn a_stalled_answer_is_given_up() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        conn.request().await?;
        conn.wire
            .send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
            .await?;
        conn.wire.rest().await.map(drop)
    })
    .await;
    let edge = Edge::before(&cell)
        .set("cellgate.timeouts.stream_idle", "500ms")
        .start()
        .await;
    let mut client = edge.client().await;
    client.ask("acme", "/").await;
    // The client gets what the cell sent, and then a closed connection, not a complete response.
    let head = client
        .wire()
        .head()
        .await
        .expect("a head")
        .expect("an answer");
    assert_eq!(head.status(), 200);
    assert_eq!(client.wire().exactly(4).await.expect("the part"), b"some");
    client.closed().await;
    cell.wait_unconnected().await;
}

/// A slow response that keeps flowing is not a stalled one.
#[tokio::test]
async fn a_slow_stream_goes_on() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        conn.request().await?;
        conn.wire
            .send(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n")
            .await?;
        for _ in 0..15 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            conn.wire.send(b"x").await?;
        }
        Ok(())
    })
    .await;
    let edge = Edge::before(&cell)
        .set("cellgate.timeouts.stream_idle", "1500ms")
        .start()
        .await;
    assert_eq!(edge.get("acme", "/").await.text(), "x".repeat(15));
}

/// Clients that read nothing cost little memory each.
#[tokio::test]
async fn slow_readers_do_not_fill_the_memory() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        conn.request().await?;
        conn.wire
            .send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
            .await?;
        loop {
            conn.wire.send(&[b'x'; 65_536]).await?;
        }
    })
    .await;
    let edge = Edge::before(&cell).start().await;
    let before = memory(edge.pid());
    let mut clients = Vec::new();
    for _ in 0..100 {
        let mut client = Client::connect_narrow(edge.proxy).await;
        client.ask("acme", "/").await;
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(
            client
                .wire()
                .head()
                .await
                .expect("a head")
                .expect("an answer")
                .status(),
            200
        );
    }
    // Memory has stopped growing once five looks in a row show no growth.
    let mut last = memory(edge.pid());
    let mut steady = 0;
    let now = eventually("the memory settles", async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = memory(edge.pid());
        steady = if now > last + (256 << 10) {
            0
        } else {
            steady + 1
        };
        last = now;
        (steady >= 5).then_some(now)
    })
    .await;
    let each = now.saturating_sub(before) / 100;
    eprintln!("{} KiB for each slow reader", each >> 10);
    assert!(each < 2 << 20, "{each} bytes for each slow reader");
}

/// The reader of the log stops reading while failures of one cell fill the pipe: log lines are lost, requests
/// are not.
#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_nobody() {
    let cell = Cell::echo("good").await;
    let endpoints = json!({"good": cell.url(), "dead": format!("http://{}", Cell::nobody().await)});
    let routing = document("1", json!({"a": "good", "b": "dead"}), endpoints, "good");
    let mut edge = Edge::builder()
        .routing(&routing)
        .set("grace_period_seconds", 5)
        .start()
        .await;
    edge.log.stall();
    // A pipe holds 64 KiB (pipe(7)); a failure's line has more than 200 bytes.
    let mut client = edge.client().await;
    for _ in 0..600 {
        client.ask("b", "/").await;
        let response = client.response().await;
        response.assert_error(502, "upstream_unreachable");
        if response.closes() {
            client = edge.client().await;
        }
    }
    for _ in 0..20 {
        assert_eq!(edge.get("a", "/").await.text(), "good");
    }
    edge.signal(libc::SIGTERM);
    assert!(edge.exited().await.success());
}
