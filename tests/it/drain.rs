//! Where a drain begins in the middle of something.

use crate::harness::{Cell, Client, Edge, eventually};
use crate::lifecycle::gated;

const GET: &str = "GET / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\n\r\n";

async fn not_ready(edge: &Edge) {
    eventually("not ready", async || {
        (edge.admin("/readyz").await.status == 503).then_some(())
    })
    .await;
}

/// The kernel has told these clients that they are connected; nobody tells them otherwise.
#[tokio::test]
async fn connections_that_wait_in_the_kernel_are_served() {
    let cell = Cell::echo("tier1").await;
    let mut edge = Edge::before(&cell).start().await;
    assert_eq!(edge.get("acme", "/").await.status, 200);
    // A stopped process accepts nothing; its kernel goes on.
    edge.signal(libc::SIGSTOP);
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = Client::connect(edge.proxy).await;
        client.send(GET).await;
        clients.push(client);
    }
    edge.signal(libc::SIGTERM);
    edge.signal(libc::SIGCONT);
    for client in &mut clients {
        let response = client.response().await;
        assert_eq!((response.status, response.text().as_str()), (200, "tier1"));
        // Who is answered before the process has seen its signal is not told that the connection ends.
        client.closed().await;
    }
    assert!(edge.exited().await.success());
}

/// An answer whose header is written after the drain began says that the connection ends, whenever its
/// request came.
#[tokio::test]
async fn an_answer_that_a_drain_overtakes_says_close() {
    let (cell, go) = gated().await;
    let mut edge = Edge::before(&cell)
        .set("cellgate.drain_delay", "60s")
        .start()
        .await;
    let mut client = edge.client().await;
    client.send(GET).await;
    cell.wait_requests(1).await;
    edge.signal(libc::SIGTERM);
    not_ready(&edge).await;
    go.send_replace(true);
    let response = client.response().await;
    assert_eq!(response.status, 200);
    assert!(response.closes(), "{response:?}");
    client.closed().await;
    // The delay is for the balancer; asked again, it ends at once.
    edge.signal(libc::SIGTERM);
    edge.exited().await;
}

/// An answer whose header went out before is finished, and its client, who could not know, gets one more.
#[tokio::test]
async fn an_answer_under_way_is_finished_and_the_next_says_close() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let cell = Cell::scripted("tier1", move |mut conn| {
        let mut gate = gate.clone();
        async move {
            while conn.request().await?.is_some() {
                let head = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nfour";
                conn.wire.send(head).await?;
                let _ = gate.wait_for(|open| *open).await;
                conn.wire.send(b"more").await?;
            }
            Ok(())
        }
    })
    .await;
    let mut edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    client.send(GET).await;
    let head = client.wire().head().await.expect("a head");
    let head = head.expect("an answer");
    assert_eq!(head.status(), 200);
    assert_eq!(
        head.get("connection"),
        Some("keep-alive"),
        "nobody knew of a drain"
    );
    assert_eq!(client.wire().exactly(4).await.expect("a part"), b"four");
    edge.signal(libc::SIGTERM);
    not_ready(&edge).await;
    go.send_replace(true);
    assert_eq!(client.wire().exactly(4).await.expect("the rest"), b"more");
    client.send(GET).await;
    let response = client.response().await;
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, "fourmore")
    );
    assert!(response.closes(), "{response:?}");
    client.closed().await;
    assert!(edge.exited().await.success());
}
