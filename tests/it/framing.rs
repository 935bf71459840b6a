//! Requests that RFC 9112 forbids are refused before a cell sees them.
//!
//! Each case is a message on whose end or target two servers may disagree (request smuggling). The edge must
//! refuse it.

use crate::harness::{Cell, Client, Edge, document, placements, table};

async fn edge() -> (Cell, Edge) {
    let cell = Cell::echo("tier1").await;
    let document = document(
        "1",
        table(&[("acme", "tier1")]),
        placements(&[&cell]),
        "tier1",
    );
    let edge = Edge::serving(&document).await;
    (cell, edge)
}

const KEY: &str = "X-Routing-Key: acme\r\n";
const INNER: &str = "GET /smuggled HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\n\r\n";

/// Sends `request`, expects `status` and the end of the connection, and nothing at the cell.
async fn refused(edge: &Edge, cell: &Cell, request: &[u8], status: u16) {
    let shown = String::from_utf8_lossy(request);
    let before = cell.requests();
    let mut client = edge.client().await;
    client.send(request).await;
    // The request must be refused without waiting for more bytes.
    client.wire().finish().await.expect("half-close");
    match client.try_response("GET").await {
        Ok(Some(response)) => {
            let code = match status {
                405 => "method_not_allowed",
                431 => "header_too_large",
                501 => "unsupported_transfer_coding",
                505 => "http_version_not_supported",
                _ => "bad_request",
            };
            assert_eq!(response.status, status, "{shown:?}: {response:?}");
            let ours = response.get("content-type") == Some("application/json");
            assert!(
                ours,
                "{shown:?} was answered by somebody else: {response:?}"
            );
            response.assert_error(status, code);
            assert!(
                response.closes(),
                "{shown:?} is refused and the connection kept: {response:?}"
            );
            client.closed().await;
        }
        other => panic!("{shown:?}: {other:?} and not {status}"),
    }
    assert_eq!(cell.requests(), before, "{shown:?} reached the cell");
}

