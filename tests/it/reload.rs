//! New routing documents while the edge serves: applied as a whole or refused as a whole.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Cell, Edge, Two, document, eventually, placements, table};

#[tokio::test]
async fn a_change_is_live_and_counted() {
    let cells = Two::new().await;
    let edge = Edge::serving(&cells.to("1", "one")).await;
    let before = edge.config().await;
    assert_eq!(before["version"], "1");
    assert_eq!(before["generation"], 1);
    assert_eq!(edge.get("acme", "/").await.text(), "one");

    edge.write_routing(&cells.to("2", "two"));
    let after = edge.wait_version("2").await;
    assert_eq!(edge.get("acme", "/").await.text(), "two");
    assert_eq!(after["generation"], 2);
    assert_ne!(after["sha256"], before["sha256"]);
    assert_eq!(after["last_error"], Value::Null);
}

/// Polling alone is enough to apply a change.
#[tokio::test]
async fn a_connection_that_stays_sees_the_new_table() {
    let cells = Two::new().await;
    let edge = Edge::serving(&cells.to("1", "one")).await;
    let mut client = edge.client().await;
    assert_eq!(client.get("acme", "/").await.text(), "one");
    edge.write_routing(&cells.to("2", "two"));
    edge.wait_version("2").await;
    assert_eq!(client.get("acme", "/").await.text(), "two");
}

/// The content counts, not its version string.
#[tokio::test]
async fn a_change_without_a_new_version_is_a_change() {
    let cells = Two::new().await;
    let edge = Edge::serving(&cells.to("1", "one")).await;
    edge.write_routing(&cells.to("1", "two"));
    eventually("generation 2", async || {
        (edge.config().await["generation"] == 2).then_some(())
    })
    .await;
    assert_eq!(edge.get("acme", "/").await.text(), "two");
}

#[tokio::test]
async fn every_kind_of_bad_document_is_refused_and_named() {
    let cells = Two::new().await;
    let edge = Edge::serving(&cells.to("1", "one")).await;
    let good = cells.to("1", "one");
    let with = |pointer: &str, value: Value| {
        let mut document = good.clone();
        *document
            .pointer_mut(pointer)
            .expect("a place in the document") = value;
        document.to_string()
    };
    let without = |name: &str| {
        let mut document = good.clone();
        document.as_object_mut().expect("an object").remove(name);
        document.to_string()
    };
    let text = good.to_string();
    let duplicate = text.replacen("\"acme\":", "\"acme\":\"two\",\"acme\":", 1);
    let unknown = text.replacen('{', "{\"routingtable\":{},", 1);
    for (bad, word) in [
        (String::new(), ""),
        ("not json".to_owned(), ""),
        ("null".to_owned(), ""),
        ("[]".to_owned(), ""),
        (text[..text.len() / 2].to_owned(), ""),
        (format!("{text} x"), ""),
        (with("/version", json!("")), "version"),
        (with("/version", json!(2)), "version"),
        (without("version"), "version"),
        (without("defaultPlacement"), "defaultPlacement"),
        (with("/defaultPlacement", json!("nowhere")), "nowhere"),
        (with("/routingTable/acme", json!("tow")), "two"),
        (with("/cellEndpoints/two", json!("not a url")), "not a url"),
        (with("/cellEndpoints/two", json!("ftp://127.0.0.1/")), "ftp"),
        (
            with("/cellEndpoints/two", json!("http://127.0.0.1/path")),
            "path",
        ),
        (
            with("/cellEndpoints/two", json!("http://u:p@127.0.0.1/")),
            "",
        ),
        (with("/cellEndpoints", json!({})), ""),
        (duplicate, "acme"),
        (unknown, "routingTable"),
    ] {
        let mark = edge.log.mark();
        edge.write_routing_bytes(&bad);
        let line = edge.log.wait_after(mark, "Config reload failed").await;
        assert!(line.contains(word), "nothing about {word:?} in {line}");
        let config = edge.config().await;
        assert_eq!(
            (&config["generation"], &config["version"]),
            (&json!(1), &json!("1")),
            "{bad}"
        );
        assert!(config["last_error"]["at"].is_string(), "{bad}: {config}");
        let problems = config["last_error"]["problems"]
            .as_array()
            .expect("problems");
        assert!(!problems.is_empty(), "{bad}");
        assert!(
            config["last_error"].to_string().contains(word),
            "{bad}: {config}"
        );
        assert_eq!(edge.get("acme", "/").await.text(), "one", "{bad}");
    }
}

