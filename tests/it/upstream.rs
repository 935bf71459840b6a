//! Cells that fail: what the client is told, and what the edge does next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpSocket;
use tokio::sync::Barrier;

use crate::harness::{Cell, Edge, EdgeBuilder, document, placements, table, within};

fn at(address: std::net::SocketAddr) -> EdgeBuilder {
    let endpoints = json!({"tier1": format!("http://{address}")});
    Edge::builder().routing(&document(
        "1",
        table(&[("acme", "tier1")]),
        endpoints,
        "tier1",
    ))
}

#[tokio::test]
async fn nobody_listens() {
    let nobody = Cell::nobody().await;
    let edge = at(nobody).start().await;
    let mut client = edge.client().await;
    client
        .send("GET / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\n\r\n")
        .await;
    let response = client.response().await;
    response.assert_error(502, "upstream_unreachable");
    response.assert_routed("tier1", "tier");
    // Where cells are is nobody's business but the operator's: it goes to the log.
    assert!(
        !response.text().contains(&nobody.port().to_string()),
        "{response:?}"
    );
    edge.log.wait(&nobody.to_string()).await;
}

/// A listener that accepts no more: its queue is full, so a connection attempt gets no answer at all.
#[tokio::test]
async fn a_cell_that_does_not_accept_in_time() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("bind");
    let listener = socket.listen(1).expect("listen");
    let address = listener.local_addr().expect("an address");
    let mut queued = Vec::new();
    let full = Duration::from_millis(300);
    while let Ok(stream) = tokio::time::timeout(full, tokio::net::TcpStream::connect(address)).await
    {
        queued.push(stream.expect("queued"));
        assert!(queued.len() < 100, "the queue does not fill");
    }

    let edge = at(address)
        .set("cellgate.timeouts.connect", "300ms")
        .start()
        .await;
    let began = Instant::now();
    let response = edge.get("acme", "/").await;
    response.assert_error(504, "upstream_connect_timeout");
    response.assert_routed("tier1", "tier");
    assert!(
        began.elapsed() >= Duration::from_millis(290),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_cell_that_does_not_answer_in_time() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        conn.request().await?;
        // Says nothing, until the edge gives up.
        conn.wire.rest().await.map(drop)
    })
    .await;
    let edge = Edge::before(&cell)
        .set("cellgate.timeouts.response_header", "300ms")
        .start()
        .await;
    let began = Instant::now();
    let response = edge.get("acme", "/").await;
    response.assert_error(504, "upstream_response_timeout");
    response.assert_routed("tier1", "tier");
    assert!(
        began.elapsed() >= Duration::from_millis(290),
        "{:?}",
        began.elapsed()
    );
    // The connection that hangs is given up, and nobody else gets it.
    cell.wait_unconnected().await;
    assert_eq!(
        cell.requests(),
        1,
        "a request that may have been acted on was sent again"
    );
}

#[tokio::test]
async fn all_attempts_together_have_a_limit() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        conn.request().await?;
        // Says nothing, until the edge gives up.
        conn.wire.rest().await.map(drop)
    })
    .await;
    let edge = Edge::before(&cell)
        .set("cellgate.timeouts.request", "400ms")
        .start()
        .await;
    let response = edge.get("acme", "/").await;
    response.assert_error(504, "request_timeout");
    response.assert_routed("tier1", "tier");
}

/// The deadline is for the answer's head; a body may take longer than it.
#[tokio::test]
async fn a_long_answer_is_not_a_late_one() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        conn.request().await?;
        conn.wire
            .send(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
            .await?;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            conn.wire.send(b"x").await?;
        }
        Ok(())
    })
    .await;
    let edge = Edge::before(&cell)
        .set("cellgate.timeouts.response_header", "300ms")
        .set("cellgate.timeouts.request", "400ms")
        .start()
        .await;
    let response = edge.get("acme", "/").await;
    assert_eq!(response.status, 200);
    assert_eq!(response.text(), "x".repeat(20));
}

#[tokio::test]
async fn a_cell_that_answers_nonsense_or_nothing() {
    for answer in [
        "",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 \r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nbad header: x\r\n\r\n",
    ] {
        let cell = Cell::scripted("tier1", move |mut conn| async move {
            conn.request().await?;
            conn.wire.send(answer.as_bytes()).await
        })
        .await;
        let edge = Edge::before(&cell).start().await;
        let mut client = edge.client().await;
        client
            .send("POST / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\nContent-Length: 1\r\n\r\nx")
            .await;
        let response = client.response().await;
        assert_eq!(response.status, 502, "{answer:?}: {response:?}");
        response.assert_error(502, "upstream_bad_response");
        response.assert_routed("tier1", "tier");
        assert_eq!(cell.requests(), 1, "{answer:?}: a POST was sent twice");
    }
}

/// A switch of protocols that nobody asked for would open a tunnel past every check.
#[tokio::test]
async fn an_unasked_for_101_is_refused() {
    let cell = Cell::answering(
        "tier1",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: evil\r\nConnection: Upgrade\r\n\r\n",
    )
    .await;
    let edge = Edge::before(&cell).start().await;
    edge.get("acme", "/")
        .await
        .assert_error(502, "upstream_bad_response");
}

