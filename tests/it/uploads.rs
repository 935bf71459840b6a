//! Uploads that a cell does not take.

use std::time::Duration;

use crate::harness::{Cell, Edge, eventually};

const KEY: &str = "Host: e\r\nX-Routing-Key: acme\r\n";

/// A small upload fits in the buffers of the cell's kernel, so the edge waits for the response; a large one
/// stalls.
#[tokio::test]
async fn a_cell_that_never_reads_the_upload() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        conn.head().await?;
        // Reads nothing more until the test ends.
        std::future::pending().await
    })
    .await;
    let edge = Edge::before(&cell)
        .set("cellgate.timeouts.response_header", "500ms")
        .set("cellgate.timeouts.stream_idle", "800ms")
        .start()
        .await;
    for (length, code) in [
        (1 << 10, "upstream_response_timeout"),
        (64 << 20, "stream_idle_timeout"),
    ] {
        let mut client = edge.client().await;
        let head = format!("POST / HTTP/1.1\r\n{KEY}Content-Length: {length}\r\n\r\n");
        client.send(head).await;
        let body = vec![b'x'; length];
        let mut sent = 0;
        // Until all of it is sent, or refused, or the upload stalls.
        while let Some(part) = body.get(sent..body.len().min(sent + (64 << 10)))
            && !part.is_empty()
            && let Ok(Ok(())) =
                tokio::time::timeout(Duration::from_millis(300), client.wire().send(part)).await
        {
            sent += part.len();
        }
        let response = client.response().await;
        assert_eq!(response.status, 504, "{length}: {response:?}");
        response.assert_error(504, code);
        response.assert_routed("tier1", "tier");
        assert!(response.closes());
    }
    eventually("no request is in flight", async || {
        let in_flight = edge.metric(&["cellgate_requests_in_flight "]).await;
        (in_flight == 0.0).then_some(())
    })
    .await;
}

/// The client waits for a 100 Continue that nobody sends: the edge ends the request.
#[tokio::test]
async fn an_expectation_that_nobody_answers() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        conn.head().await?;
        conn.wire.rest().await.map(drop)
    })
    .await;
    let edge = Edge::before(&cell)
        .set("cellgate.timeouts.response_header", "400ms")
        .start()
        .await;
    let mut client = edge.client().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\n{KEY}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        ))
        .await;
    let response = client.response().await;
    response.assert_error(504, "upstream_response_timeout");
    assert!(response.interim.is_empty(), "{:?}", response.interim);
    client.closed().await;
    cell.wait_unconnected().await;
}