/// All problems are reported at once, each with its place.
#[tokio::test]
async fn all_problems_are_reported_together() {
    let cells = Two::new().await;
    let edge = Edge::serving(&cells.to("1", "one")).await;
    edge.write_routing_bytes(
        "{\n  \"version\": \"\",\n  \"routingTable\": {\"acme\": \"tow\",\n    \"b\": \"none\"},\n  \
         \"cellEndpoints\": {\"two\": \"nope\"},\n  \"defaultPlacement\": \"three\"\n}\n",
    );
    let error = edge.wait_refused().await;
    let problems = error["problems"].as_array().expect("problems");
    let at = |pointer: &str| {
        let found = problems
            .iter()
            .find(|problem| problem["pointer"] == pointer);
        found.unwrap_or_else(|| panic!("nothing about {pointer} in {error:#}"))
    };
    assert_eq!(at("/version")["line"], 2);
    assert_eq!(at("/routingTable/acme")["line"], 3);
    assert!(
        at("/routingTable/acme")["message"]
            .as_str()
            .is_some_and(|m| m.contains("two"))
    );
    assert_eq!(at("/routingTable/b")["line"], 4);
    assert_eq!(at("/routingTable/b")["column"], 10);
    assert_eq!(at("/cellEndpoints/two")["line"], 5);
    assert_eq!(at("/defaultPlacement")["line"], 6);
}

