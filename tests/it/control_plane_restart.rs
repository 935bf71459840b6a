//! A restart without the control plane: the table that was pushed last is served.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use cellgate::table::Delta;
use rusqlite::Connection;
use serde_json::{Map, Value, json};

use crate::control_plane::{World, home};
use crate::harness::{
    Content, Dialect, Edge, EdgeBuilder, Link, document, eventually, placements, wait_control,
};

fn state_dir(builder: &EdgeBuilder) -> PathBuf {
    builder.directory().join("state")
}

/// Changes the database while no edge runs; returns how many rows.
fn sql(builder: &EdgeBuilder, statement: &str) -> usize {
    let database = Connection::open(state_dir(builder).join("state.db")).expect("a database");
    database.execute(statement, []).expect("a change")
}

fn keeping(mut world: World) -> World {
    let dir = state_dir(&world.builder).display().to_string();
    world.builder = world
        .builder
        .set("cellgate.control_plane.state_dir", dir)
        .set("cellgate.control_plane.promote_after", "100ms");
    world
}

async fn wait_stored(edge: &Edge, number: u64) {
    eventually(&format!("generation {number} is on disk"), async || {
        let state = edge.config().await["state"].take();
        (state["stored_generation"] == number && state["promoted"] == true).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_edge_without_its_control_plane_serves_the_last_pushed_table() {
    let world = keeping(World::often(Dialect::V1).await);
    let two = world.content("2", "two");
    let (edge, mut link) = world.following(70, &two).await;
    wait_stored(&edge, 2).await;
    let one = world.content("2", "one");
    link.moved(70, 71, &one, "acme").await;
    link.expect_ack(71, &one).await;
    wait_stored(&edge, 3).await;
    edge.kill().await;
    drop(link);

    // Without control plane and routing file, the edge still serves, and shows which table.
    let World {
        cells,
        control,
        builder,
    } = world;
    control.refuse(Some(503));
    fs::remove_file(builder.routing_path()).expect("remove the routing file");
    let edge = builder.spawn().ready().await;
    assert_eq!(home(&edge).await, "one");
    let config = edge.config().await;
    assert_eq!(config["source"], "control_plane");
    assert_eq!(config["control_plane"]["generation"], 71);
    assert_eq!(config["control_plane"]["digest"], one.digest());
    assert_eq!(config["last_error"], Value::Null);
    wait_control(&edge, "it is missed", |shown| shown["retries"] != 0).await;
    // When the control plane is back, it sends no snapshot.
    control.refuse(None);
    let (mut link, hello) = control.greet(71, &one).await;
    assert_eq!(
        (&hello["generation"], &hello["digest"]),
        (&json!(71), &json!(one.digest()))
    );
    let next = Content::new(cells.to("2", "two"));
    link.moved(71, 72, &next, "acme").await;
    link.expect_ack(72, &next).await;
    wait_stored(&edge, 4).await;
    edge.kill().await;

    // The newest one is damaged: the one before is served, and that is logged.
    control.refuse(Some(503));
    let newest = "UPDATE snapshots SET bytes = x'00' WHERE generation = 4";
    assert_eq!(sql(&builder, newest), 1);
    let edge = builder.spawn().ready().await;
    assert_eq!(home(&edge).await, "one");
    assert_eq!(edge.config().await["control_plane"]["generation"], 71);
    edge.log.wait("generation 4 in").await;
    // The control plane brings the edge up to date.
    control.refuse(None);
    let (mut link, hello) = control.greet(72, &next).await;
    assert_eq!(hello["generation"], 71);
    link.moved(71, 72, &next, "acme").await;
    link.expect_ack(72, &next).await;
    assert_eq!(home(&edge).await, "two");
}

/// Keys of a table whose changes are stored as deltas.
const KEYS: u64 = 20_000;

fn large(world: &World) -> Content {
    let homes = (0..KEYS).map(|number| (format!("tenant-{number:020}"), Value::from("one")));
    let cells = placements(&[&world.cells.one, &world.cells.two]);
    let homes = Value::Object(homes.collect::<Map<_, _>>());
    Content::new(document("1", homes, cells, "one"))
}

/// Moves a tenant and waits until the change is served.
async fn change(link: &mut Link, content: &mut Content, generation: u64) {
    let key = format!("tenant-{:020}", generation % KEYS);
    let delta = Delta {
        set: vec![(key.clone(), "two".to_owned())],
        ..Delta::default()
    };
    content.table = content.table.apply(&delta).expect("a valid delta");
    content.document["routingTable"][&key] = "two".into();
    link.moved(generation - 1, generation, content, &key).await;
    link.expect_ack(generation, content).await;
}

#[tokio::test]
async fn in_a_stream_of_changes_tables_prove_to_be_good_and_are_kept() {
    let world = keeping(World::often(Dialect::V1).await);
    let mut content = large(&world);
    let (edge, mut link) = world.following(100, &content).await;
    wait_stored(&edge, 2).await;
    let mut generation = 100;
    // Changes come faster than any one of them is served for `promote_after`.
    eventually("another one is promoted meanwhile", async || {
        for _ in 0..5 {
            generation += 1;
            change(&mut link, &mut content, generation).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let state = edge.config().await["state"].take();
        (state["promoted_generation"].as_u64() > Some(5)).then_some(())
    })
    .await;
    let number = edge.config().await["generation"]
        .as_u64()
        .expect("a number");
    wait_stored(&edge, number).await;
    edge.kill().await;
    drop(link);

    // The whole table was written once.
    let database = state_dir(&world.builder).join("state.db");
    let database = Connection::open(database).expect("a database");
    let count = "SELECT count(DISTINCT generation) FROM snapshots";
    let tables: i64 = database
        .query_row(count, [], |row| row.get(0))
        .expect("a number");
    assert_eq!(tables, 2, "that of the routing file, and the pushed one");
    drop(database);
    world.control.refuse(Some(503));
    fs::remove_file(world.builder.routing_path()).expect("remove the routing file");
    let edge = world.builder.spawn().ready().await;
    let config = edge.config().await;
    assert_eq!(config["generation"], number);
    assert_eq!(config["control_plane"]["generation"], generation);
    assert_eq!(config["control_plane"]["digest"], content.digest());
    edge.kill().await;

    // The newest delta is damaged: the generation before is served, and that is logged.
    let damage = "UPDATE generations SET record = substr(record, 1, length(record) - 7) \
                  WHERE number = (SELECT max(number) FROM generations)";
    assert_eq!(sql(&world.builder, damage), 1);
    let edge = world.builder.spawn().ready().await;
    edge.log
        .wait("is skipped: its record is damaged: it does not match its checksum")
        .await;
    let config = edge.config().await;
    let served = config["control_plane"]["generation"].as_u64().expect("one");
    assert!(
        (101..generation).contains(&served),
        "{served} of {generation}"
    );
    // The control plane sends the missing changes, and they are stored again.
    world.control.refuse(None);
    let (mut link, hello) = world.control.greet(generation, &content).await;
    assert_eq!(hello["generation"], served);
    link.snapshot(1, generation, &content).await;
    link.expect_ack(generation, &content).await;
    change(&mut link, &mut content, generation + 1).await;
    let number = edge.config().await["generation"]
        .as_u64()
        .expect("a number");
    wait_stored(&edge, number).await;
    edge.kill().await;
    let edge = world.builder.spawn().ready().await;
    let config = edge.config().await;
    assert_eq!(config["control_plane"]["digest"], content.digest());
}

#[tokio::test]
async fn how_long_nothing_was_heard_is_not_forgotten_in_a_restart() {
    let world = keeping(World::often(Dialect::V1).await);
    let two = world.content("2", "two");
    let (edge, link) = world.following(70, &two).await;
    wait_stored(&edge, 2).await;
    assert_eq!(edge.config().await["control_plane"]["stale_seconds"], 0);
    edge.kill().await;
    drop(link);
    world.control.refuse(Some(503));
    let database = state_dir(&world.builder).join("state.db");
    let database = Connection::open(database).expect("a database");
    let text: String = database
        .query_row("SELECT record FROM journal", [], |row| row.get(0))
        .expect("the journal");
    let mut journal: Value = serde_json::from_str(&text).expect("JSON");
    let heard = journal["last_contact"].as_str().expect("the last contact");
    // As if that were an hour ago.
    let heard = humantime::parse_rfc3339(heard).expect("a time") - Duration::from_secs(3600);
    journal["last_contact"] = humantime::format_rfc3339_millis(heard).to_string().into();
    let text = journal.to_string();
    let sum = xxhash_rust::xxh3::xxh3_64(text.as_bytes()).cast_signed();
    database
        .execute("UPDATE journal SET record = ?1, sum = ?2", (text, sum))
        .expect("set it back");
    drop(database);
    let edge = world.builder.spawn().ready().await;
    let stale = edge.config().await["control_plane"]["stale_seconds"].take();
    assert!(
        (3600..3700).contains(&stale.as_u64().expect("seconds")),
        "{stale}"
    );
    world.control.refuse(None);
    let (mut link, _) = world.control.greet(70, &two).await;
    wait_control(&edge, "it is not stale", |shown| {
        shown["stale_seconds"] == 0
    })
    .await;
    // The status tells the control plane how long the edge has been stale.
    let status = link.status("any", |_| true).await;
    assert!(status["stale_seconds"].as_u64() >= Some(3600), "{status}");
}

#[tokio::test]
async fn without_a_table_there_is_no_edge() {
    let world = keeping(World::often(Dialect::V1).await);
    fs::remove_file(world.builder.routing_path()).expect("remove the routing file");
    let ended = world.builder.run().await;
    ended.assert_failed(&["routing.json"]);
}
