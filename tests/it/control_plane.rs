//! An edge that follows a control plane: what it sends, what it serves, what it shows.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Content, Dialect, Edge, EdgeBuilder, FakeControl, Link, Two, eventually, wait_control,
};

pub const URLS: &str = "cellgate.control_plane.urls";

/// The polling interval of the routing file, which must not be polled here.
const FILE_LOOKED_AT: Duration = Duration::from_millis(500);

/// Two cells, a control plane, and the builder of an edge that follows it.
pub struct World {
    pub cells: Two,
    pub control: FakeControl,
    pub builder: EdgeBuilder,
}

impl World {
    pub async fn new(dialect: Dialect) -> World {
        let cells = Two::new().await;
        let control = FakeControl::start(dialect).await;
        let builder = Edge::builder()
            .routing(&cells.to("file", "one"))
            .set(URLS, json!([control.url()]))
            .set("cellgate.control_plane.edge_id", "edge-7")
            .set("cellgate.control_plane.labels", json!({"zone": "eu-1"}));
        World {
            cells,
            control,
            builder,
        }
    }

    /// The same for tests that end many connections: see [`urls`].
    pub async fn often(dialect: Dialect) -> World {
        let mut world = World::new(dialect).await;
        world.builder = world.builder.set(URLS, urls(world.control.address));
        world
    }

    /// A document in which `acme` lives in `placement`.
    pub fn content(&self, version: &str, placement: &str) -> Content {
        Content::new(self.cells.to(version, placement))
    }

    /// An edge that serves `content` as generation `generation`.
    pub async fn following(&self, generation: u64, content: &Content) -> (Edge, Link) {
        let edge = self.builder.spawn().ready().await;
        let (mut link, _) = self.control.greet(generation, content).await;
        link.snapshot(1, generation, content).await;
        link.expect_ack(generation, content).await;
        (edge, link)
    }
}

/// One control plane under many URLs: the backoff grows only when all of them have failed.
pub fn urls(address: SocketAddr) -> Value {
    let urls = (0..50).map(|number| format!("ws://{address}/connect?{number}"));
    urls.collect::<Vec<_>>().into()
}

/// The cell that `acme` is sent to.
pub async fn home(edge: &Edge) -> String {
    let response = edge.get("acme", "/").await;
    assert_eq!(response.status, 200, "{response:?}");
    response.text()
}

#[tokio::test]
async fn a_snapshot_and_then_deltas_are_served() {
    let mut world = World::new(Dialect::V1).await;
    let looked_at = format!("{}ms", FILE_LOOKED_AT.as_millis());
    world.builder = world
        .builder
        .set("cellgate.routing.poll_interval", looked_at);
    let edge = world.builder.spawn().ready().await;
    let mut link = world.control.accept().await;
    assert_eq!(link.offered.as_deref(), Some("cellgate.v1"));
    assert_eq!(link.target, "/connect");
    assert_eq!(link.authorization, None);
    let mut hello = link.expect("hello").await;
    let instance = hello["instance"].take();
    assert!(
        instance.as_str().is_some_and(|it| !it.is_empty()),
        "{instance}"
    );
    let file = world.content("file", "one");
    let expected = json!({"type": "hello", "edge_id": "edge-7", "instance": null,
        "version": env!("CARGO_PKG_VERSION"), "labels": {"zone": "eu-1"}, "generation": 0,
        "digest": file.digest(), "max_frame": 1_048_576});
    assert_eq!(hello, expected);
    assert_eq!(home(&edge).await, "one", "the file is served meanwhile");

    let one = world.content("1", "one");
    link.welcome(4, Some(&one), 15).await;
    link.snapshot(1, 4, &one).await;
    link.expect_ack(4, &one).await;
    let two = world.content("1", "two");
    link.moved(4, 6, &two, "acme").await;
    link.expect_ack(6, &two).await;
    assert_eq!(home(&edge).await, "two");

    let config = edge.config().await;
    assert_eq!(config["source"], "control_plane");
    assert_eq!(
        (&config["version"], &config["generation"]),
        (&json!("1"), &json!(3))
    );
    assert_eq!(config["sha256"], Value::Null);
    let mut shown = config["control_plane"].clone();
    assert!(shown["since"].take().is_string());
    let expected = json!({"state": "connected", "url": world.control.url(),
        "dialect": "cellgate.v1", "control_id": "fake", "since": null, "generation": 6,
        "newest_generation": 6, "digest": two.digest(), "stale_seconds": 0, "retries": 0,
        "last_error": null});
    assert_eq!(shown, expected);
    for (parts, value) in [
        (&["cellgate_control_plane_connected"][..], 1.0),
        (&["cellgate_control_plane_generation"], 6.0),
        (&["cellgate_control_plane_stale_seconds"], 0.0),
        (&["cellgate_control_plane_connects_total", "ok"], 1.0),
        (&["cellgate_control_plane_messages_total", "\"delta\""], 1.0),
        (&["cellgate_control_plane_messages_total", "\"ack\""], 2.0),
        (&["cellgate_control_plane_messages_total", "\"nack\""], 0.0),
    ] {
        assert_eq!(edge.metric(parts).await, value, "{parts:?}");
    }
    // The routing file is no longer the source.
    edge.write_routing(&world.cells.to("other", "one"));
    edge.signal(libc::SIGHUP);
    // Nothing must happen, so there is no event to wait for: two polling intervals.
    tokio::time::sleep(FILE_LOOKED_AT * 2).await;
    let config = edge.config().await;
    assert_eq!(
        (&config["version"], &config["generation"]),
        (&json!("1"), &json!(3))
    );
    link.checkpoint(6, &two).await;
    let next = world.content("2", "one");
    link.snapshot(2, 7, &next).await;
    link.expect_ack(7, &next).await;
    assert_eq!(edge.config().await["version"], "2");
}