#[tokio::test]
async fn a_refused_document_is_logged_once_and_stays_visible() {
    let cells = Two::new().await;
    let edge = Edge::builder()
        .routing(&cells.to("1", "one"))
        .set("cellgate.routing.poll_interval", "100ms")
        .start()
        .await;
    edge.write_routing(&cells.to("2", "nowhere"));
    edge.log.wait("Config reload failed").await;
    // Nothing must happen, so there is no event to wait for: SIGHUP and many polls.
    for _ in 0..4 {
        edge.signal(libc::SIGHUP);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(
        edge.log.count("Config reload failed"),
        1,
        "{}",
        edge.log.text()
    );
    assert!(!edge.config().await["last_error"].is_null());

    // Another mistake is logged.
    edge.write_routing(&cells.to("3", "elsewhere"));
    eventually("the second refusal is logged", async || {
        (edge.log.count("Config reload failed") == 2).then_some(())
    })
    .await;

    // The document that is live clears the error, without a new generation.
    edge.write_routing(&cells.to("1", "one"));
    eventually("last_error is cleared", async || {
        edge.config().await["last_error"].is_null().then_some(())
    })
    .await;
    assert_eq!(edge.config().await["generation"], 1);

    // The first mistake is logged again when it comes back.
    edge.write_routing(&cells.to("2", "nowhere"));
    eventually("the third refusal is logged", async || {
        (edge.log.count("Config reload failed") == 3).then_some(())
    })
    .await;
    edge.write_routing(&cells.to("4", "two"));
    edge.wait_version("4").await;
    assert!(edge.config().await["last_error"].is_null());
}

#[tokio::test]
async fn identical_content_is_no_reload() {
    let cells = Two::new().await;
    let edge = Edge::builder()
        .routing(&cells.to("1", "one"))
        .set("cellgate.routing.poll_interval", "100ms")
        .start()
        .await;
    let before = edge.config().await;
    for _ in 0..10 {
        edge.write_routing(&cells.to("1", "one"));
        edge.signal(libc::SIGHUP);
        // Nothing must happen, so there is no event to wait for.
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(edge.config().await, before);
}

/// SIGHUP alone is enough: the polling interval is an hour.
#[tokio::test]
async fn sighup_reloads_at_once() {
    let cells = Two::new().await;
    let edge = Edge::builder()
        .routing(&cells.to("1", "one"))
        .set("cellgate.routing.poll_interval", "1h")
        .start()
        .await;
    for round in 0..5 {
        let version = format!("h{round}");
        edge.write_routing(&cells.to(&version, if round % 2 == 0 { "two" } else { "one" }));
        edge.signal(libc::SIGHUP);
        edge.wait_version(&version).await;
    }
}

/// A request is answered by the table it began with, whatever is applied meanwhile.
#[tokio::test]
async fn a_request_in_flight_finishes_on_its_generation() {
    // The cell answers when the test says so.
    let (go, gate) = tokio::sync::watch::channel(false);
    let slow = Cell::scripted("one", move |mut conn| {
        let mut gate = gate.clone();
        async move {
            conn.request().await?;
            let _ = gate.wait_for(|open| *open).await;
            conn.reply().await
        }
    })
    .await;
    let two = Cell::echo("two").await;
    let to = |version: &str, placement: &str| {
        document(
            version,
            table(&[("acme", placement)]),
            placements(&[&slow, &two]),
            "two",
        )
    };
    let edge = Edge::builder()
        .routing(&to("1", "one"))
        .set("cellgate.access_log", "stdout")
        .start()
        .await;
    let mut client = edge.client().await;
    client
        .send("GET / HTTP/1.1\r\nHost: e\r\nX-Routing-Key: acme\r\nX-Request-Id: long\r\n\r\n")
        .await;
    slow.wait_requests(1).await;

    // The new table does not have cell `one` at all.
    edge.write_routing(&document(
        "2",
        table(&[("acme", "two")]),
        placements(&[&two]),
        "two",
    ));
    edge.wait_version("2").await;
    assert_eq!(edge.get("acme", "/").await.text(), "two");

    go.send_replace(true);
    let response = client.response().await;
    assert_eq!((response.status, response.text().as_str()), (200, "one"));
    response.assert_routed("one", "dedicated");
    let line: Value =
        serde_json::from_str(&edge.output.wait("\"long\"").await).expect("an access log line");
    assert_eq!(line["generation"], 1, "{line}");
    // The next request on the same client connection uses the new table.
    assert_eq!(client.get("acme", "/").await.text(), "two");
}

/// Unchanged placements keep their connections.
#[tokio::test]
async fn an_unchanged_cell_keeps_its_connections() {
    let cells = Two::new().await;
    let edge = Edge::serving(&cells.to("0", "one")).await;
    let mut client = edge.client().await;
    assert_eq!(client.get("acme", "/").await.text(), "one");
    for round in 1..=10 {
        let version = round.to_string();
        // Only the other key's placement changes.
        let routes = table(&[
            ("acme", "one"),
            ("b", if round % 2 == 0 { "one" } else { "two" }),
        ]);
        let endpoints = placements(&[&cells.one, &cells.two]);
        edge.write_routing(&document(&version, routes, endpoints, "one"));
        edge.wait_version(&version).await;
        assert_eq!(client.get("acme", "/").await.text(), "one");
    }
    assert!(
        cells.one.connections() <= 2,
        "{} connections",
        cells.one.connections()
    );
}

/// When a placement's address changes, all requests go to the new address at once.
#[tokio::test]
async fn an_endpoint_may_move() {
    let (old, new) = (Cell::echo("tier1").await, Cell::echo("tier1").await);
    let at = |version: &str, cell: &Cell| {
        document(
            version,
            table(&[("acme", "tier1")]),
            placements(&[cell]),
            "tier1",
        )
    };
    let edge = Edge::serving(&at("1", &old)).await;
    let mut client = edge.client().await;
    assert_eq!(client.get("acme", "/").await.status, 200);
    edge.write_routing(&at("2", &new));
    edge.wait_version("2").await;
    for _ in 0..20 {
        assert_eq!(client.get("acme", "/").await.status, 200);
    }
    assert_eq!((old.requests(), new.requests()), (1, 20));
}
