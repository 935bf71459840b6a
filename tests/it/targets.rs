//! Request targets.

use crate::harness::{Cell, Edge, eventually};

const KEY: &str = "X-Routing-Key: acme\r\n";

async fn edge() -> (Cell, Edge) {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell).start().await;
    (cell, edge)
}

/// The absolute form goes to the cell in origin form (RFC 9112, section 3.2.1).
#[tokio::test]
async fn the_absolute_form_becomes_the_origin_form() {
    let (cell, edge) = edge().await;
    for (target, sent) in [
        ("http://e/a?b", "/a?b"),
        ("http://e", "/"),
        ("http://e?q", "/?q"),
    ] {
        let response = edge
            .exchange(format!("GET {target} HTTP/1.1\r\nHost: e\r\n{KEY}\r\n"))
            .await;
        assert_eq!(response.status, 200, "{target}: {response:?}");
        assert_eq!(cell.last().head.target(), sent);
        assert_eq!(
            cell.last()
                .get("host")
                .map(str::to_ascii_lowercase)
                .as_deref(),
            Some("e")
        );
    }
}

/// RFC 3986 does not allow these bytes in a target. Whichever parser finds them first, the edge itself
/// responds, and its count of connections stays right.
#[tokio::test]
async fn targets_with_bytes_that_no_uri_has() {
    let (cell, edge) = edge().await;
    for byte in ["\"", "<", ">", "`", "\\", "^", "{", "|", "}", "\u{e9}", "#"] {
        for target in [
            format!("/{byte}"),
            format!("/a{byte}b/c"),
            format!("/a?b={byte}"),
            format!("/a?{byte}"),
            format!("http://e/{byte}"),
            format!("http://e/?{byte}"),
            format!("http://e{byte}/"),
            byte.to_owned(),
        ] {
            let before = cell.requests();
            let mut client = edge.client().await;
            client
                .send(format!("GET {target} HTTP/1.1\r\nHost: e\r\n{KEY}\r\n"))
                .await;
            let response = client.response().await;
            if response.status == 200 {
                // Passed on unchanged.
                assert!(
                    target.starts_with('/') || target.starts_with("http://e/"),
                    "{target}"
                );
                let sent = cell.last().head.target().to_owned();
                assert!(target.ends_with(&sent), "{target} became {sent}");
                continue;
            }
            response.assert_error(400, "bad_request");
            assert!(response.closes(), "{target}: {response:?}");
            client.closed().await;
            assert_eq!(cell.requests(), before, "{target} reached the cell");
        }
    }
    for gauge in ["cellgate_client_connections", "cellgate_requests_in_flight"] {
        eventually(&format!("{gauge} is back at 0"), async || {
            let name = format!("{gauge} ");
            (edge.metric(&[&name]).await == 0.0).then_some(())
        })
        .await;
    }
}
