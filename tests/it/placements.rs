//! What operators see of placements: `/debug/placements` and its metrics and log lines.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::{Cell, Conn, Edge, eventually};

/// Short intervals. Two failures in a row, so that one late probe on a busy machine does not count.
fn often() -> Value {
    json!({"interval": "300ms", "timeout": "300ms", "healthy_threshold": 1, "unhealthy_threshold": 2})
}

/// A cell whose `/health` fails while the switch is on; other requests succeed.
async fn moody(name: &str) -> (Cell, Arc<AtomicBool>) {
    let ill = Arc::new(AtomicBool::new(false));
    let switch = ill.clone();
    let script = move |mut conn: Conn| {
        let ill = ill.clone();
        async move {
            while let Some(request) = conn.request().await? {
                if request.head.target() == "/health" && ill.load(Ordering::SeqCst) {
                    let answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
                    conn.wire.send(answer.as_bytes()).await?;
                } else {
                    conn.reply().await?;
                }
            }
            Ok(())
        }
    };
    (Cell::scripted(name, script).await, switch)
}

fn routing(version: &str, placements: Value) -> Value {
    json!({
        "version": version,
        "routingTable": {"acme": "one"},
        "placements": placements,
        "defaultPlacement": "one",
    })
}

/// The only address of a placement in `/debug/placements`.
async fn backend(edge: &Edge, placement: &str) -> Value {
    let shown = edge
        .admin(&format!("/debug/placements?placement={placement}"))
        .await;
    assert_eq!(shown.status, 200, "{shown:?}");
    shown.json()["placements"][0]["endpoints"][0]["backends"][0].take()
}

async fn becomes(edge: &Edge, placement: &str, health: &str) -> Value {
    let what = format!("{placement} becomes {health}");
    eventually(&what, async || {
        let backend = backend(edge, placement).await;
        (backend["health"] == health).then_some(backend)
    })
    .await
}

#[tokio::test]
async fn a_cell_is_shown_to_fall_ill_and_to_get_well() {
    let (one, ill) = moody("one").await;
    let two = Cell::echo("two").await;
    let edge = Edge::serving(&routing(
        "1",
        json!({
            "one": {"url": one.url(), "fallback": "two", "health_check": often()},
            "two": {"url": two.url()},
        }),
    ))
    .await;
    becomes(&edge, "one", "healthy").await;
    let response = edge.get("acme", "/").await;
    assert_eq!(
        (response.text().as_str(), response.get("x-failover-reason")),
        ("one", None)
    );

    ill.store(true, Ordering::SeqCst);
    let backend = becomes(&edge, "one", "unhealthy").await;
    assert_eq!(backend["usable"], false, "{backend}");
    assert_eq!(
        backend["last_failure"]["detail"],
        "answered 503 (expected 200-299)"
    );
    let response = edge.get("acme", "/").await;
    assert_eq!(response.text(), "two");
    assert_eq!(
        response.get("x-failover-reason"),
        Some("upstream_unhealthy")
    );
    assert_eq!(response.get("x-routed-to"), Some("two"));
    assert_eq!(
        edge.metric(&["cellgate_backends", "one", "usable=\"false\""])
            .await,
        1.0
    );
    let route = edge.admin("/debug/route?key=acme").await.json();
    assert_eq!(route["served_by"], "two", "{route}");
    assert_eq!(route["failover_reason"], "upstream_unhealthy", "{route}");

    ill.store(false, Ordering::SeqCst);
    becomes(&edge, "one", "healthy").await;
    assert_eq!(edge.get("acme", "/").await.text(), "one");
}

/// The health of an unchanged backend survives a reload; a backend that is no longer probed starts anew.
#[tokio::test]
async fn a_reload_keeps_the_health_of_what_it_keeps() {
    let nobody = Cell::nobody().await;
    let at =
        |check: Value| json!({"one": {"url": format!("http://{nobody}"), "health_check": check}});
    let edge = Edge::serving(&routing("1", at(often()))).await;
    let before = becomes(&edge, "one", "unhealthy").await;
    assert_eq!(before["last_failure"]["detail"], "connection refused");
    // With these intervals, only a state that was kept can be unhealthy.
    let hourly = json!({"interval": "1h", "unhealthy_threshold": 100});
    edge.write_routing(&routing("2", at(hourly.clone())));
    edge.wait_version("2").await;
    let after = backend(&edge, "one").await;
    assert_eq!(after["health"], "unhealthy", "{after}");
    assert_eq!(after["health_since"], before["health_since"]);

    edge.write_routing(&routing("3", at(Value::Null)));
    edge.wait_version("3").await;
    assert_eq!(backend(&edge, "one").await["health"], Value::Null);
    edge.get("acme", "/")
        .await
        .assert_error(502, "upstream_unreachable");
    edge.write_routing(&routing("4", at(hourly)));
    edge.wait_version("4").await;
    becomes(&edge, "one", "unprobed").await;
}
