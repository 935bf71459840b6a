//! The ways in which routing files are replaced in practice.
//!
//! File notification alone must be enough where the polling interval is an hour, and polling alone where
//! notification cannot work.

use std::fs;
use std::io::{Seek, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Cell, Edge, EdgeBuilder, document};

/// A document that differs only in its version: these tests are about files, not routes.
fn version(version: &str) -> Value {
    document(
        version,
        json!({"acme": "one"}),
        json!({"one": "http://127.0.0.1:9"}),
        "one",
    )
}

fn never_polling() -> EdgeBuilder {
    Edge::builder().set("cellgate.routing.poll_interval", "1h")
}

#[tokio::test]
async fn atomic_renames() {
    let edge = never_polling().routing(&version("0")).start().await;
    for round in 1..=10 {
        edge.write_routing(&version(&round.to_string()));
        edge.wait_version(&round.to_string()).await;
    }
}

#[tokio::test]
async fn rewrites_in_place() {
    let edge = never_polling().routing(&version("0")).start().await;
    for round in 1..=10 {
        fs::write(
            edge.path("routing.json"),
            version(&round.to_string()).to_string(),
        )
        .expect("write");
        edge.wait_version(&round.to_string()).await;
    }
}

/// A file written in pieces: no state in between is applied, and none is left as an error.
#[tokio::test]
async fn a_file_that_is_being_written_is_never_applied() {
    let edge = Edge::builder()
        .routing(&version("0"))
        .set("cellgate.routing.poll_interval", "100ms")
        .start()
        .await;
    for round in 1..=5 {
        let name = format!("slow-{round}");
        let text = version(&name).to_string();
        let mut file = fs::File::create(edge.path("routing.json")).expect("truncate");
        for piece in text.as_bytes().chunks(8) {
            file.write_all(piece).expect("write");
            file.flush().expect("flush");
            let config = edge.config().await;
            assert!(config["version"] != json!(""), "{config}");
        }
        drop(file);
        let config = edge.wait_version(&name).await;
        assert_eq!(
            config["generation"],
            json!(round + 1),
            "a state in between was applied"
        );
        assert!(config["last_error"].is_null(), "{config}");
    }
}

/// A rewrite whose intermediate states are valid documents too: the edge must wait until the writer is done.
#[tokio::test]
async fn a_valid_state_in_between_is_never_applied() {
    let edge = Edge::builder()
        .routing(&version("0"))
        .set("cellgate.routing.poll_interval", "100ms")
        .start()
        .await;
    let mut file = fs::File::create(edge.path("routing.json")).expect("truncate");
    for round in 0..200 {
        // Each of these is a valid document, but not the one that is being written.
        file.set_len(0).expect("truncate");
        file.rewind().expect("rewind");
        file.write_all(version(&format!("between-{round}")).to_string().as_bytes())
            .expect("write");
    }
    file.set_len(0).expect("truncate");
    file.rewind().expect("rewind");
    file.write_all(version("final").to_string().as_bytes())
        .expect("write");
    drop(file);
    let config = edge.wait_version("final").await;
    assert_eq!(config["generation"], 2, "a state in between was applied");
}

#[tokio::test]
async fn deleted_and_created_again() {
    let edge = never_polling().routing(&version("0")).start().await;
    for round in 1..=5 {
        fs::remove_file(edge.path("routing.json")).expect("remove");
        // A missing file is reported, and the edge keeps serving.
        edge.signal(libc::SIGHUP);
        let error = edge.wait_refused().await;
        assert!(error.to_string().contains("routing.json"), "{error}");
        assert_eq!(edge.admin("/readyz").await.status, 200);
        fs::write(
            edge.path("routing.json"),
            version(&round.to_string()).to_string(),
        )
        .expect("write");
        let config = edge.wait_version(&round.to_string()).await;
        assert!(config["last_error"].is_null(), "{config}");
    }
}

