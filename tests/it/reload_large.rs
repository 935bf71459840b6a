//! Large routing files: up to the limit they load while requests are served, above it they are refused.

use serde_json::{Value, json};

use crate::harness::{Edge, Two, document, placements};

/// A file larger than `limits.routing_file_bytes` is refused without reading all of it.
#[tokio::test]
async fn a_huge_file_is_refused() {
    let cells = Two::new().await;
    let edge = Edge::builder()
        .routing(&cells.to("1", "one"))
        .set("cellgate.limits.routing_file_bytes", 65_536)
        .start()
        .await;
    let padding = " ".repeat(70_000);
    edge.write_routing_bytes(format!("{}{padding}", cells.to("2", "two")));
    let error = edge.wait_refused().await;
    assert!(
        error.to_string().contains("65536") || error.to_string().contains("64 KiB"),
        "{error}"
    );
    assert_eq!(edge.config().await["version"], "1");
    edge.write_routing(&cells.to("3", "two"));
    edge.wait_version("3").await;
}

/// Compiling a large table delays no request.
#[tokio::test]
async fn a_large_table_loads_while_requests_go_on() {
    let cells = Two::new().await;
    let edge = Edge::serving(&cells.to("1", "one")).await;
    let keys: serde_json::Map<String, Value> = (0..100_000)
        .map(|number| {
            (
                format!("tenant-{number:06}"),
                json!(if number % 2 == 0 { "one" } else { "two" }),
            )
        })
        .collect();
    let large = document(
        "large",
        Value::Object(keys),
        placements(&[&cells.one, &cells.two]),
        "one",
    );
    edge.write_routing(&large);
    let mut client = edge.client().await;
    loop {
        assert_eq!(client.get("acme", "/").await.status, 200);
        if edge.config().await["version"] == "large" {
            break;
        }
    }
    assert_eq!(edge.config().await["keys"], 100_000);
    assert_eq!(client.get("tenant-000001", "/").await.text(), "two");
    assert_eq!(client.get("tenant-099998", "/").await.text(), "one");
}
