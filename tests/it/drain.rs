//! Drains that begin in the middle of a connection or a response.

use crate::harness::{Cell, Client, Edge, eventually};
use crate::lifecycle::gated;

async fn not_ready(edge: &Edge) {
    eventually("not ready", async || {
        (edge.admin("/readyz").await.status == 503).then_some(())
    })
    .await;
}

/// The kernel has completed these connections; a client that the kernel accepted must be served.
#[tokio::test]
async fn connections_that_wait_in_the_kernel_are_served() {
    let cell = Cell::echo("tier1").await;
    let mut edge = Edge::before(&cell).start().await;
    assert_eq!(edge.get("acme", "/").await.status, 200);
    // A stopped process accepts nothing; the kernel still completes connections.
    edge.signal(libc::SIGSTOP);
    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = Client::connect(edge.proxy).await;
        client.ask("acme", "/").await;
        clients.push(client);
    }
    edge.signal(libc::SIGTERM);
    edge.signal(libc::SIGCONT);
    for client in &mut clients {
        let response = client.response().await;
        assert_eq!((response.status, response.text().as_str()), (200, "tier1"));
        // A response sent before the process handled its signal does not announce the end of the connection.
        client.closed().await;
    }
    assert!(edge.exited().await.success());
}

/// A response whose header is written after the drain began has `Connection: close`, whenever its request
/// arrived.
#[tokio::test]
async fn an_answer_that_a_drain_overtakes_says_close() {
    let (cell, go) = gated().await;
    let mut edge = Edge::before(&cell)
        .set("cellgate.drain_delay", "60s")
        .start()
        .await;
    let mut client = edge.client().await;
    client.ask("acme", "/").await;
    cell.wait_requests(1).await;
    edge.signal(libc::SIGTERM);
    not_ready(&edge).await;
    go.send_replace(true);
    let response = client.response().await;
    assert_eq!(response.status, 200);
    assert!(response.closes(), "{response:?}");
    client.closed().await;
    // The drain delay is for load balancers; a second signal ends it at once.
    edge.signal(libc::SIGTERM);
    edge.exited().await;
}

/// A response whose header was sent before the drain is finished, and one more request on that connection is
/// answered.
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
    client.ask("acme", "/").await;
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
    client.ask("acme", "/").await;
    let response = client.response().await;
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, "fourmore")
    );
    assert!(response.closes(), "{response:?}");
    client.closed().await;
    assert!(edge.exited().await.success());
}
