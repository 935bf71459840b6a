//! Bodies and responses on their way through the edge: framing, interim responses, and no part held back.

use std::time::Duration;

use crate::harness::{Cell, Edge, Framing, within};

const KEY: &str = "Host: e\r\nX-Routing-Key: acme\r\n";

#[tokio::test]
async fn chunks_pass_both_ways() {
    let cell = Cell::answering(
        "tier1",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n",
    )
    .await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    for _ in 0..3 {
        client
            .send(format!(
                "POST / HTTP/1.1\r\n{KEY}Transfer-Encoding: chunked\r\n\r\n\
                 3\r\nabc\r\n0A ;name=\"value\"\r\n0123456789\r\n000\r\n\r\n"
            ))
            .await;
        let response = client.response().await;
        assert_eq!(response.text(), "hello world");
        assert_eq!(cell.last().body, b"abc0123456789");
        assert_eq!(cell.last().get("content-length"), None);
    }
    assert_eq!(cell.connections(), 1, "the framing came apart on the way");
}

#[tokio::test]
async fn trailers_do_not_disturb_the_body_or_the_connection() {
    let cell = Cell::answering(
        "tier1",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n",
    )
    .await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    for _ in 0..3 {
        client
            .send(format!(
                "POST / HTTP/1.1\r\n{KEY}Transfer-Encoding: chunked\r\nTrailer: X-Check\r\n\r\n\
                 3\r\nabc\r\n0\r\nX-Check: 42\r\nX-Routing-Key: visa\r\n\r\n"
            ))
            .await;
        let response = client.response().await;
        assert_eq!((response.status, response.text().as_str()), (200, "hello"));
        assert_eq!(cell.last().body, b"abc");
        // Trailers may be dropped or passed on as trailers, but never merged into the header (RFC 9110,
        // section 6.5.1).
        assert_eq!(cell.last().get("x-check"), None);
        assert_eq!(cell.last().head.all("x-routing-key"), ["acme"]);
        assert_eq!(response.get("x-sum"), None);
        let dropped_or = |trailers: &[(String, String)], name: &str| {
            trailers.is_empty() || trailers[0].0.eq_ignore_ascii_case(name)
        };
        assert!(
            dropped_or(&cell.last().trailers, "x-check"),
            "{:?}",
            cell.last().trailers
        );
        assert!(
            dropped_or(&response.trailers, "x-sum"),
            "{:?}",
            response.trailers
        );
    }
    assert_eq!(cell.connections(), 1, "the framing came apart on the way");
}

/// Each part of a request reaches the cell, and each part of a response the client, before the next part is
/// sent.
#[tokio::test]
async fn bodies_flow_as_they_come() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        conn.head().await?;
        conn.wire
            .send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await?;
        // Answers each chunk while the request is still being sent.
        loop {
            let chunk = conn.wire.chunk().await?;
            if chunk.is_empty() {
                return conn.wire.send(b"0\r\n\r\n").await;
            }
            let echo = [format!("{:x}\r\n", chunk.len()).as_bytes(), &chunk, b"\r\n"].concat();
            conn.wire.send(&echo).await?;
        }
    })
    .await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\n{KEY}Transfer-Encoding: chunked\r\n\r\n"
        ))
        .await;
    for part in ["one", "two", "three"] {
        client.send(format!("{:x}\r\n{part}\r\n", part.len())).await;
        if part == "one" {
            let head = client
                .wire()
                .head()
                .await
                .expect("a head")
                .expect("an answer");
            assert_eq!(head.status(), 200);
        }
        let mut received = Vec::new();
        while received.len() < part.len() {
            received.extend(client.wire().chunk().await.expect("the echo"));
        }
        assert_eq!(received, part.as_bytes());
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.wire().chunk().await.expect("the end"), b"");
}

/// The client holds its body back until the *cell* sends 100 Continue.
#[tokio::test]
async fn expect_100_continue_is_the_cells_to_answer() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    for _ in 0..2 {
        client
            .send(format!(
                "POST / HTTP/1.1\r\n{KEY}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
            ))
            .await;
        let interim = client
            .wire()
            .head()
            .await
            .expect("a head")
            .expect("an interim answer");
        assert_eq!(interim.status(), 100, "{interim:?}");
        client.send("hello").await;
        let response = client.response().await;
        assert_eq!(response.status, 200);
        assert_eq!(cell.last().body, b"hello");
        if response.closes() {
            return;
        }
    }
}

/// A cell that does not want the body refuses at once, and the client never sends it.
#[tokio::test]
async fn a_refused_expectation_is_passed_on() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        conn.head().await?;
        let answer = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig";
        conn.wire.send(answer).await?;
        conn.wire.rest().await.map(drop)
    })
    .await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\n{KEY}Content-Length: 500000\r\nExpect: 100-continue\r\n\r\n"
        ))
        .await;
    let response = client.response().await;
    assert_eq!((response.status, response.text().as_str()), (413, "big"));
    assert!(response.interim.is_empty(), "{:?}", response.interim);
    assert_eq!(cell.requests(), 1);
}

