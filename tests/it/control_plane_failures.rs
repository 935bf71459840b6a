//! Whatever happens to the control plane, no request fails: an edge without it is only stale.

use serde_json::{Value, json};

use crate::control_plane::{URLS, World, home, urls};
use crate::harness::{
    Content, Dialect, Edge, FakeControl, Link, Load, Plan, own_address, wait_control,
};

/// How many responses each state is watched for.
const WHILE: u64 = 200;

/// Clients that ask for `acme`, wherever it lives.
fn load(edge: &Edge) -> Load {
    let allowed = vec!["one".to_owned(), "two".to_owned()];
    Load::start(&Plan::new(
        edge.proxy,
        4,
        vec![("acme".to_owned(), allowed)],
    ))
}

async fn finish(load: Load) {
    load.progress(WHILE).await;
    load.finish().await.assert_no_failure();
}

/// Asserts what the edge's hello says it has.
fn assert_has(hello: &Value, generation: u64, content: &Content) {
    assert_eq!(hello["generation"], generation, "{hello}");
    assert_eq!(hello["digest"], content.digest(), "{hello}");
}

/// Asserts that the edge still serves this generation.
async fn assert_unharmed(edge: &Edge, content: &Content, generation: u64) {
    let config = edge.config().await;
    assert_eq!(
        config["control_plane"]["generation"], generation,
        "{config}"
    );
    assert_eq!(config["control_plane"]["digest"], content.digest());
    assert_eq!(home(edge).await, "two");
}

/// Asserts that a delta on generation `from`, which has `version`, applies.
async fn still_follows(world: &World, edge: &Edge, link: &mut Link, from: u64, version: &str) {
    let one = world.content(version, "one");
    link.moved(from, from + 1, &one, "acme").await;
    link.expect_ack(from + 1, &one).await;
    assert_eq!(home(edge).await, "one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_at_start_killed_and_restarted() {
    let mut world = World::often(Dialect::V1).await;
    let address = own_address(world.control.address.port());
    let builder = world.builder.set(URLS, urls(address));
    let edge = builder.spawn().ready().await;
    let load = load(&edge);
    load.progress(WHILE).await;
    let shown = wait_control(&edge, "it is missed", |shown| shown["retries"] != 0).await;
    assert_eq!(shown["generation"], Value::Null);
    assert_eq!(edge.config().await["source"], "file");
    let line = edge.log.wait("no control plane: ").await;
    assert!(line.contains("refused"), "{line}");

    // The control plane starts and sends a table.
    let two = Content::new(world.cells.to("2", "two"));
    world.control = FakeControl::start_at(Dialect::V1, address).await;
    let (mut link, hello) = world.control.greet(4, &two).await;
    assert_eq!(hello["generation"], 0);
    link.snapshot(1, 4, &two).await;
    link.expect_ack(4, &two).await;
    load.progress(WHILE).await;
    let status = link.status("a status", |_| true).await;
    assert!(status["stale_seconds"].is_u64(), "{status}");

    // The control plane is killed.
    drop((world.control, link));
    let shown = wait_control(&edge, "it is lost", |shown| {
        shown["state"] != "connected" && shown["retries"].as_u64() > Some(0)
    })
    .await;
    assert!(shown["last_error"]["at"].is_string(), "{shown}");
    assert_eq!(
        edge.metric(&["cellgate_control_plane_connected"]).await,
        0.0
    );
    load.progress(WHILE).await;
    wait_control(&edge, "it is stale", |shown| {
        shown["stale_seconds"].as_u64() > Some(0)
    })
    .await;
    assert!(edge.metric(&["cellgate_control_plane_stale_seconds"]).await >= 1.0);

    // It comes back; the edge needs no snapshot.
    world.control = FakeControl::start_at(Dialect::V1, address).await;
    let (mut link, hello) = world.control.greet(4, &two).await;
    assert_has(&hello, 4, &two);
    let one = Content::new(world.cells.to("2", "one"));
    link.moved(4, 5, &one, "acme").await;
    link.expect_ack(5, &one).await;
    let shown = wait_control(&edge, "it is back", |shown| shown["state"] == "connected").await;
    assert_eq!(
        (&shown["stale_seconds"], &shown["retries"]),
        (&json!(0), &json!(0))
    );
    finish(load).await;
    assert_eq!(edge.log.count("control plane connected"), 2);
    assert_eq!(edge.log.count("control plane lost"), 1);
    assert!(
        edge.log.count("no control plane: ") <= 2,
        "one for each time"
    );
}

/// The control plane falls silent without closing the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitioned() {
    let world = World::often(Dialect::V1).await;
    let two = world.content("2", "two");
    let edge = world.builder.spawn().ready().await;
    let load = load(&edge);
    let mut link = world.control.accept().await;
    link.expect("hello").await;
    link.welcome(4, Some(&two), 1).await;
    link.snapshot(1, 4, &two).await;
    link.expect_ack(4, &two).await;
    // From here on, the test neither reads from nor writes to this link.
    let line = edge.log.wait("control plane lost: ").await;
    assert!(line.contains("nothing was received for 3"), "{line}");
    load.progress(WHILE).await;
    let (mut link, hello) = world.control.greet(4, &two).await;
    assert_has(&hello, 4, &two);
    still_follows(&world, &edge, &mut link, 4, "2").await;
    finish(load).await;
}

