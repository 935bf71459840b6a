//! Which cell a request goes to, and which headers tell client and cell about it.

use serde_json::json;

use crate::harness::{Cell, Edge, document, placements, table};

/// Four cells under the names of the sample document, and an edge in front of them.
async fn sample() -> ([Cell; 4], Edge) {
    let cells = [
        Cell::echo("tier1").await,
        Cell::echo("tier2").await,
        Cell::echo("tier3").await,
        Cell::echo("visa").await,
    ];
    let routes = [
        ("acme", "tier1"),
        ("globex", "tier2"),
        ("initech", "tier3"),
        ("visa", "visa"),
    ];
    let endpoints = placements(&cells.each_ref());
    let edge = Edge::serving(&document("1.0.0", table(&routes), endpoints, "tier3")).await;
    (cells, edge)
}

#[tokio::test]
async fn each_key_goes_to_its_placement() {
    let (_cells, edge) = sample().await;
    let mut client = edge.client().await;
    for (key, placement, reason) in [
        ("acme", "tier1", "tier"),
        ("globex", "tier2", "tier"),
        ("initech", "tier3", "tier"),
        ("visa", "visa", "dedicated"),
        ("nobody", "tier3", "default"),
        ("ACME", "tier3", "default"),
        ("acme2", "tier3", "default"),
    ] {
        let response = client.get(key, "/").await;
        assert_eq!(response.status, 200, "{key}: {response:?}");
        assert_eq!(response.get("x-cell-name"), Some(placement), "{key}");
        assert_eq!(response.text(), placement, "{key}");
        response.assert_routed(placement, reason);
    }
}

/// A placement is shared when several keys live there, whatever its name.
#[tokio::test]
async fn reasons_follow_the_table() {
    let cells = [
        Cell::echo("east").await,
        Cell::echo("west").await,
        Cell::echo("tier12").await,
    ];
    let routes = [("a", "east"), ("b", "east"), ("c", "west"), ("d", "tier12")];
    let endpoints = placements(&cells.each_ref());
    let edge = Edge::serving(&document("1", table(&routes), endpoints, "west")).await;
    for (key, placement, reason) in [
        ("a", "east", "tier"),
        ("c", "west", "tier"),
        ("d", "tier12", "tier"),
        ("z", "west", "default"),
    ] {
        edge.get(key, "/").await.assert_routed(placement, reason);
    }
}

#[tokio::test]
async fn a_missing_or_empty_key_is_refused() {
    let (cells, edge) = sample().await;
    let mut client = edge.client().await;
    for line in ["", "X-Routing-Key:\r\n", "X-Routing-Key:  \t \r\n"] {
        client
            .send(format!("GET / HTTP/1.1\r\nHost: edge\r\n{line}\r\n"))
            .await;
        let response = client.response().await;
        response.assert_error(400, "missing_routing_key");
        assert_eq!(response.get("x-routed-to"), None);
        assert!(
            !response.closes(),
            "a refused key costs the client its connection: {response:?}"
        );
    }
    assert_eq!(cells.iter().map(Cell::requests).sum::<usize>(), 0);
    // The connection still serves.
    assert_eq!(client.get("acme", "/").await.status, 200);
}

#[tokio::test]
async fn a_missing_key_does_not_take_the_body_for_a_request() {
    let (cells, edge) = sample().await;
    let inner = "GET /smuggled HTTP/1.1\r\nHost: edge\r\nX-Routing-Key: acme\r\n\r\n";
    let mut client = edge.client().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: edge\r\nContent-Length: {}\r\n\r\n{inner}",
            inner.len()
        ))
        .await;
    client
        .response()
        .await
        .assert_error(400, "missing_routing_key");
    client.wire().finish().await.expect("half-close");
    client.closed().await;
    assert_eq!(cells.iter().map(Cell::requests).sum::<usize>(), 0);
}

#[tokio::test]
async fn several_keys_are_ambiguous() {
    let (cells, edge) = sample().await;
    let keys = "X-Routing-Key: acme\r\nX-Routing-Key: visa\r\n";
    let response = edge
        .exchange(format!("GET / HTTP/1.1\r\nHost: edge\r\n{keys}\r\n"))
        .await;
    response.assert_error(400, "ambiguous_routing_key");
    assert_eq!(cells.iter().map(Cell::requests).sum::<usize>(), 0);
}

#[tokio::test]
async fn the_key_header_is_a_setting() {
    let cells = [Cell::echo("tier1").await, Cell::echo("visa").await];
    let edge = Edge::builder()
        .routing(&document(
            "1",
            table(&[("v", "visa")]),
            placements(&cells.each_ref()),
            "tier1",
        ))
        .set("cellgate.routing_key.header", "X-Tenant")
        .start()
        .await;
    let response = edge
        .exchange("GET / HTTP/1.1\r\nHost: edge\r\nx-tenant: v\r\n\r\n")
        .await;
    response.assert_routed("visa", "dedicated");
    edge.get("v", "/")
        .await
        .assert_error(400, "missing_routing_key");
}

#[tokio::test]
async fn keys_with_odd_bytes_are_only_keys() {
    let cells = [Cell::echo("tier1").await, Cell::echo("visa").await];
    let routes = json!({"a b": "visa", "k\u{e9}y": "visa", "../x\"": "visa"});
    let edge = Edge::serving(&document(
        "1",
        routes,
        placements(&cells.each_ref()),
        "tier1",
    ))
    .await;
    for (key, reason) in [
        ("a b".as_bytes(), "tier"),
        ("k\u{e9}y".as_bytes(), "tier"),
        ("../x\"".as_bytes(), "tier"),
        (b"k\xe9y", "default"),
    ] {
        let mut request = b"GET / HTTP/1.1\r\nHost: edge\r\nX-Routing-Key: ".to_vec();
        request.extend_from_slice(key);
        request.extend_from_slice(b"\r\n\r\n");
        let response = edge.exchange(request).await;
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(response.get("x-route-reason"), Some(reason), "{response:?}");
    }
}

/// Several keys on one connection: each request is routed by its own key.
#[tokio::test]
async fn tenants_share_a_connection_without_mixing() {
    let (cells, edge) = sample().await;
    let mut client = edge.client().await;
    for _ in 0..50 {
        assert_eq!(client.get("acme", "/").await.text(), "tier1");
        assert_eq!(client.get("visa", "/").await.text(), "visa");
        client.send("GET / HTTP/1.1\r\nHost: edge\r\n\r\n").await;
        client
            .response()
            .await
            .assert_error(400, "missing_routing_key");
    }
    assert_eq!(cells[0].requests(), 50);
    assert_eq!(cells[3].requests(), 50);
    for request in cells[3].recorded() {
        assert_eq!(request.get("x-routing-key"), Some("visa"));
    }
}
