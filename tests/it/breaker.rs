//! Circuit breakers and fallbacks: what opens a breaker, which requests it admits, and where the others go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::harness::{Cell, Edge, Response, eventually, guarded};

/// A placement whose breaker opens after two failures, for `timeout`.
fn breaker(address: SocketAddr, timeout: &str) -> Value {
    json!({
        "url": format!("http://{address}"),
        "circuit_breaker": {"failure_threshold": 2, "timeout": timeout},
    })
}

/// A cell that answers with the status that the test sets.
async fn moody(status: &Arc<AtomicU16>) -> Cell {
    let status = status.clone();
    Cell::scripted("one", move |mut conn| {
        let status = status.clone();
        async move {
            while conn.request().await?.is_some() {
                let status = status.load(Ordering::SeqCst);
                let answer = format!("HTTP/1.1 {status} Mood\r\nContent-Length: 0\r\n\r\n");
                conn.wire.send(answer.as_bytes()).await?;
            }
            Ok(())
        }
    })
    .await
}

#[track_caller]
fn assert_circuit(response: &Response, status: u16, circuit: &str) {
    assert_eq!(response.status, status, "{response:?}");
    assert_eq!(
        response.get("x-circuit-state"),
        Some(circuit),
        "{response:?}"
    );
}

/// Sends requests until the breaker admits one; returns the response to that one.
async fn probed(edge: &Edge) -> Response {
    eventually("the breaker lets a request through", async || {
        let response = edge.get("acme", "/").await;
        (response.get("x-circuit-state") != Some("open")).then_some(response)
    })
    .await
}

#[tokio::test]
async fn failures_open_it_and_a_success_closes_it() {
    let status = Arc::new(AtomicU16::new(200));
    let cell = moody(&status).await;
    let document = guarded("1", json!({"one": breaker(cell.address, "500ms")}));
    let edge = Edge::serving(&document).await;
    assert_circuit(&edge.get("acme", "/").await, 200, "closed");
    status.store(503, Ordering::SeqCst);
    assert_circuit(&edge.get("acme", "/").await, 503, "closed");
    // After a success, failures are counted from zero.
    status.store(404, Ordering::SeqCst);
    assert_circuit(&edge.get("acme", "/").await, 404, "closed");
    // The edge counts the success when it sees the end of the exchange, a moment after the client does.
    eventually("the success is counted", async || {
        let counted = ["cellgate_requests_total", "status=\"4xx\""];
        (edge.metric(&counted).await >= 1.0).then_some(())
    })
    .await;
    status.store(500, Ordering::SeqCst);
    for _ in 0..2 {
        assert_circuit(&edge.get("acme", "/").await, 500, "closed");
    }
    let served = cell.requests();
    let open = edge.get("acme", "/").await;
    open.assert_error(503, "circuit_open");
    open.assert_routed("one", "tier");
    assert_circuit(&open, 503, "open");
    assert_eq!(open.get("retry-after"), Some("1"));
    assert_eq!(open.get("x-failover-reason"), None);
    assert_eq!(cell.requests(), served, "it is left alone");

    // Half-open, the one request fails, and the breaker opens again.
    assert_circuit(&probed(&edge).await, 500, "half_open");
    assert_circuit(&edge.get("acme", "/").await, 503, "open");
    status.store(200, Ordering::SeqCst);
    assert_circuit(&probed(&edge).await, 200, "half_open");
    assert_circuit(&edge.get("acme", "/").await, 200, "closed");
    for (to, count) in [("open", 2.0), ("half_open", 2.0), ("closed", 1.0)] {
        let parts = [
            "cellgate_breaker_transitions_total",
            &format!("to=\"{to}\""),
        ];
        assert_eq!(edge.metric(&parts).await, count, "{to}");
    }
    let rejected = ["cellgate_requests_rejected_total", "circuit_open"];
    assert!(edge.metric(&rejected).await >= 1.0);
}

