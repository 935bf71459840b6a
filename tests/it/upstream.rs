//! Cells that fail: which error the client gets, and what the edge does next.

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
    client.ask("acme", "/").await;
    let response = client.response().await;
    response.assert_error(502, "upstream_unreachable");
    response.assert_routed("tier1", "tier");
    // The addresses of cells are for operators only: they are logged, not sent to clients.
    assert!(
        !response.text().contains(&nobody.port().to_string()),
        "{response:?}"
    );
    edge.log.wait(&nobody.to_string()).await;
}

/// A listener whose accept queue is full: connection attempts get no response.
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
        // Sends nothing until the edge gives up.
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
    // The connection that hangs is closed, not pooled.
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
        // Sends nothing until the edge gives up.
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

/// The deadline is for the response header; the body may take longer.
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

/// An unrequested switch of protocols would open a tunnel past every check.
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

/// A truncated response must reach the client as truncated, never as a complete message.
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
        client.ask("acme", "/").await;
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
        // A new client connection each time: the pool belongs to the edge, not to a client connection.
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

/// A cell may close a kept connection at any moment; clients must not notice.
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

/// A kept connection that is closed just after the request was sent on it: GET is retried, POST is not.
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

    // The connection of the retry is not kept. The next one is, and the second request on it fails.
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

/// When a cell dies, all kept connections to it die, and the edge has not noticed some of them yet. A request
/// tries at most one of these, so that they do not use up its attempts.
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
        client.ask("acme", "/keep").await;
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(client.response().await.status, 200);
    }
    assert_eq!(edge.get("acme", "/").await.status, 200);
    assert_eq!(cell.requests(), KEPT + 2);
}

/// A cell that hangs does not delay the others.
#[tokio::test]
async fn a_hanging_cell_does_not_hold_up_the_others() {
    let hanging = Cell::scripted("hang", |mut conn| async move {
        conn.request().await?;
        // Sends nothing until the edge gives up.
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
        client.ask("h", "/").await;
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

/// When a client disconnects, the connection to the cell ends as well.
#[tokio::test]
async fn a_client_that_leaves_frees_the_cell() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        conn.request().await?;
        // Ends when the edge closes the connection, which the test waits for.
        conn.wire.rest().await.map(drop)
    })
    .await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    client.ask("acme", "/").await;
    cell.wait_requests(1).await;
    drop(client);
    cell.wait_unconnected().await;
    assert!(!edge.log.text().contains("panicked"));
}