/// Kubernetes: routing.json -> ..data/routing.json, ..data -> ..DATE, and a rename swaps ..data.
#[tokio::test]
async fn a_config_map_swap() {
    let builder = never_polling();
    let mount = builder.directory().join("mount");
    fs::create_dir(&mount).expect("a directory");
    let publish = |name: &str| {
        let data = mount.join(format!("..{name}"));
        fs::create_dir(&data).expect("a directory");
        fs::write(data.join("routing.json"), version(name).to_string()).expect("write");
        let new = mount.join("..data_tmp");
        symlink(format!("..{name}"), &new).expect("a link");
        fs::rename(new, mount.join("..data")).expect("swap");
    };
    publish("k0");
    symlink("..data/routing.json", mount.join("routing.json")).expect("a link");
    let path = mount.join("routing.json").to_string_lossy().into_owned();
    let edge = builder.set("cellgate.routing.path", path).start().await;
    assert_eq!(edge.config().await["version"], "k0");
    for round in 1..=5 {
        let name = format!("k{round}");
        publish(&name);
        edge.wait_version(&name).await;
        fs::remove_dir_all(mount.join(format!("..k{}", round - 1))).expect("remove the old one");
    }
}

/// The target of a link is rewritten; the directory of the link does not change.
#[tokio::test]
async fn the_target_of_a_link_changes() {
    let builder = never_polling();
    let target = builder.directory().join("elsewhere");
    fs::create_dir(&target).expect("a directory");
    fs::write(target.join("real.json"), version("0").to_string()).expect("write");
    let link = builder.routing_path();
    symlink("elsewhere/real.json", &link).expect("a link");
    let edge = builder.start().await;
    for round in 1..=5 {
        replace(&target.join("real.json"), &version(&round.to_string()));
        edge.wait_version(&round.to_string()).await;
    }
}

/// The directory itself is replaced: the watched one is gone, and polling finds the new one.
#[tokio::test]
async fn the_directory_is_replaced() {
    let builder = Edge::builder().set("cellgate.routing.poll_interval", "200ms");
    let directory = builder.directory().join("config");
    let at = directory.join("routing.json");
    fs::create_dir(&directory).expect("a directory");
    fs::write(&at, version("0").to_string()).expect("write");
    let edge = builder
        .set("cellgate.routing.path", at.to_string_lossy().into_owned())
        .start()
        .await;
    for round in 1..=3 {
        fs::rename(&directory, edge.path(&format!("old-{round}"))).expect("move away");
        fs::create_dir(&directory).expect("a directory");
        fs::write(&at, version(&round.to_string()).to_string()).expect("write");
        edge.wait_version(&round.to_string()).await;
    }
    // Notification works in the new directory as well.
    replace(&at, &version("last"));
    edge.wait_version("last").await;
}

#[tokio::test]
async fn an_unreadable_file_keeps_the_table() {
    let edge = Edge::builder().routing(&version("0")).start().await;
    // A directory in place of the file cannot be read, not even by root.
    fs::remove_file(edge.path("routing.json")).expect("remove");
    fs::create_dir(edge.path("routing.json")).expect("a directory");
    edge.log.wait("Config reload failed").await;
    let config = edge.config().await;
    assert_eq!(config["version"], "0");
    assert!(!config["last_error"].is_null());
    fs::remove_dir(edge.path("routing.json")).expect("remove");
    edge.write_routing(&version("1"));
    edge.wait_version("1").await;
}

/// A fast writer: the last state is applied in the end.
#[tokio::test]
async fn a_burst_of_changes_ends_with_the_last() {
    let edge = never_polling().routing(&version("0")).start().await;
    for burst in 0..5 {
        for round in 0..100 {
            edge.write_routing(&version(&format!("{burst}-{round}")));
        }
        edge.wait_version(&format!("{burst}-99")).await;
    }
}

/// Changes of other files in the same directory are ignored.
#[tokio::test]
async fn neighbours_do_not_matter() {
    let cell = Cell::echo("one").await;
    let edge = never_polling()
        .routing(&document("0", json!({}), json!({"one": cell.url()}), "one"))
        .start()
        .await;
    let before = edge.config().await;
    for round in 0..50 {
        fs::write(edge.path(&format!("other-{round}.json")), "not json").expect("write");
    }
    edge.write_routing(&version("1"));
    let after = edge.wait_version("1").await;
    assert_eq!(after["generation"], 2);
    assert!(before["last_error"].is_null() && after["last_error"].is_null());
    assert_eq!(edge.log.count("Config reload failed"), 0);
}

fn replace(path: &Path, document: &Value) {
    let new = path.with_extension("new");
    fs::write(&new, document.to_string()).expect("write");
    fs::rename(new, path).expect("rename");
}
