//! Client connections: versions, reuse, pipelining, upgrades.

use std::time::Duration;

use crate::harness::{Cell, Edge, document, eventually, placements, table};

const KEY: &str = "Host: e\r\nX-Routing-Key: acme\r\n";

#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    client.send(format!("GET / HTTP/1.0\r\n{KEY}\r\n")).await;
    let response = client.response().await;
    assert_eq!((response.status, response.text().as_str()), (200, "tier1"));
    client.closed().await;
    assert!(
        cell.last().head.start.ends_with("HTTP/1.1"),
        "{:?}",
        cell.last().head.start
    );

    // HTTP/1.0 requests need no Host (RFC 9112, section 3.2).
    let mut client = edge.client().await;
    client
        .send("GET / HTTP/1.0\r\nX-Routing-Key: acme\r\n\r\n")
        .await;
    assert_eq!(client.response().await.status, 200);
    // The request to the cell is HTTP/1.1 and must have a Host; it is empty, as there is no name (RFC 9112,
    // section 3.2).
    assert_eq!(cell.last().head.all("host"), [""]);

    // Here the name is in the target.
    let mut client = edge.client().await;
    client
        .send("GET http://shop.example/ HTTP/1.0\r\nX-Routing-Key: acme\r\n\r\n")
        .await;
    assert_eq!(client.response().await.status, 200);
    for field in ["host", "x-forwarded-host"] {
        assert_eq!(cell.last().head.all(field), ["shop.example"], "{field}");
    }
}

/// HTTP/1.0 has no interim responses (RFC 9110, section 15.2).
#[tokio::test]
async fn http_1_0_gets_no_interim_answers() {
    let cell = Cell::answering(
        "tier1",
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    client.send(format!("GET / HTTP/1.0\r\n{KEY}\r\n")).await;
    let response = client.response().await;
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    assert!(response.interim.is_empty(), "{:?}", response.interim);
    client.closed().await;
}

#[tokio::test]
async fn http_1_0_may_keep_its_connection() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    for _ in 0..3 {
        client
            .send(format!(
                "GET / HTTP/1.0\r\n{KEY}Connection: keep-alive\r\n\r\n"
            ))
            .await;
        let response = client.response().await;
        assert_eq!((response.status, response.text().as_str()), (200, "tier1"));
        // The connection is kept if and only if the response says so.
        if response.closes() {
            client.closed().await;
            return;
        }
    }
}