#[tokio::test]
async fn nothing_is_said_of_a_control_plane_that_is_not_to_be() {
    let cells = Two::new().await;
    let edge = Edge::serving(&cells.to("1", "one")).await;
    assert_eq!(edge.config().await["control_plane"], Value::Null);
    let metrics = edge.admin("/metrics").await.text();
    assert!(!metrics.contains("cellgate_control_plane_"), "{metrics}");
}

/// When the routing file has the control plane's content, nothing is sent.
#[tokio::test]
async fn content_that_is_here_already_is_not_sent_again() {
    let world = World::new(Dialect::V1).await;
    let _edge = world.builder.spawn().ready().await;
    let file = world.content("file", "one");
    let (mut link, hello) = world.control.greet(12, &file).await;
    assert_eq!(hello["digest"], file.digest());
    link.expect_ack(12, &file).await;
    let two = world.content("file", "two");
    link.moved(12, 13, &two, "acme").await;
    link.expect_ack(13, &two).await;
}

#[tokio::test]
async fn a_status_says_what_the_operator_needs_to_see() {
    let world = World::new(Dialect::V1).await;
    let one = world.content("1", "one");
    let (edge, mut link) = world.following(9, &one).await;
    // A nack is news, so the next status does not wait for its interval.
    let mut without_rates = 0;
    for older in 2..5 {
        link.moved(1, older, &one, "acme").await;
        let nack = link.expect("nack").await;
        assert_eq!(nack["generation"], older);
        let status = link
            .status("a status with the error", |status| {
                status["last_error"]["problems"] == nack["problems"]
            })
            .await;
        assert_eq!(status["generation"], 9);
        assert_eq!(status["digest"], one.digest());
        assert_eq!(status["source"], "control_plane");
        assert!(status["serving_since"].is_string() && status["stale_seconds"].is_u64());
        without_rates += u32::from(status.get("placements").is_none());
    }
    // One of the statuses may have been the regular one; those sent because of news have no rates.
    assert!(without_rates >= 1);
    for _ in 0..20 {
        assert_eq!(home(&edge).await, "one");
    }
    let rate = |status: &Value| status["placements"]["one"]["requests_per_second"].as_f64();
    link.status("a status with rates", |status| rate(status) > Some(0.0))
        .await;
}

#[tokio::test]
async fn a_token_is_shown_and_may_be_replaced_at_any_time() {
    let world = World::new(Dialect::V1).await;
    let token = world.builder.directory().join("token");
    std::fs::write(&token, "first\n").expect("write the token");
    world.control.refuse(Some(401));
    let file = token.to_string_lossy().into_owned();
    let edge = world.builder.set("cellgate.control_plane.token_file", file);
    let edge = edge.spawn().ready().await;
    let shown = wait_control(&edge, "it is refused", |shown| shown["retries"] != 0).await;
    let error = shown["last_error"]["message"].as_str().expect("an error");
    assert!(
        error.contains("401") && error.contains("token_file"),
        "{error}"
    );
    assert!(error.contains("not you"), "{error}");
    assert!(!error.contains("first"), "a secret in {error}");
    let refused = world.control.refused();
    assert_eq!(refused.first(), Some(&Some("Bearer first".to_owned())));

    std::fs::write(&token, "second").expect("replace the token");
    world.control.refuse(None);
    let link = world.control.accept().await;
    assert_eq!(link.authorization.as_deref(), Some("Bearer second"));
    assert!(!edge.log.text().contains("Bearer"));
}

