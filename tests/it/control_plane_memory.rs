//! A restart without the control plane: what it pushed last is served.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::control_plane::{World, home};
use crate::harness::{Content, Dialect, Edge, EdgeBuilder, eventually, wait_control};

fn state_dir(builder: &EdgeBuilder) -> PathBuf {
    builder.directory().join("state")
}

fn remembering(mut world: World) -> World {
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

async fn kill(mut edge: Edge) {
    edge.signal(libc::SIGKILL);
    edge.exited().await;
}

#[tokio::test]
async fn an_edge_without_its_control_plane_serves_the_last_pushed_table() {
    let world = remembering(World::often(Dialect::V1).await);
    let two = world.content("2", "two");
    let (edge, mut link) = world.following(70, &two).await;
    wait_stored(&edge, 2).await;
    let one = world.content("2", "one");
    link.moved(70, 71, &one, "acme").await;
    link.expect_ack(71, &one).await;
    wait_stored(&edge, 3).await;
    kill(edge).await;
    drop(link);

    // No control plane, no file: it serves all the same, and says what it has.
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
    // When it is back, nothing has to be sent again.
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
    kill(edge).await;

    // The newest one is damaged: the one before is served, and said so.
    control.refuse(Some(503));
    let newest = state_dir(&builder).join(format!("{:020}.generation", 4));
    let mut bytes = fs::read(&newest).expect("the newest generation");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).expect("damage it");
    let edge = builder.spawn().ready().await;
    assert_eq!(home(&edge).await, "one");
    assert_eq!(edge.config().await["control_plane"]["generation"], 71);
    edge.log.wait("generation 4 in").await;
    // And mended by the control plane.
    control.refuse(None);
    let (mut link, hello) = control.greet(72, &next).await;
    assert_eq!(hello["generation"], 71);
    link.moved(71, 72, &next, "acme").await;
    link.expect_ack(72, &next).await;
    assert_eq!(home(&edge).await, "two");
}

#[tokio::test]
async fn without_a_table_there_is_no_edge() {
    let world = remembering(World::often(Dialect::V1).await);
    fs::remove_file(world.builder.routing_path()).expect("remove the routing file");
    let ended = world.builder.run().await;
    ended.assert_failed(&["routing.json"]);
}