/// A link without messages is kept as long as pings are answered.
#[tokio::test]
async fn quiet_is_not_dead() {
    let world = World::often(Dialect::V1).await;
    let two = world.content("2", "two");
    let edge = world.builder.spawn().ready().await;
    let mut link = world.control.accept().await;
    link.expect("hello").await;
    link.welcome(4, Some(&two), 1).await;
    link.snapshot(1, 4, &two).await;
    link.expect_ack(4, &two).await;
    // Pings are answered while the test reads. Regular statuses are ten seconds apart.
    for what in ["a status", "another", "one more"] {
        link.status(what, |_| true).await;
    }
    assert_eq!(edge.log.count("control plane lost"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage() {
    let world = World::often(Dialect::V1).await;
    let two = world.content("2", "two");
    let (edge, first) = world.following(4, &two).await;
    let load = load(&edge);
    let zeros = |bytes: usize| vec![0_u8; bytes];
    // Chunks outside a snapshot are ignored, whatever they contain.
    let mut link = first;
    link.send_binary(zeros(100)).await;
    link.send(json!({"type": "weather"})).await;
    edge.log.wait("ignoring messages of type \"weather\"").await;
    // Everything else ends the connection with its own close code.
    for (garbage, code) in [
        (Garbage::Text("{\"type\":".to_owned()), 1007),
        (Garbage::Text("[]".to_owned()), 1007),
        (Garbage::Text("{\"type\":\"delta\"}".to_owned()), 1007),
        (Garbage::Text(" ".repeat(2 << 20)), 1009),
        (Garbage::Binary(zeros(300_000)), 1009),
        (Garbage::Binary(zeros(2 << 20)), 1009),
        (
            Garbage::Text(
                "{\"type\":\"welcome\",\"control_id\":\"x\",\"generation\":0,\"ping_seconds\":9}"
                    .to_owned(),
            ),
            1002,
        ),
        (
            Garbage::Text(
                "{\"type\":\"welcome\",\"control_id\":\"x\",\"generation\":0,\"ping_seconds\":0}"
                    .to_owned(),
            ),
            1008,
        ),
    ] {
        let what = format!("{garbage:.60?}");
        match garbage {
            Garbage::Text(text) => link.send_text(text).await,
            Garbage::Binary(bytes) => link.send_binary(bytes).await,
        }
        let (closed, reason) = link.ended().await;
        // When the message exceeds the bound, the rest of it may be in flight while the edge closes.
        assert!(
            closed == code || code == 1009 && closed == 1006,
            "{what}: {closed} {reason}"
        );
        load.progress(20).await;
        let hello;
        (link, hello) = world.control.greet(4, &two).await;
        assert_has(&hello, 4, &two);
    }
    assert_unharmed(&edge, &two, 4).await;
    still_follows(&world, &edge, &mut link, 4, "2").await;
    finish(load).await;
}

/// An edge allocates nothing for an announced length; large messages may come in fragments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_and_documents_of_m3() {
    let world = World::often(Dialect::M3).await;
    let edge = world.builder.spawn().ready().await;
    let load = load(&edge);
    let mut link = world.control.accept().await;
    let text = world.content("2", "two").message().to_string();
    let (first, rest) = text.split_at(text.len() / 2);
    let (second, third) = rest.split_at(rest.len() / 2);
    link.send_fragments(&[first, second, third]).await;
    assert_eq!(link.receive().await, json!({"type": "ack", "version": "2"}));
    // Below the largest document and above the largest frame.
    link.announce((64 << 20) + 1).await;
    let (code, reason) = link.ended().await;
    assert_eq!(code, 1009, "{reason}");
    assert_eq!(home(&edge).await, "two");
    let mut link = world.control.accept().await;
    link.send(world.content("3", "one").message()).await;
    assert_eq!(link.receive().await, json!({"type": "ack", "version": "3"}));
    finish(load).await;
}

#[derive(Debug)]
enum Garbage {
    Text(String),
    Binary(Vec<u8>),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_snapshots() {
    let world = World::often(Dialect::V1).await;
    let two = world.content("2", "two");
    let (edge, mut link) = world.following(4, &two).await;
    let load = load(&edge);
    let three = world.content("3", "two");
    let begin = |id: u64| {
        json!({"type": "snapshot_begin", "id": id, "generation": 5, "digest": three.digest(),
            "head_bytes": 100, "keys": 1, "encoding": "zstd"})
    };
    let chunk = |id: u64, payload: &[u8]| {
        let mut frame = id.to_be_bytes().to_vec();
        frame.extend([0; 8]);
        frame.extend(payload);
        frame
    };
    // Bytes that are not zstd; then a frame that decompresses to 64 MiB.
    link.send(begin(2)).await;
    link.send_binary(chunk(2, b"not zstd")).await;
    let resync = link.expect("resync").await;
    assert!(
        resync["reason"].to_string().contains("broken snapshot"),
        "{resync}"
    );
    link.send(begin(3)).await;
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).expect("a bomb");
    link.send_binary(chunk(3, &bomb)).await;
    link.expect("resync").await;
    // Invalid content is refused with a nack; the edge does not ask for it again.
    link.send(begin(4)).await;
    let head = zstd::bulk::compress(&[b'x'; 100], 3).expect("a frame");
    link.send_binary(chunk(4, &head)).await;
    let nack = link.expect("nack").await;
    assert_eq!(nack["generation"], 5);
    assert_unharmed(&edge, &two, 4).await;
    // The connection is still the first one.
    link.snapshot(5, 6, &three).await;
    link.expect_ack(6, &three).await;
    still_follows(&world, &edge, &mut link, 6, "3").await;
    finish(load).await;
}

/// The connection breaks during a snapshot: no part of it is served or kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_cut_off() {
    let world = World::often(Dialect::V1).await;
    let two = world.content("2", "two");
    let (edge, mut link) = world.following(4, &two).await;
    let load = load(&edge);
    let three = world.content("3", "one");
    for parts in 0..3 {
        link.part_of_snapshot(2, 5, &three, parts).await;
        drop(link);
        let hello;
        (link, hello) = world.control.greet(5, &three).await;
        assert_has(&hello, 4, &two);
        assert_unharmed(&edge, &two, 4).await;
    }
    link.snapshot(2, 5, &three).await;
    link.expect_ack(5, &three).await;
    assert_eq!(home(&edge).await, "one");
    finish(load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_table() {
    let world = World::often(Dialect::V1).await;
    let two = world.content("2", "two");
    let (edge, mut link) = world.following(4, &two).await;
    let load = load(&edge);
    link.send(
        json!({"type": "delta", "from": 4, "generation": 5, "digest": two.digest(),
        "set": {"acme": "nowhere", "b ": "one"}, "remove": ["acme"]}),
    )
    .await;
    let nack = link.expect("nack").await;
    assert_eq!(nack["generation"], 5);
    let problems = nack["problems"].as_array().expect("problems");
    let at = |pointer: &str| {
        let found = problems.iter().find(|it| it["pointer"] == pointer);
        let found = found.unwrap_or_else(|| panic!("nothing about {pointer} in {nack}"));
        found["message"].to_string()
    };
    assert!(at("/set/acme").contains("unknown placement"));
    assert!(!at("/set/b ").is_empty());
    assert!(at("/remove/0").contains("is in set as well"));
    assert_unharmed(&edge, &two, 4).await;
    let error = edge.config().await["last_error"]["problems"].take();
    assert_eq!(error, nack["problems"]);
    let nacks = ["cellgate_control_plane_messages_total", "\"nack\""];
    assert_eq!(edge.metric(&nacks).await, 1.0);

    // An invalid head is refused with the line in its text.
    link.send(
        json!({"type": "delta", "from": 4, "generation": 6, "digest": two.digest(),
        "head": "{\n\"version\": \"\"}"}),
    )
    .await;
    let nack = link.expect("nack").await;
    let problems = nack["problems"].as_array().expect("problems");
    let version = problems.iter().find(|it| it["pointer"] == "/head/version");
    assert_eq!(version.expect("the version")["line"], 2, "{nack}");
    // The edge does not ask for it again, and applies the next one.
    link.checkpoint(6, &two).await;
    still_follows(&world, &edge, &mut link, 4, "2").await;
    assert_eq!(edge.config().await["last_error"], Value::Null);
    finish(load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_generation_and_a_wrong_digest() {
    let world = World::often(Dialect::V1).await;
    let two = world.content("2", "two");
    let (edge, mut link) = world.following(9, &two).await;
    let load = load(&edge);
    let older = "older generation 4 (this edge has 9; generations only grow)";
    let old = world.content("1", "one");
    for kind in ["snapshot", "delta"] {
        match kind {
            "delta" => link.moved(3, 4, &old, "acme").await,
            _ => link.snapshot(2, 4, &old).await,
        }
        let nack = link.expect("nack").await;
        assert_eq!(
            (&nack["generation"], &nack["problems"][0]["message"]),
            (&json!(4), &json!(older))
        );
    }
    // Many refusals in a row do not flood the log.
    for from in 1..100 {
        link.moved(from % 7 + 1, from % 7 + 2, &old, "acme").await;
        link.expect("nack").await;
    }
    let lines = edge.log.count("Config reload failed");
    assert!((1..10).contains(&lines), "{lines} lines");
    assert_unharmed(&edge, &two, 9).await;

    // The delta and its digest disagree.
    let one = world.content("2", "one");
    link.send(
        json!({"type": "delta", "from": 9, "generation": 10, "digest": old.digest(),
        "set": {"acme": "one"}}),
    )
    .await;
    let resync = link.expect("resync").await;
    assert!(resync["reason"].to_string().contains("digest"), "{resync}");
    assert_unharmed(&edge, &two, 9).await;
    link.snapshot(3, 10, &one).await;
    link.expect_ack(10, &one).await;
    assert_eq!(home(&edge).await, "one");

    // A delta is missing in between; then a checkpoint with another digest.
    link.moved(11, 12, &two, "acme").await;
    link.expect("resync").await;
    link.snapshot(4, 12, &two).await;
    link.expect_ack(12, &two).await;
    link.checkpoint(12, &one).await;
    let resync = link.expect("resync").await;
    assert!(
        resync["reason"]
            .to_string()
            .contains("generation 12 has the digest")
    );
    link.snapshot(5, 12, &one).await;
    link.expect_ack(12, &one).await;
    finish(load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m3_pushes_garbage() {
    let world = World::often(Dialect::M3).await;
    let edge = world.builder.spawn().ready().await;
    let load = load(&edge);
    let two = world.content("2", "two");
    let mut link = world.control.accept().await;
    link.send(two.message()).await;
    link.expect("ack").await;
    link.send(json!({"type": "config_snapshot"})).await;
    let nack = link.expect("nack").await;
    assert_eq!(nack["version"], "");
    link.send_text("{").await;
    assert_eq!(link.ended().await.0, 1007);
    let mut link = world.control.accept().await;
    link.send_binary(vec![0; 100]).await;
    assert_eq!(link.ended().await.0, 1002);
    let mut link = world.control.accept().await;
    link.send(two.message()).await;
    assert_eq!(link.receive().await, json!({"type": "ack", "version": "2"}));
    assert_eq!(home(&edge).await, "two");
    finish(load).await;
}

/// A control plane that never sends a welcome is given up.
#[tokio::test]
async fn no_welcome() {
    let world = World::often(Dialect::V1).await;
    let edge = world.builder.spawn().ready().await;
    let mut link = world.control.accept().await;
    link.expect("hello").await;
    let (code, reason) = link.ended().await;
    assert_eq!((code, reason.as_str()), (1002, "no welcome within 10 s"));
    let shown = wait_control(&edge, "it is counted", |shown| shown["retries"] != 0).await;
    assert_ne!(shown["state"], "connected");
    assert_eq!(home(&edge).await, "one");
}