/// A cut answer must look cut: never a whole message.
#[tokio::test]
async fn a_cut_answer_stays_cut() {
    for (head, part) in [
        ("Content-Length: 100", "only this"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n"),
        ("Transfer-Encoding: chunked", "5\r\nhel"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n\r\n"),
    ] {
        let cell = Cell::scripted("tier1", move |mut conn| async move {
            conn.request().await?;
            conn.wire
                .send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{part}").as_bytes())
                .await
        })
        .await;
        let edge = Edge::before(&cell).start().await;
        let mut client = edge.client().await;
        client
            .send("GET / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\n\r\n")
            .await;
        let answer = client.try_response("GET").await;
        let whole = answer
            .as_ref()
            .is_ok_and(|a| a.as_ref().is_some_and(|a| a.status == 200));
        assert!(!whole, "{head}, {part:?}: {answer:?}");
    }
}

#[tokio::test]
async fn connections_to_a_cell_are_kept_and_shared() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell).start().await;
    for _ in 0..10 {
        // A new client each time: the pool is the edge's, not a client's.
        assert_eq!(edge.get("acme", "/").await.status, 200);
    }
    assert!(
        cell.connections() <= 2,
        "{} connections for 10 requests",
        cell.connections()
    );
}

#[tokio::test]
async fn an_idle_connection_to_a_cell_ends() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell)
        .set("cellgate.timeouts.upstream_idle", "300ms")
        .start()
        .await;
    assert_eq!(edge.get("acme", "/").await.status, 200);
    cell.wait_unconnected().await;
}

/// A cell may close a kept connection at any moment; a client must not notice.
#[tokio::test]
async fn a_kept_connection_that_the_cell_closed_is_no_failure() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        conn.request().await?;
        conn.reply().await
    })
    .await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    for _ in 0..30 {
        let response = client.get("acme", "/").await;
        assert_eq!(response.status, 200, "{response:?}");
        cell.wait_unconnected().await;
    }
}

/// Closed at the very moment of reuse, after the request was sent: GET goes again, POST does not.
#[tokio::test]
async fn a_request_on_a_dying_connection_goes_again_only_when_safe() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        conn.request().await?;
        conn.reply().await?;
        conn.request().await?;
        Ok(())
    })
    .await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;

    assert_eq!(client.get("acme", "/").await.status, 200);
    assert_eq!(client.get("acme", "/again").await.status, 200);
    let sent: Vec<_> = cell
        .recorded()
        .iter()
        .map(|r| r.head.target().to_owned())
        .collect();
    assert_eq!(sent, ["/", "/again", "/again"]);

    // The connection that took it the second time was for that alone; the next is kept, and the next
    // request on it dies.
    assert_eq!(client.get("acme", "/").await.status, 200);
    client
        .send(
            "POST /order HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\nContent-Length: 1\r\n\r\nx",
        )
        .await;
    client
        .response()
        .await
        .assert_error(502, "upstream_bad_response");
    let orders = cell
        .recorded()
        .iter()
        .filter(|r| r.head.target() == "/order")
        .count();
    assert_eq!(orders, 1, "an order was placed twice");
}

/// When a cell dies, every connection to it that was kept dies, and some are not seen to be closed yet. A
/// request tries one of them, not one after the other until it may try no more.
#[tokio::test]
async fn a_request_meets_one_dying_connection_at_most() {
    const KEPT: usize = 6;
    let answering = Arc::new(Barrier::new(KEPT));
    let cell = Cell::scripted("tier1", move |mut conn| {
        let answering = answering.clone();
        async move {
            let first = conn.request().await?;
            if first.is_some_and(|request| request.head.target() == "/keep") {
                answering.wait().await;
            }
            conn.reply().await?;
            conn.request().await?;
            Ok(())
        }
    })
    .await;
    let edge = Edge::before(&cell).set("max_retries", 1).start().await;
    let mut clients = Vec::new();
    for _ in 0..KEPT {
        let mut client = edge.client().await;
        client
            .send("GET /keep HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\n\r\n")
            .await;
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(client.response().await.status, 200);
    }
    assert_eq!(edge.get("acme", "/").await.status, 200);
    assert_eq!(cell.requests(), KEPT + 2);
}

/// One cell that hangs takes nothing from the others.
#[tokio::test]
async fn a_hanging_cell_does_not_hold_up_the_others() {
    let hanging = Cell::scripted("hang", |mut conn| async move {
        conn.request().await?;
        // Says nothing, until the edge gives up.
        conn.wire.rest().await.map(drop)
    })
    .await;
    let fine = Cell::echo("fine").await;
    let routes = table(&[("h", "hang"), ("f", "fine")]);
    let edge = Edge::serving(&document(
        "1",
        routes,
        placements(&[&hanging, &fine]),
        "fine",
    ))
    .await;
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let mut client = edge.client().await;
        client
            .send("GET / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: h\r\n\r\n")
            .await;
        waiting.push(client);
    }
    hanging.wait_requests(100).await;
    within("the other cell answers", async {
        for _ in 0..20 {
            assert_eq!(edge.get("f", "/").await.status, 200);
        }
    })
    .await;
}

/// A client that leaves is not waited for: the cell's connection ends as well.
#[tokio::test]
async fn a_client_that_leaves_frees_the_cell() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        conn.request().await?;
        // Ends when the edge closes, which is the point.
        conn.wire.rest().await.map(drop)
    })
    .await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    client
        .send("GET / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\n\r\n")
        .await;
    cell.wait_requests(1).await;
    drop(client);
    cell.wait_unconnected().await;
    assert!(!edge.log.text().contains("panicked"));
}