/// Each kind of failure of a cell counts: the client gets its error, and two of them open the breaker.
#[tokio::test]
async fn every_kind_of_failure_counts() {
    let refused = Cell::nobody().await;
    let reset = Cell::scripted("one", |mut conn| async move {
        conn.head().await?;
        Ok(())
    })
    .await;
    let garbage = Cell::answering("one", "SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
    let hanging = Cell::scripted("one", |mut conn| async move {
        conn.head().await?;
        conn.wire.rest().await.map(drop)
    })
    .await;
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort";
    let truncated = Cell::scripted("one", move |mut conn| async move {
        conn.head().await?;
        conn.wire.send(short.as_bytes()).await
    })
    .await;
    let dripping = Cell::scripted("one", |mut conn| async move {
        conn.head().await?;
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx";
        conn.wire.send(head.as_bytes()).await?;
        conn.wire.rest().await.map(drop)
    })
    .await;
    for (what, address, status) in [
        ("refused", refused, 502),
        ("reset", reset.address, 502),
        ("garbage", garbage.address, 502),
        ("hanging", hanging.address, 504),
        ("truncated", truncated.address, 200),
        ("stalled", dripping.address, 200),
    ] {
        let mut placement = breaker(address, "1h");
        placement["timeouts"] = json!({"response_header": "200ms", "stream_idle": "200ms"});
        let edge = Edge::serving(&guarded("1", json!({"one": placement}))).await;
        for _ in 0..2 {
            let mut client = edge.client().await;
            client.ask("acme", "/").await;
            let head = client.wire().head().await.expect("a head").expect("a head");
            assert_eq!(head.status(), status, "{what}");
            // Reads what follows until the connection closes: the exchange is over.
            let _ = client.wire().rest().await;
        }
        let open = edge.get("acme", "/").await;
        assert_eq!(open.status, 503, "{what}: {open:?}");
        open.assert_error(503, "circuit_open");
        let shown = edge.admin("/debug/route?key=acme").await.json();
        assert_eq!(shown["served_by"], Value::Null, "{what}: {shown}");
        assert_eq!(shown["candidates"][0]["circuit"], "open", "{what}: {shown}");
        assert_ne!(
            shown["candidates"][0]["last_failure"],
            Value::Null,
            "{what}"
        );
    }
}

/// What clients do does not count as a failure of the cell.
#[tokio::test]
async fn clients_do_not_open_it() {
    let cell = Cell::scripted("one", |mut conn| async move {
        while let Some(request) = conn.request().await? {
            if request.head.target() == "/slow" {
                conn.wire.rest().await?;
                return Ok(());
            }
            conn.reply().await?;
        }
        Ok(())
    })
    .await;
    let edge = Edge::serving(&guarded("1", json!({"one": breaker(cell.address, "1h")}))).await;
    for n in 1..=5 {
        let mut leaver = edge.client().await;
        leaver.ask("acme", "/slow").await;
        cell.wait_requests(n).await;
        drop(leaver);
    }
    cell.wait_unconnected().await;
    for _ in 0..5 {
        let bad = "POST / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\n\
                   Transfer-Encoding: chunked\r\n\r\nnonsense\r\n";
        assert_eq!(edge.exchange(bad).await.status, 400);
    }
    assert_circuit(&edge.get("acme", "/").await, 200, "closed");
}

/// Half-open, exactly one request is admitted as a probe, however many arrive.
#[tokio::test]
async fn one_request_finds_out() {
    let (failing, asked) = (Arc::new(AtomicUsize::new(2)), Arc::new(AtomicUsize::new(0)));
    let script = (failing.clone(), asked.clone());
    let cell = Cell::scripted("one", move |mut conn| {
        let (failing, asked) = script.clone();
        async move {
            while conn.request().await?.is_some() {
                let fails = |left: usize| left.checked_sub(1);
                let fail = failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails);
                if fail.is_ok() {
                    let answer = "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n";
                    conn.wire.send(answer.as_bytes()).await?;
                    continue;
                }
                asked.fetch_add(1, Ordering::SeqCst);
                // Held until the other requests have been refused.
                conn.wire.rest().await?;
            }
            Ok(())
        }
    })
    .await;
    let edge = Edge::serving(&guarded(
        "1",
        json!({"one": breaker(cell.address, "300ms")}),
    ))
    .await;
    for _ in 0..2 {
        assert_eq!(edge.get("acme", "/").await.status, 500);
    }
    let mut probes = Vec::new();
    eventually("one is let through", async || {
        let mut client = edge.client().await;
        client.ask("acme", "/").await;
        probes.push(client);
        (asked.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    for _ in 0..20 {
        assert_circuit(&edge.get("acme", "/").await, 503, "half_open");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // The client of the admitted request disconnects: the next request is admitted.
    drop(probes);
    let mut next = edge.client().await;
    eventually("another is let through", async || {
        next = edge.client().await;
        next.ask("acme", "/").await;
        (asked.load(Ordering::SeqCst) == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_open_circuit_goes_to_the_fallback_and_back() {
    let status = Arc::new(AtomicU16::new(500));
    let one = moody(&status).await;
    let two = Cell::echo("two").await;
    let mut primary = breaker(one.address, "300ms");
    primary["fallback"] = "two".into();
    let document = guarded("1", json!({"one": primary, "two": {"url": two.url()}}));
    let edge = Edge::serving(&document).await;
    for _ in 0..2 {
        let response = edge.get("acme", "/").await;
        assert_circuit(&response, 500, "closed");
        response.assert_routed("one", "tier");
    }
    let over = edge.get("acme", "/").await;
    assert_circuit(&over, 200, "open");
    // The reason is that of the key; the placement is the one that serves.
    over.assert_routed("two", "tier");
    assert_eq!(over.get("x-failover-reason"), Some("circuit_open"));
    assert_eq!(over.get("x-cell-name"), Some("two"));
    let explained = edge.admin("/debug/route?key=acme").await.json();
    assert_eq!(explained["placement"], "one");
    assert_eq!(explained["served_by"], "two");
    assert_eq!(explained["failover_reason"], "circuit_open");

    status.store(200, Ordering::SeqCst);
    eventually("the primary serves again", async || {
        let response = edge.get("acme", "/").await;
        assert_eq!(response.status, 200, "{response:?}");
        (response.get("x-routed-to") == Some("one")).then_some(())
    })
    .await;
    let back = edge.get("acme", "/").await;
    assert_circuit(&back, 200, "closed");
    assert_eq!(back.get("x-failover-reason"), None);
    let failovers = [
        "cellgate_failovers_total",
        "placement=\"one\"",
        "circuit_open",
    ];
    assert!(edge.metric(&failovers).await >= 1.0);
}

/// A dead primary costs its clients only the failures that open the breaker: a half-open request that finds
/// it still dead goes on to the fallback.
#[tokio::test]
async fn errors_stop_once_the_breaker_is_open() {
    let two = Cell::echo("two").await;
    let mut primary = breaker(Cell::nobody().await, "50ms");
    primary["fallback"] = "two".into();
    let document = guarded("1", json!({"one": primary, "two": {"url": two.url()}}));
    let edge = Edge::serving(&document).await;
    let first = edge.get("acme", "/").await;
    first.assert_error(502, "upstream_unreachable");
    let opened = ["cellgate_breaker_transitions_total", "to=\"open\""];
    eventually("it was tried in vain three times more", async || {
        let response = edge.get("acme", "/").await;
        assert_eq!(response.status, 200, "{response:?}");
        response.assert_routed("two", "tier");
        (edge.metric(&opened).await >= 4.0).then_some(())
    })
    .await;
}

/// No tenant reaches a cell that its table does not name, whatever state its own cell is in.
#[tokio::test]
async fn without_a_fallback_nobody_else_is_asked() {
    let (two, tier) = (Cell::echo("two").await, Cell::echo("tier1").await);
    let mut document = guarded(
        "1",
        json!({
            "one": breaker(Cell::nobody().await, "1h"),
            "two": {"url": two.url()}, "tier1": {"url": tier.url()},
        }),
    );
    document["defaultPlacement"] = "tier1".into();
    let edge = Edge::serving(&document).await;
    for _ in 0..10 {
        let response = edge.get("acme", "/").await;
        assert!([502, 503].contains(&response.status), "{response:?}");
        response.assert_routed("one", "dedicated");
    }
    assert_eq!((two.requests(), tier.requests()), (0, 0));
    assert_eq!(edge.get("stranger", "/").await.status, 200);
}

/// Truncated bodies open the breaker, although every response header was good.
#[tokio::test]
async fn long_answers_do_not_hold_it_half_open() {
    let failing = Arc::new(AtomicUsize::new(2));
    let script = failing.clone();
    let cell = Cell::scripted("one", move |mut conn| {
        let failing = script.clone();
        async move {
            while conn.request().await?.is_some() {
                let fails = |left: usize| left.checked_sub(1);
                if failing
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails)
                    .is_ok()
                {
                    return Ok(());
                }
                let begin = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
                conn.wire.send(begin.as_bytes()).await?;
                conn.wire.rest().await?;
            }
            Ok(())
        }
    })
    .await;
    let edge = Edge::serving(&guarded(
        "1",
        json!({"one": breaker(cell.address, "200ms")}),
    ))
    .await;
    for _ in 0..2 {
        assert_eq!(edge.get("acme", "/").await.status, 502);
    }
    let mut streams = Vec::new();
    eventually("two streams are open at a time", async || {
        let mut client = edge.client().await;
        client.ask("acme", "/").await;
        let head = client.wire().head().await.expect("a head").expect("a head");
        if head.status() == 200 {
            streams.push((client, head.get("x-circuit-state").map(str::to_owned)));
        }
        (streams.len() == 2).then_some(())
    })
    .await;
    let states: Vec<_> = streams.iter().map(|(_, state)| state.as_deref()).collect();
    assert_eq!(states, [Some("half_open"), Some("closed")]);
}

#[tokio::test]
async fn a_reload_leaves_it_as_it_is() {
    let cell = Cell::nobody().await;
    let edge = Edge::serving(&guarded("1", json!({"one": breaker(cell, "1h")}))).await;
    for _ in 0..2 {
        assert_eq!(edge.get("acme", "/").await.status, 502);
    }
    let mut placement = breaker(cell, "1h");
    placement["concurrency_limit"] = 7.into();
    edge.write_routing(&guarded("2", json!({"one": placement})));
    edge.wait_version("2").await;
    assert_circuit(&edge.get("acme", "/").await, 503, "open");
    // Without a breaker, every request is admitted.
    let bare = json!({"url": format!("http://{cell}")});
    edge.write_routing(&guarded("3", json!({"one": bare})));
    edge.wait_version("3").await;
    let response = edge.get("acme", "/").await;
    assert_eq!(response.status, 502);
    assert_eq!(response.get("x-circuit-state"), None);
}