#[tokio::test]
async fn heads_that_are_not_http() {
    let (cell, edge) = edge().await;
    let host = format!("Host: e\r\n{KEY}");
    for (status, request) in [
        (400, "nonsense\r\n\r\n".to_owned()),
        (400, format!("GET /\r\n{host}\r\n")),
        (400, format!("GET  / HTTP/1.1\r\n{host}\r\n")),
        (400, format!("GET /  HTTP/1.1\r\n{host}\r\n")),
        (400, format!("GET /a b HTTP/1.1\r\n{host}\r\n")),
        (400, format!("GET /a\tb HTTP/1.1\r\n{host}\r\n")),
        (400, format!("GET /a\0b HTTP/1.1\r\n{host}\r\n")),
        (400, format!("GET /a\x7fb HTTP/1.1\r\n{host}\r\n")),
        (400, format!("GET /a\rb HTTP/1.1\r\n{host}\r\n")),
        (400, format!(" GET / HTTP/1.1\r\n{host}\r\n")),
        (400, format!("G@T / HTTP/1.1\r\n{host}\r\n")),
        (400, format!("GET relative HTTP/1.1\r\n{host}\r\n")),
        (400, format!("GET / HTTP/1.1 \r\n{host}\r\n")),
        (400, format!("GET / http/1.1\r\n{host}\r\n")),
        (400, format!("GET / HTTP/11\r\n{host}\r\n")),
        (505, format!("GET / HTTP/2.0\r\n{host}\r\n")),
        (505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        (400, format!("GET / HTTP/1.1\n{host}\r\n")),
        (400, format!("GET / HTTP/1.1\r\nHost: e\n{KEY}\r\n")),
        (400, format!("GET / HTTP/1.1\r\n{host}\n")),
        (400, format!("GET / HTTP/1.1\r\n{host}X-A : b\r\n\r\n")),
        (400, format!("GET / HTTP/1.1\r\n{host}X A: b\r\n\r\n")),
        (400, format!("GET / HTTP/1.1\r\n{host}X\u{e9}: b\r\n\r\n")),
        (400, format!("GET / HTTP/1.1\r\n{host}: b\r\n\r\n")),
        (400, format!("GET / HTTP/1.1\r\n{host}no-colon\r\n\r\n")),
        (400, format!("GET / HTTP/1.1\r\n{host}X-A: b\0c\r\n\r\n")),
        (400, format!("GET / HTTP/1.1\r\n{host}X-A: b\rc\r\n\r\n")),
        (
            400,
            format!("GET / HTTP/1.1\r\n{host}X-A: b\r\n folded\r\n\r\n"),
        ),
        (400, format!("GET / HTTP/1.1\r\n X-A: b\r\n{host}\r\n")),
    ] {
        refused(&edge, &cell, request.as_bytes(), status).await;
    }
}

#[tokio::test]
async fn hosts_that_are_missing_or_in_conflict() {
    let (cell, edge) = edge().await;
    for request in [
        format!("GET / HTTP/1.1\r\n{KEY}\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n{KEY}\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n{KEY}\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a b\r\n{KEY}\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a, b\r\n{KEY}\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a/b\r\n{KEY}\r\n"),
        format!("GET / HTTP/1.1\r\nHost: u@a\r\n{KEY}\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a:port\r\n{KEY}\r\n"),
        format!("GET / HTTP/1.1\r\nHost: [::1\r\n{KEY}\r\n"),
        format!("GET http://other/ HTTP/1.1\r\nHost: e\r\n{KEY}\r\n"),
        format!("GET http:///x HTTP/1.1\r\nHost: e\r\n{KEY}\r\n"),
    ] {
        refused(&edge, &cell, request.as_bytes(), 400).await;
    }
}

#[tokio::test]
async fn lengths_in_conflict() {
    let (cell, edge) = edge().await;
    let head = format!("POST / HTTP/1.1\r\nHost: e\r\n{KEY}");
    for length in [
        "5x",
        "-5",
        "+5",
        "0x5",
        "5 5",
        "",
        "99999999999999999999999",
        "5,6",
        "\u{0665}",
    ] {
        let request = format!("{head}Content-Length: {length}\r\n\r\nhello{INNER}");
        refused(&edge, &cell, request.as_bytes(), 400).await;
    }
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 05x\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding:\r\n",
    ] {
        let request = format!("{head}{fields}\r\n0\r\n\r\n{INNER}");
        let mut client = edge.client().await;
        let before = cell.requests();
        client.send(&request).await;
        client.wire().finish().await.expect("half-close");
        let response = client.response().await;
        assert!(
            matches!(response.status, 400 | 501),
            "{fields:?}: {response:?}"
        );
        client.closed().await;
        assert_eq!(cell.requests(), before, "{fields:?} reached the cell");
    }
}

#[tokio::test]
async fn transfer_codings_that_we_do_not_know() {
    let (cell, edge) = edge().await;
    let head = format!("POST / HTTP/1.1\r\nHost: e\r\n{KEY}");
    // With chunked as the final coding the end of the body is known; without it, it is not (RFC 9112, section
    // 6.3).
    for (status, coding) in [
        (501, "gzip, chunked"),
        (400, "gzip"),
        (400, "identity"),
        (400, "chunked, gzip"),
        (400, "xchunked"),
        (400, "chunkedx"),
    ] {
        let request = format!("{head}Transfer-Encoding: {coding}\r\n\r\n0\r\n\r\n{INNER}");
        refused(&edge, &cell, request.as_bytes(), status).await;
    }
    // RFC 9112, section 6.1: a transfer coding in HTTP/1.0 is faulty framing.
    let request =
        format!("POST / HTTP/1.0\r\nHost: e\r\n{KEY}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    refused(&edge, &cell, request.as_bytes(), 400).await;
}

#[tokio::test]
async fn connect_is_not_for_this_proxy() {
    let (cell, edge) = edge().await;
    let request = format!("CONNECT e:443 HTTP/1.1\r\nHost: e:443\r\n{KEY}\r\n");
    refused(&edge, &cell, request.as_bytes(), 405).await;
}

/// Two equal Content-Length fields become one or are refused: the cell never gets two.
#[tokio::test]
async fn equal_lengths_are_merged_or_refused() {
    let (cell, edge) = edge().await;
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
    ] {
        let response = edge
            .exchange(format!(
                "POST / HTTP/1.1\r\nHost: e\r\n{KEY}{fields}\r\nhello"
            ))
            .await;
        if response.status == 200 {
            assert_eq!(cell.last().head.all("content-length"), ["5"], "{fields:?}");
            assert_eq!(cell.last().body, b"hello");
        } else {
            response.assert_error(400, "bad_request");
        }
    }
}