#[tokio::test]
async fn interim_answers_pass() {
    let cell = Cell::answering(
        "tier1",
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nX-Routed-To: elsewhere\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    for _ in 0..2 {
        let response = client.get("acme", "/").await;
        assert_eq!((response.status, response.text().as_str()), (200, "ok"));
        for hint in &response.interim {
            assert_eq!(hint.status(), 103);
            assert_eq!(hint.get("link"), Some("</a.css>"));
            assert_eq!(hint.get("x-routed-to"), None, "neither the cell's nor ours");
        }
        response.assert_routed("tier1", "tier");
    }
}

#[tokio::test]
async fn answers_without_a_body_keep_the_connection_in_step() {
    for (method, answer, status, length) in [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
            200,
            Some("1234"),
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            200,
            None,
        ),
        (
            "HEAD",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n",
            404,
            Some("9"),
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
            304,
            None,
        ),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n",
            304,
            Some("77"),
        ),
        // Two Content-Length fields in a response that has no body: at most one is passed on (RFC 9110,
        // section 8.6).
        (
            "GET",
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
            204,
            None,
        ),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nContent-Length: 7\r\n\r\n",
            304,
            Some("7"),
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 7, 7\r\n\r\n",
            200,
            Some("7"),
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            200,
            Some("0"),
        ),
    ] {
        let cell = Cell::answering("tier1", answer).await;
        let edge = Edge::before(&cell).start().await;
        let mut client = edge.client().await;
        for _ in 0..3 {
            client
                .send(format!("{method} / HTTP/1.1\r\n{KEY}\r\n"))
                .await;
            let response = client
                .try_response(method)
                .await
                .expect("an answer")
                .expect("an answer");
            assert_eq!(response.status, status, "{method} {answer:?}: {response:?}");
            assert_eq!(
                response.get("content-length"),
                length,
                "{method} {answer:?}: {response:?}"
            );
            assert!(
                response.head.all("content-length").len() <= 1,
                "{response:?}"
            );
            assert_eq!(client.wire().pending(), b"", "{method} {answer:?}");
        }
        assert_eq!(cell.connections(), 1, "{method} {answer:?}");
    }
}

/// The edge's own error response to a HEAD request has no body either.
#[tokio::test]
async fn head_errors_have_no_body() {
    let cell = Cell::echo("tier1").await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    client.send("HEAD / HTTP/1.1\r\nHost: e\r\n\r\n").await;
    let response = client
        .try_response("HEAD")
        .await
        .expect("an answer")
        .expect("an answer");
    assert_eq!(response.status, 400);
    client.send(format!("GET / HTTP/1.1\r\n{KEY}\r\n")).await;
    assert_eq!(client.response().await.text(), "tier1");
}

/// The cell ends the body by closing the connection; the client gets all of it, with a framing of its own.
#[tokio::test]
async fn an_answer_without_length_ends_with_its_connection() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        conn.request().await?;
        conn.wire.send(b"HTTP/1.1 200 OK\r\n\r\nall of ").await?;
        conn.wire.send(b"this").await
    })
    .await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    client.send(format!("GET / HTTP/1.1\r\n{KEY}\r\n")).await;
    let response = client.response().await;
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, "all of this")
    );
}

/// The cell responds before it has read the body; the client still gets the response.
#[tokio::test]
async fn an_early_answer_is_delivered() {
    let cell = Cell::scripted("tier1", |mut conn| async move {
        conn.head().await?;
        conn.wire
            .send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
            .await?;
        conn.wire.rest().await.map(drop)
    })
    .await;
    let edge = Edge::before(&cell).start().await;
    let mut client = edge.client().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\n{KEY}Content-Length: 1000000\r\n\r\nbegin"
        ))
        .await;
    let response = within("the early answer", client.response()).await;
    assert_eq!((response.status, response.text().as_str()), (403, "no"));
}

/// What a cell has sent is forwarded at once, however small and with either framing, whatever follows.
#[tokio::test]
async fn nothing_of_an_answer_is_held_back() {
    for framing in [
        "Content-Length: 8",
        "Transfer-Encoding: chunked",
        "X-Until: the-end",
    ] {
        let (go, gate) = tokio::sync::watch::channel(0);
        let chunked = framing.ends_with("chunked");
        let cell = Cell::scripted("tier1", move |mut conn| {
            let mut gate = gate.clone();
            async move {
                conn.request().await?;
                conn.wire
                    .send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").as_bytes())
                    .await?;
                for step in 1..=2 {
                    let _ = gate.wait_for(|at| *at >= step).await;
                    let part: &[u8] = if chunked { b"4\r\npart\r\n" } else { b"part" };
                    conn.wire.send(part).await?;
                }
                let _ = gate.wait_for(|at| *at >= 3).await;
                if chunked {
                    conn.wire.send(b"0\r\n\r\n").await
                } else {
                    Ok(())
                }
            }
        })
        .await;
        let edge = Edge::before(&cell).start().await;
        let mut client = edge.client().await;
        client.patience(Duration::from_secs(5));
        client.send(format!("GET / HTTP/1.1\r\n{KEY}\r\n")).await;
        let held = |what: &str| format!("{framing}: {what} is held back");
        let head = client
            .wire()
            .head()
            .await
            .unwrap_or_else(|_| panic!("{}", held("the head")));
        let head = head.expect("an answer");
        assert_eq!(head.status(), 200);
        for step in 1..=2 {
            go.send_replace(step);
            // Without a length, the edge may choose the framing.
            let read = match head.framing() == Framing::Chunked {
                true => client.wire().chunk().await,
                false => client.wire().exactly(4).await,
            };
            assert_eq!(
                read.unwrap_or_else(|_| panic!("{}", held("a part"))),
                b"part"
            );
        }
        go.send_replace(3);
    }
}
