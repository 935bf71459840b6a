//! Active health checks: which backends are probed and how, and what a failing probe means for requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::{Value, json};

use crate::harness::{Authority, Cell, Edge, eventually, guarded, tls_cell};

/// A health check with short intervals.
fn check() -> Value {
    json!({
        "interval": "100ms", "timeout": "100ms", "healthy_threshold": 2, "unhealthy_threshold": 2,
    })
}

/// A cell whose `/health` answers with the status that the test sets; all else is 200.
async fn probed(name: &str, health: &Arc<AtomicU16>) -> Cell {
    let health = health.clone();
    Cell::scripted(name, move |mut conn| {
        let health = health.clone();
        async move {
            while let Some(request) = conn.request().await? {
                if request.head.target() != "/health" {
                    conn.reply().await?;
                    continue;
                }
                let status = health.load(Ordering::SeqCst);
                let answer = format!("HTTP/1.1 {status} Health\r\nContent-Length: 0\r\n\r\n");
                conn.wire.send(answer.as_bytes()).await?;
            }
            Ok(())
        }
    })
    .await
}

async fn candidate(edge: &Edge, index: usize) -> Value {
    let mut shown = edge.admin("/debug/route?key=acme").await.json();
    shown["candidates"][index].take()
}

async fn wait_health(edge: &Edge, index: usize, health: &str) {
    let what = format!("backend {index} is {health}");
    eventually(&what, async || {
        (candidate(edge, index).await["health"] == health).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_failing_probe_takes_an_endpoint_out_and_a_good_one_back_in() {
    let (sick, well) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU16::new(200)));
    let (a, b) = (probed("a", &sick).await, probed("b", &well).await);
    let document = guarded(
        "1",
        json!({"one": {
            "endpoints": [{"url": a.url()}, {"url": b.url()}],
            "load_balancing": "round_robin", "health_check": check(),
        }}),
    );
    let edge = Edge::serving(&document).await;
    wait_health(&edge, 0, "healthy").await;
    wait_health(&edge, 1, "healthy").await;
    let names = async || {
        let mut client = edge.client().await;
        let mut names = Vec::new();
        for _ in 0..6 {
            let response = client.get("acme", "/").await;
            assert_eq!(response.status, 200, "{response:?}");
            names.push(response.text());
        }
        names.sort();
        names.dedup();
        names
    };
    assert_eq!(names().await, ["a", "b"]);
    sick.store(503, Ordering::SeqCst);
    wait_health(&edge, 0, "unhealthy").await;
    assert_eq!(names().await, ["b"]);
    let shown = candidate(&edge, 0).await;
    assert_eq!(shown["usable"], false);
    assert_eq!(shown["last_failure"]["reason"], "probe");
    let detail = shown["last_failure"]["detail"].as_str().expect("words");
    assert!(detail.contains("503"), "{detail}");
    sick.store(204, Ordering::SeqCst);
    wait_health(&edge, 0, "healthy").await;
    assert_eq!(names().await, ["a", "b"]);
    for (to, count) in [("unhealthy", 1.0), ("healthy", 3.0)] {
        let parts = ["cellgate_health_transitions_total", &format!("to=\"{to}\"")];
        assert_eq!(edge.metric(&parts).await, count, "{to}");
    }
}

#[tokio::test]
async fn an_unhealthy_placement_goes_to_its_fallback_and_nowhere_else() {
    let sick = Arc::new(AtomicU16::new(500));
    let (one, two) = (probed("one", &sick).await, Cell::echo("two").await);
    let document = |version: &str, fallback: Value| {
        guarded(
            version,
            json!({
                "one": {"url": one.url(), "health_check": check(), "fallback": fallback},
                "two": {"url": two.url()},
            }),
        )
    };
    let edge = Edge::serving(&document("1", "two".into())).await;
    wait_health(&edge, 0, "unhealthy").await;
    let over = edge.get("acme", "/").await;
    assert_eq!(over.status, 200);
    over.assert_routed("two", "tier");
    assert_eq!(over.get("x-failover-reason"), Some("upstream_unhealthy"));
    assert_eq!(over.get("x-circuit-state"), None, "it has no breaker");

    // The health of unchanged backends survives a reload.
    edge.write_routing(&document("2", Value::Null));
    edge.wait_version("2").await;
    let served = two.requests();
    let down = edge.get("acme", "/").await;
    down.assert_error(503, "upstream_unhealthy");
    down.assert_routed("one", "tier");
    assert_eq!(down.get("retry-after"), Some("1"));
    assert_eq!(two.requests(), served);

    // Without a health check, the backend counts as healthy.
    edge.write_routing(&guarded("3", json!({"one": {"url": one.url()}})));
    edge.wait_version("3").await;
    assert_eq!(edge.get("acme", "/").await.status, 200);
    assert_eq!(candidate(&edge, 0).await["health"], Value::Null);
}

/// The path, Host and other fields of a probe.
#[tokio::test]
async fn probes_ask_what_the_document_says() {
    let cell = Cell::echo("one").await;
    let own = format!("127.0.0.1:{}", cell.port());
    let mut asked = check();
    asked["path"] = "/up?deep=1".into();
    let placement = |check: Value| json!({"one": {"url": cell.url(), "health_check": check}});
    let edge = Edge::serving(&guarded("1", placement(asked.clone()))).await;
    cell.wait_requests(2).await;
    let probe = cell.last();
    assert_eq!(
        (probe.head.method(), probe.head.target()),
        ("GET", "/up?deep=1")
    );
    assert_eq!(probe.get("host"), Some(own.as_str()));
    let agent = probe.get("user-agent").expect("a name");
    assert!(agent.starts_with("cellgate/"), "{agent}");
    assert_eq!(probe.get("x-routing-key"), None);

    asked["host"] = "health.internal".into();
    edge.write_routing(&guarded("2", placement(asked)));
    edge.wait_version("2").await;
    eventually("the probe has the new host", async || {
        (cell.last().get("host") == Some("health.internal")).then_some(())
    })
    .await;
}

/// Every failure of a probe has its own message for the operator.
#[tokio::test]
async fn every_way_to_fail_is_named() {
    let hanging = Cell::scripted("one", |mut conn| async move {
        conn.head().await?;
        conn.wire.rest().await.map(drop)
    })
    .await;
    let garbage = Cell::answering("one", "SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
    let closing =
        Cell::scripted("one", |mut conn| async move { conn.head().await.map(drop) }).await;
    let endless = Cell::scripted("one", |mut conn| async move {
        conn.head().await?;
        conn.wire.send(b"HTTP/1.1 200 OK\r\n").await?;
        loop {
            conn.wire.send(&[b'x'; 4096]).await?;
        }
    })
    .await;
    let moved = Cell::answering("one", "HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n").await;
    for (what, address, word) in [
        ("refused", Cell::nobody().await, "refused"),
        ("hanging", hanging.address, "100ms"),
        ("garbage", garbage.address, ""),
        ("closing", closing.address, ""),
        ("endless", endless.address, ""),
        ("moved", moved.address, "301"),
    ] {
        let placement = json!({"url": format!("http://{address}"), "health_check": check()});
        let edge = Edge::serving(&guarded("1", json!({"one": placement}))).await;
        wait_health(&edge, 0, "unhealthy").await;
        let shown = candidate(&edge, 0).await;
        let detail = shown["last_failure"]["detail"]
            .as_str()
            .expect("words")
            .to_owned();
        assert!(
            !detail.is_empty() && detail.contains(word),
            "{what}: {detail}"
        );
    }
}

/// A probe verifies TLS as a request does.
#[tokio::test]
async fn https_probes_verify_the_cell() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    for (authority, health) in [(&ours, "healthy"), (&theirs, "unhealthy")] {
        let cell = tls_cell("one", &authority.issue("cell.test")).await;
        let placement = json!({
            "url": format!("https://cell.test:{}", cell.port()), "health_check": check(),
        });
        let builder = Edge::builder();
        let ca = builder.directory().join("ca.pem");
        ours.write(&ca);
        let edge = builder
            .set("cellgate.tls", json!({"ca_file": ca.to_string_lossy()}))
            .set("cellgate.hosts", json!({"cell.test": "127.0.0.1"}))
            .routing(&guarded("1", json!({"one": placement})))
            .start()
            .await;
        wait_health(&edge, 0, health).await;
    }
}

/// A new endpoint is used before its first probe.
#[tokio::test]
async fn what_was_never_probed_is_used() {
    let cell = Cell::echo("one").await;
    let slow = json!({"interval": "1h", "timeout": "1s"});
    let document = guarded(
        "1",
        json!({"one": {"url": cell.url(), "health_check": slow}}),
    );
    let edge = Edge::serving(&document).await;
    let first = edge.get("acme", "/").await;
    assert_eq!(first.status, 200);
}

/// Three hundred cells that hang cost a bounded number of connections, and delay no other probe.
#[tokio::test]
async fn probes_are_bounded() {
    const SICK: usize = 300;
    let hanging = Cell::scripted("hanging", |mut conn| async move {
        conn.head().await?;
        conn.wire.rest().await.map(drop)
    })
    .await;
    let well = Arc::new(AtomicU16::new(200));
    let cell = probed("one", &well).await;
    let mut placements = serde_json::Map::new();
    let mut slow = check();
    slow["interval"] = "1s".into();
    slow["timeout"] = "1s".into();
    for n in 0..SICK {
        let placement = json!({"url": hanging.url(), "health_check": slow});
        placements.insert(format!("sick{n}"), placement);
    }
    placements.insert(
        "one".to_owned(),
        json!({"url": cell.url(), "health_check": check()}),
    );
    let edge = Edge::serving(&guarded("1", Value::Object(placements))).await;
    wait_health(&edge, 0, "healthy").await;
    hanging.wait_requests(SICK).await;
    // 128 at a time, and those that the edge has closed and the cell has not noticed yet.
    let most = hanging.most_open();
    assert!((64..200).contains(&most), "{most} probes at a time");
    // The healthy cell is still probed at its interval.
    well.store(500, Ordering::SeqCst);
    wait_health(&edge, 0, "unhealthy").await;
    assert_eq!(edge.admin("/readyz").await.status, 200);
}