/// A body with broken framing ends the request: what follows is not read as a request, and the cell does not
/// take the part that came for the whole.
#[tokio::test]
async fn chunked_bodies_that_break_off_the_rules() {
    let (cell, edge) = edge().await;
    for body in [
        "\r\n\r\n",
        ";ext\r\n\r\n",
        "x\r\n\r\n",
        "-1\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\0b\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n\r\n",
        "5\r\nhello\r\n;x\r\n\r\n",
        "5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
        "5\r\nhello\r\n0\r\n folded: x\r\n\r\n",
    ] {
        let before = cell.requests();
        let mut client = edge.client().await;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: e\r\n{KEY}Transfer-Encoding: chunked\r\n\r\n{body}{INNER}"
            ))
            .await;
        client.wire().finish().await.expect("half-close");
        let answer = client.try_response("POST").await;
        if let Ok(Some(response)) = &answer {
            assert_eq!(response.status, 400, "{body:?}: {response:?}");
            assert!(response.closes(), "{body:?}: {response:?}");
        }
        client.closed().await;
        assert_eq!(
            cell.requests(),
            before,
            "{body:?} reached the cell as a whole request"
        );
    }
}

/// The same when the cell already has the head as the framing breaks.
#[tokio::test]
async fn a_body_that_breaks_off_late_is_not_completed() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        conn.head().await?;
        match conn.wire.body(crate::harness::Framing::Chunked).await {
            Ok(_) => {
                conn.wire
                    .send(b"HTTP/1.1 299 Whole\r\nContent-Length: 0\r\n\r\n")
                    .await
            }
            Err(error) => Err(error),
        }
    })
    .await;
    let routing = document(
        "1",
        table(&[("acme", "tier1")]),
        placements(&[&cell]),
        "tier1",
    );
    let edge = Edge::serving(&routing).await;
    for (number, rest) in ["\r\n\r\n", ";\r\n\r\n", "zz\r\n", ""].iter().enumerate() {
        let mut client = edge.client().await;
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: e\r\n{KEY}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
            ))
            .await;
        cell.wait_requests(number + 1).await;
        client.send(rest).await;
        client.wire().finish().await.expect("half-close");
        let answer = client.try_response("POST").await;
        let status = answer
            .as_ref()
            .ok()
            .and_then(|a| a.as_ref().map(|a| a.status));
        assert_ne!(
            status,
            Some(299),
            "{rest:?}: the cell took a cut body for a whole one"
        );
        cell.wait_unconnected().await;
    }
}

/// A body shorter than its Content-Length is never completed by what another client sends.
#[tokio::test]
async fn a_short_body_is_not_filled_up_by_others() {
    let (cell, edge) = edge().await;
    let mut short = edge.client().await;
    short
        .send(format!(
            "POST / HTTP/1.1\r\nHost: e\r\n{KEY}Content-Length: 500\r\n\r\nfive"
        ))
        .await;
    short.wire().finish().await.expect("half-close");
    let _ = short.try_response("POST").await;
    for _ in 0..10 {
        assert_eq!(edge.get("acme", "/fine").await.status, 200);
    }
    assert!(
        cell.recorded()
            .iter()
            .all(|request| request.head.target() == "/fine")
    );
}

/// After a refusal, other clients and the same client on a new connection are served as usual.
#[tokio::test]
async fn a_refusal_disturbs_nobody() {
    let (_cell, edge) = edge().await;
    let mut steady = edge.client().await;
    for _ in 0..20 {
        let mut rude = Client::connect(edge.proxy).await;
        rude.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
            .await;
        assert_eq!(rude.response().await.status, 400);
        assert_eq!(steady.get("acme", "/").await.status, 200);
    }
}
