//! `https` endpoints: always verified, and not used when verification fails.

use serde_json::json;

use crate::harness::{Authority, Cell, Edge, EdgeBuilder, document, table, tls_cell};

/// An edge that trusts `authority` and sends all requests to `endpoint`; `hosts` all resolve to 127.0.0.1.
fn trusting(authority: &Authority, endpoint: &str) -> EdgeBuilder {
    let builder = Edge::builder();
    let ca = builder.directory().join("ca.pem");
    authority.write(&ca);
    builder
        .routing(&document(
            "1",
            table(&[("acme", "tier1")]),
            json!({"tier1": endpoint}),
            "tier1",
        ))
        .set("cellgate.tls", json!({"ca_file": ca.to_string_lossy()}))
        .set(
            "cellgate.hosts",
            json!({"cell.test": "127.0.0.1", "other.test": "127.0.0.1"}),
        )
}

#[tokio::test]
async fn a_verified_cell_is_served() {
    let authority = Authority::new("ours");
    let cell = tls_cell("tier1", &authority.issue("cell.test")).await;
    let edge = trusting(&authority, &format!("https://cell.test:{}", cell.port()))
        .start()
        .await;
    let mut client = edge.client().await;
    for _ in 0..10 {
        let response = client.get("acme", "/").await;
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, "tier1"),
            "{response:?}"
        );
        response.assert_routed("tier1", "tier");
    }
    assert!(
        cell.connections() <= 2,
        "{} handshakes for 10 requests",
        cell.connections()
    );
    // Host is that of the client, whatever name the cell was verified by.
    assert_eq!(cell.last().get("host"), Some("edge"));
}

#[tokio::test]
async fn a_cell_verified_by_its_address() {
    let authority = Authority::new("ours");
    let cell = tls_cell("tier1", &authority.issue("127.0.0.1")).await;
    let edge = trusting(&authority, &format!("https://127.0.0.1:{}", cell.port()))
        .start()
        .await;
    let response = edge.get("acme", "/").await;
    // A cell is verified by the address in its certificate or refused, never used unverified.
    if response.status != 200 {
        response.assert_error(502, "upstream_unverified");
    }
    let wrong = tls_cell("tier1", &authority.issue("127.0.0.2")).await;
    let edge = trusting(&authority, &format!("https://127.0.0.1:{}", wrong.port()))
        .start()
        .await;
    edge.get("acme", "/")
        .await
        .assert_error(502, "upstream_unverified");
    assert_eq!(wrong.requests(), 0);
}

async fn unverified(edge: &Edge, cell: &Cell) {
    for _ in 0..2 {
        let response = edge.get("acme", "/").await;
        response.assert_error(502, "upstream_unverified");
        response.assert_routed("tier1", "tier");
    }
    assert_eq!(
        cell.requests(),
        0,
        "a request went to a cell that was not verified"
    );
    edge.log.wait("cell.test").await;
}

#[tokio::test]
async fn a_certificate_from_a_stranger() {
    let cell = tls_cell("tier1", &Authority::new("theirs").issue("cell.test")).await;
    let endpoint = format!("https://cell.test:{}", cell.port());
    let edge = trusting(&Authority::new("ours"), &endpoint).start().await;
    unverified(&edge, &cell).await;
}

#[tokio::test]
async fn a_certificate_for_another_name() {
    let authority = Authority::new("ours");
    let cell = tls_cell("tier1", &authority.issue("other.test")).await;
    let edge = trusting(&authority, &format!("https://cell.test:{}", cell.port()))
        .start()
        .await;
    unverified(&edge, &cell).await;
}

#[tokio::test]
async fn a_certificate_whose_time_is_over() {
    let authority = Authority::new("ours");
    let cell = tls_cell("tier1", &authority.issue_expired("cell.test")).await;
    let edge = trusting(&authority, &format!("https://cell.test:{}", cell.port()))
        .start()
        .await;
    unverified(&edge, &cell).await;
}

/// Without `ca_file`, the system's certificates are trusted; the test's authority is not among them.
#[tokio::test]
async fn the_system_does_not_know_our_authority() {
    let cell = tls_cell("tier1", &Authority::new("ours").issue("cell.test")).await;
    let endpoint = format!("https://cell.test:{}", cell.port());
    let edge = Edge::builder()
        .routing(&document(
            "1",
            table(&[("acme", "tier1")]),
            json!({"tier1": endpoint}),
            "tier1",
        ))
        .set("cellgate.hosts", json!({"cell.test": "127.0.0.1"}))
        .start()
        .await;
    unverified(&edge, &cell).await;
}

/// A pooled connection that was verified for one name must not serve another name at the same address.
#[tokio::test]
async fn a_connection_verified_for_one_name_is_not_used_for_another() {
    let authority = Authority::new("ours");
    let cell = tls_cell("tier1", &authority.issue("cell.test")).await;
    let endpoints = json!({
        "good": format!("https://cell.test:{}", cell.port()),
        "bad": format!("https://other.test:{}", cell.port()),
        "plain": format!("http://cell.test:{}", cell.port()),
    });
    let routes = table(&[("g", "good"), ("b", "bad"), ("p", "plain")]);
    let edge = trusting(&authority, "https://cell.test:1")
        .routing(&document("1", routes, endpoints, "good"))
        .start()
        .await;
    for _ in 0..5 {
        assert_eq!(edge.get("g", "/").await.status, 200);
        edge.get("b", "/")
            .await
            .assert_error(502, "upstream_unverified");
        assert_eq!(edge.get("p", "/").await.status, 502);
    }
    assert_eq!(cell.requests(), 5);
}

/// A plain HTTP cell at an `https` endpoint, and a silent one.
#[tokio::test]
async fn a_cell_that_does_not_speak_tls() {
    let authority = Authority::new("ours");
    let plain = Cell::scripted("tier1", |mut conn| async move {
        conn.wire.fill().await?;
        conn.wire
            .send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            .await
    })
    .await;
    let edge = trusting(&authority, &format!("https://cell.test:{}", plain.port()))
        .start()
        .await;
    let response = edge.get("acme", "/").await;
    assert_eq!(response.status, 502, "{response:?}");

    let silent = Cell::scripted("tier1", |mut conn| async move {
        conn.wire.rest().await.map(drop)
    });
    let silent = silent.await;
    let edge = trusting(&authority, &format!("https://cell.test:{}", silent.port()))
        .set("cellgate.timeouts.connect", "300ms")
        .start()
        .await;
    edge.get("acme", "/")
        .await
        .assert_error(504, "upstream_connect_timeout");
}