/// HTTP/1.0 has no chunked coding (RFC 9112, section 6.1): the end of the connection ends the body.
#[tokio::test]
async fn http_1_0_gets_no_chunks() {
    let cell = Cell::answering(
        "tier1",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    )
    .await;
    let edge = Edge::before(&cell).start().await;
    for connection in ["", "Connection: keep-alive\r\n"] {
        let mut client = edge.client().await;
        client
            .send(format!("GET / HTTP/1.0\r\n{KEY}{connection}\r\n"))
            .await;
        let response = client.response().await;
        assert_eq!(response.get("transfer-encoding"), None, "{response:?}");
        assert_eq!(response.text(), "hello world");
        client.closed().await;
    }
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        let head = conn.head().await?.unwrap_or_default();
        if head.get("upgrade") != Some("websocket") {
            return conn.reply().await;
        }
        conn.wire
            .send(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nwelcome;",
            )
            .await?;
        while let Some(line) = conn.wire.through(b";").await? {
            conn.wire.send(&line.to_ascii_uppercase()).await?;
        }
        Ok(())
    })
    .await;
    // A tunnel lives as long as bytes flow; the limits on requests do not apply to it.
    let edge = Edge::before(&cell)
        .set("cellgate.timeouts.response_header", "300ms")
        .set("cellgate.timeouts.request", "400ms")
        .start()
        .await;
    let mut client = edge.client().await;
    client
        .send(format!(
            "GET /chat HTTP/1.1\r\n{KEY}Upgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ))
        .await;
    let response = client.response().await;
    assert_eq!(response.status, 101, "{response:?}");
    assert_eq!(response.get("upgrade"), Some("websocket"));
    assert_eq!(
        response
            .get("connection")
            .map(str::to_ascii_lowercase)
            .as_deref(),
        Some("upgrade")
    );
    assert_eq!(
        response.get("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    response.assert_routed("tier1", "tier");
    assert_eq!(
        cell.last().get("sec-websocket-key"),
        Some("dGhlIHNhbXBsZSBub25jZQ==")
    );

    let read = async |client: &mut crate::harness::Client| {
        let line = client
            .wire()
            .through(b";")
            .await
            .expect("a read")
            .expect("a line");
        String::from_utf8(line).expect("text")
    };
    assert_eq!(read(&mut client).await, "welcome;");
    for word in ["one;", "GET / HTTP/1.1\r\nHost: x\r\n\r\n;", "\0\u{1};"] {
        client.send(word).await;
        assert_eq!(read(&mut client).await, word.to_ascii_uppercase());
        // The pauses add up to more than the deadlines of a request.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(
        cell.requests(),
        1,
        "bytes in the tunnel were taken for a request"
    );
    // It does not keep the table that it was routed by in memory.
    let (routes, endpoints) = (table(&[("acme", "tier1")]), placements(&[&cell]));
    edge.write_routing(&document("2", routes, endpoints, "tier1"));
    edge.wait_version("2").await;
    eventually("the first table is freed", async || {
        (edge.metric(&["cellgate_generations_alive"]).await == 1.0).then_some(())
    })
    .await;
    client.send("still here;").await;
    assert_eq!(read(&mut client).await, "STILL HERE;");
    drop(client);
    cell.wait_unconnected().await;
}

/// A cell that ignores the upgrade responds as usual, and the connection stays HTTP.
#[tokio::test]
async fn a_declined_upgrade_is_an_ordinary_answer() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    client
        .send(format!(
            "GET / HTTP/1.1\r\n{KEY}Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        ))
        .await;
    assert_eq!(client.response().await.text(), "tier1");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        while let Some(request) = conn.request().await? {
            let text = format!("{} {}", request.head.target(), request.body.len());
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            );
            conn.wire.send(answer.as_bytes()).await?;
        }
        Ok(())
    })
    .await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    let mut all = String::new();
    let mut expected = Vec::new();
    for number in 0..20 {
        let (head, body, length) = match number % 3 {
            0 => ("GET", String::new(), 0),
            1 => ("POST", "Content-Length: 4\r\n\r\nbody".to_owned(), 4),
            _ => (
                "POST",
                "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_owned(),
                3,
            ),
        };
        let body = if body.is_empty() {
            "\r\n".to_owned()
        } else {
            body
        };
        all.push_str(&format!("{head} /{number} HTTP/1.1\r\n{KEY}{body}"));
        expected.push(format!("/{number} {length}"));
    }
    client.send(all).await;
    for expected in expected {
        assert_eq!(client.response().await.text(), expected);
    }
}

/// Pipelined bytes must not disturb the request in progress.
#[tokio::test]
async fn a_pipelined_request_waits_for_the_one_before() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        while conn.request().await?.is_some() {
            // Time for the second request to arrive while the first is in progress.
            tokio::time::sleep(Duration::from_millis(300)).await;
            conn.reply().await?;
        }
        Ok(())
    })
    .await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    client.send(format!("GET /1 HTTP/1.1\r\n{KEY}\r\n")).await;
    cell.wait_requests(1).await;
    client.send(format!("GET /2 HTTP/1.1\r\n{KEY}\r\n")).await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn a_client_connection_is_reused_and_closed_when_asked() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    for _ in 0..100 {
        let response = client.get("acme", "/").await;
        assert_eq!(response.status, 200);
        assert!(!response.closes(), "{response:?}");
    }
    client
        .send(format!("GET / HTTP/1.1\r\n{KEY}Connection: close\r\n\r\n"))
        .await;
    let response = client.response().await;
    assert_eq!(response.status, 200);
    assert!(response.closes(), "{response:?}");
    client.closed().await;
}

/// A request may be split into any packets, and may follow the empty lines that some clients send (RFC 9112,
/// section 2.2).
#[tokio::test]
async fn a_request_may_arrive_byte_by_byte() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    let request = format!(
        "\r\nPOST / HTTP/1.1\r\n{KEY}Transfer-Encoding: chunked\r\n\r\n4;x\r\nbody\r\n0\r\nT: v\r\n\r\n"
    );
    for _ in 0..2 {
        for byte in request.as_bytes() {
            client.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(client.response().await.text(), "tier1");
        assert_eq!(cell.last().body, b"body");
    }
}
