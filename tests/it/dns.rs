//! Endpoint names: resolved in the background; one that does not resolve does not affect other placements.

use serde_json::json;

use crate::harness::{Cell, Edge, document, table};

#[tokio::test]
async fn a_name_that_does_not_resolve_fails_alone() {
    let cell = Cell::echo("fine").await;
    // `.invalid` never resolves (RFC 6761).
    let endpoints = json!({"lost": "http://cell.invalid:9001", "fine": cell.url()});
    let routes = table(&[("l", "lost"), ("f", "fine")]);
    let edge = Edge::serving(&document("1", routes, endpoints, "fine")).await;
    assert_eq!(edge.get("f", "/").await.text(), "fine");
    let response = edge.get("l", "/").await;
    response.assert_error(502, "upstream_unresolved");
    response.assert_routed("lost", "dedicated");
    edge.log.wait("cell.invalid").await;
    assert_eq!(edge.get("f", "/").await.text(), "fine");
    assert!(edge.metric(&["cellgate_dns_failures"]).await >= 1.0);
    assert_eq!(edge.admin("/readyz").await.status, 200);
}

/// The same in a document that arrives later: the document is applied.
#[tokio::test]
async fn a_name_that_does_not_resolve_never_refuses_a_document() {
    let cell = Cell::echo("fine").await;
    let edge = Edge::serving(&document(
        "1",
        json!({}),
        json!({"fine": cell.url()}),
        "fine",
    ))
    .await;
    let endpoints = json!({"lost": "http://cell.invalid:9001", "fine": cell.url()});
    edge.write_routing(&document("2", table(&[("l", "lost")]), endpoints, "fine"));
    edge.wait_version("2").await;
    edge.get("l", "/")
        .await
        .assert_error(502, "upstream_unresolved");
    assert_eq!(edge.get("f", "/").await.text(), "fine");
}

#[tokio::test]
async fn hosts_in_the_settings_win() {
    let cell = Cell::echo("tier1").await;
    let endpoint = format!("http://Cell-Tier1.invalid:{}", cell.port());
    let edge = Edge::builder()
        .routing(&document(
            "1",
            json!({}),
            json!({"tier1": endpoint}),
            "tier1",
        ))
        .set("cellgate.hosts", json!({"cell-tier1.invalid": "127.0.0.1"}))
        .start()
        .await;
    assert_eq!(edge.get("acme", "/").await.text(), "tier1");
    let route = edge.admin("/debug/route?key=acme").await.text();
    assert!(route.contains(&cell.address.to_string()), "{route}");
}

/// A name with several addresses, and a cell that listens on only one of them.
#[tokio::test]
async fn names_resolve_to_all_their_addresses() {
    let cell = Cell::echo("tier1").await;
    let endpoint = format!("http://localhost:{}", cell.port());
    let edge = Edge::serving(&document(
        "1",
        json!({}),
        json!({"tier1": endpoint}),
        "tier1",
    ))
    .await;
    // Where ::1 comes first, nothing listens there: the edge tries the other address, and the client notices
    // nothing.
    for _ in 0..10 {
        let response = edge.get("acme", "/").await;
        assert_eq!(response.status, 200, "{response:?}");
    }
}

#[tokio::test]
async fn addresses_need_no_names() {
    let cell = Cell::echo("tier1").await;
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let six = tokio::net::TcpListener::bind("[::1]:0")
        .await
        .expect("a free port");
    let address = six.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = six.accept().await {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut some = [0; 1024];
            let _ = stream.read(&mut some).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nsix")
                .await;
        }
    });
    let endpoints = json!({"four": cell.url(), "six": format!("http://{address}")});
    let routes = table(&[("4", "four"), ("6", "six")]);
    let edge = Edge::serving(&document("1", routes, endpoints, "four")).await;
    assert_eq!(edge.get("4", "/").await.text(), "tier1");
    assert_eq!(edge.get("6", "/").await.text(), "six");
}