#[tokio::test]
async fn m3_is_spoken_to_a_control_plane_that_knows_no_better() {
    let world = World::new(Dialect::M3).await;
    let edge = world.builder.spawn().ready().await;
    let mut link = world.control.accept().await;
    let two = world.content("2", "two");
    link.send(two.message()).await;
    assert_eq!(link.receive().await, json!({"type": "ack", "version": "2"}));
    assert_eq!(home(&edge).await, "two");

    let mut bad = world.cells.to("3", "nowhere");
    bad["defaultPlacement"] = "neither".into();
    bad["type"] = "config_snapshot".into();
    link.send(bad).await;
    let nack = link.expect("nack").await;
    assert_eq!(nack["version"], "3");
    let error = nack["error"].as_str().expect("an error");
    assert!(
        error.contains("nowhere") && error.contains("neither"),
        "{error}"
    );
    assert_eq!(home(&edge).await, "two");

    let shown = wait_control(&edge, "it is shown", |shown| shown["state"] == "connected").await;
    assert_eq!(shown["dialect"], "m3");
    assert_eq!(shown["generation"], Value::Null);
    let config = edge.config().await;
    assert_eq!(
        (&config["source"], &config["version"]),
        (&json!("control_plane"), &json!("2"))
    );
    assert!(config["last_error"]["problems"].is_array());
    link.send(two.message()).await;
    assert_eq!(link.receive().await, json!({"type": "ack", "version": "2"}));
    assert_eq!(edge.config().await["last_error"], Value::Null);
    assert_eq!(edge.config().await["generation"], config["generation"]);
    assert_eq!(link.offered.as_deref(), Some("cellgate.v1"));
}

#[tokio::test]
async fn all_urls_have_their_turn() {
    let world = World::new(Dialect::V1).await;
    let other = FakeControl::start(Dialect::V1).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let refusing = format!("ws://{}", nobody.local_addr().expect("an address"));
    drop(nobody);
    let urls = format!("{refusing}, {},{}", world.control.url(), other.url());
    // The environment variable takes precedence.
    let edge = world.builder.env("CONTROL_PLANE_URL", urls).spawn();
    let edge = edge.ready().await;
    let one = Content::new(world.cells.to("1", "one"));
    for _ in 0..2 {
        let (control, mut link) = tokio::select! {
            link = world.control.accept() => (&world.control, link),
            link = other.accept() => (&other, link),
        };
        link.expect("hello").await;
        link.welcome(1, Some(&one), 15).await;
        let url = control.url();
        wait_control(&edge, "it is shown", |shown| {
            shown["state"] == "connected" && shown["url"] == url.as_str()
        })
        .await;
        control.refuse(Some(503));
        link.close(1001, "going away").await;
    }
    eventually("both are gone", async || {
        let shown = edge.config().await["control_plane"].take();
        (shown["state"] != "connected" && shown["retries"].as_u64() > Some(0)).then_some(())
    })
    .await;
    edge.log.wait("with 1001: going away").await;
}

#[tokio::test]
async fn an_edge_that_ends_follows_for_as_long_as_it_listens_and_says_goodbye() {
    let mut world = World::new(Dialect::V1).await;
    world.builder = world.builder.set("cellgate.drain_delay", "4s");
    let one = world.content("1", "one");
    let (mut edge, mut link) = world.following(1, &one).await;
    edge.signal(libc::SIGTERM);
    eventually("it is not ready", async || {
        (edge.admin("/readyz").await.status == 503).then_some(())
    })
    .await;
    let two = world.content("1", "two");
    link.moved(1, 2, &two, "acme").await;
    link.expect_ack(2, &two).await;
    assert_eq!(home(&edge).await, "two");
    let (code, reason) = link.ended().await;
    assert_eq!((code, reason.as_str()), (1001, "the edge is stopping"));
    assert!(edge.exited().await.success());
}
