//! The state directory: tables that an edge served, across crashes, full disks and upgrades.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::harness::{Edge, EdgeBuilder, Two, eventually};

const DIR: &str = "cellgate.control_plane.state_dir";
const PROMOTE_AFTER: &str = "cellgate.control_plane.promote_after";

/// An edge with a state directory, which never promotes a table.
fn keeping(document: &Value) -> EdgeBuilder {
    let builder = Edge::builder().routing(document);
    let dir = state_dir(&builder).display().to_string();
    builder.set(DIR, dir).set(PROMOTE_AFTER, "1h")
}

fn state_dir(builder: &EdgeBuilder) -> PathBuf {
    builder.directory().join("state")
}

/// Damages the snapshot of a generation, while no edge runs.
fn damage(builder: &EdgeBuilder, number: u64) {
    let database = Connection::open(state_dir(builder).join("state.db")).expect("a database");
    let changed = database.execute(
        "UPDATE snapshots SET bytes = CAST(substr(bytes, 1, length(bytes) / 2) || x'00' || \
         substr(bytes, length(bytes) / 2 + 2) AS BLOB) WHERE generation = ?1",
        [i64::try_from(number).expect("a small number")],
    );
    assert_eq!(changed.expect("an update"), 1, "generation {number}");
}

async fn start(builder: &EdgeBuilder) -> Edge {
    builder.spawn().ready().await
}

async fn wait_state(edge: &Edge, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually(what, async || {
        let state = edge.config().await["state"].take();
        is(&state).then_some(state)
    })
    .await
}

async fn wait_stored(edge: &Edge, number: u64) -> Value {
    let what = format!("generation {number} is on disk");
    wait_state(edge, &what, |state| state["stored_generation"] == number).await
}

async fn end(mut edge: Edge, signal: i32) {
    edge.signal(signal);
    edge.exited().await;
}

/// The cell that `acme` is sent to.
async fn home(edge: &Edge) -> String {
    let response = edge.get("acme", "/").await;
    assert_eq!(response.status, 200, "{response:?}");
    response.text()
}

#[tokio::test]
async fn nothing_is_kept_unless_it_is_asked_for() {
    let cells = Two::new().await;
    let edge = Edge::serving(&cells.to("1", "one")).await;
    assert_eq!(edge.config().await["state"], Value::Null);
    let entries = fs::read_dir(edge.path("")).expect("the edge's directory");
    let directories = entries.filter(|entry| entry.as_ref().expect("an entry").path().is_dir());
    assert_eq!(directories.count(), 0);
}

#[tokio::test]
async fn a_killed_edge_comes_back_without_its_routing_file() {
    let cells = Two::new().await;
    let builder = keeping(&cells.to("1", "one"));
    let edge = start(&builder).await;
    let state = wait_stored(&edge, 1).await;
    assert_eq!(
        state,
        json!({
            "dir": state_dir(&builder).display().to_string(),
            "stored_generation": 1,
            "promoted": false,
            "promoted_generation": null,
            "fallback": null,
            "error": null,
        })
    );
    edge.write_routing(&cells.to("2", "two"));
    wait_stored(&edge, 2).await;
    let before = edge.config().await;
    end(edge, libc::SIGKILL).await;
    fs::remove_file(builder.routing_path()).expect("remove the routing file");

    let edge = start(&builder).await;
    assert_eq!(home(&edge).await, "two");
    let after = edge.config().await;
    for field in [
        "version",
        "last_reload_at",
        "source",
        "generation",
        "sha256",
        "keys",
    ] {
        assert_eq!(after[field], before[field], "{field}");
    }
    // It serves what it served last, and shows that the file is missing.
    let error = edge.wait_refused().await.to_string();
    assert!(error.contains("routing.json"), "{error}");

    // When the file is back, numbers continue.
    edge.write_routing(&cells.to("3", "one"));
    assert_eq!(edge.wait_version("3").await["generation"], 3);
    assert_eq!(home(&edge).await, "one");
    assert_eq!(wait_stored(&edge, 3).await["fallback"], Value::Null);
    let kept = edge.metric(&["cellgate_state_generation"]).await;
    assert_eq!(kept, 3.0);
}

#[tokio::test]
async fn a_damaged_table_is_skipped_and_logged() {
    let cells = Two::new().await;
    let builder = keeping(&cells.to("1", "one"));
    let edge = start(&builder).await;
    wait_stored(&edge, 1).await;
    edge.write_routing(&cells.to("2", "two"));
    wait_stored(&edge, 2).await;
    end(edge, libc::SIGKILL).await;
    fs::remove_file(builder.routing_path()).expect("remove the routing file");
    damage(&builder, 2);

    let edge = start(&builder).await;
    assert_eq!(edge.config().await["version"], "1");
    assert_eq!(home(&edge).await, "one");
    edge.log.wait("is skipped: its table is damaged: ").await;
    end(edge, libc::SIGKILL).await;

    // With no table left, it says what it needs.
    damage(&builder, 1);
    let ended = builder.run().await;
    ended.assert_failed(&["routing.json", "is skipped: its table is damaged: "]);
}

#[tokio::test]
async fn a_table_that_crashes_the_edge_twice_is_quarantined() {
    let cells = Two::new().await;
    let builder = keeping(&cells.to("1", "one")).set(PROMOTE_AFTER, "100ms");
    let edge = start(&builder).await;
    wait_state(&edge, "it is promoted", |state| state["promoted"] == true).await;
    end(edge, libc::SIGTERM).await;

    let builder = builder.set(PROMOTE_AFTER, "1h");
    let edge = start(&builder).await;
    assert_eq!(edge.config().await["state"]["promoted"], true);
    edge.write_routing(&cells.to("2", "two"));
    wait_stored(&edge, 2).await;
    end(edge, libc::SIGKILL).await;
    let edge = start(&builder).await;
    assert_eq!(home(&edge).await, "two", "one crash may be chance");
    end(edge, libc::SIGKILL).await;

    let edge = start(&builder).await;
    edge.log.wait("falling back from generation 2 to 1: ").await;
    assert_eq!(home(&edge).await, "one");
    let config = edge.config().await;
    let fallback = &config["state"]["fallback"];
    assert_eq!((&fallback["from"], &fallback["to"]), (&json!(2), &json!(1)));
    let why = fallback["why"].as_str().expect("a reason");
    assert!(why.contains("crashed"), "{why}");
    assert_eq!(edge.metric(&["cellgate_state_fallback"]).await, 1.0);
    // The routing file still has the table that crashed the edge.
    let error = edge.wait_refused().await.to_string();
    assert!(error.contains("this edge's generation 2 "), "{error}");
    assert_eq!(home(&edge).await, "one");

    // Another version counts as another table.
    edge.write_routing(&cells.to("2b", "two"));
    assert_eq!(edge.wait_version("2b").await["generation"], 3);
    let state = wait_stored(&edge, 3).await;
    assert_eq!(state["fallback"], Value::Null);
    assert_eq!(edge.metric(&["cellgate_state_fallback"]).await, 0.0);
}

#[tokio::test]
async fn an_edge_that_is_told_to_end_did_not_crash() {
    let cells = Two::new().await;
    let builder = keeping(&cells.to("1", "one"));
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGTERM, libc::SIGTERM] {
        let edge = start(&builder).await;
        wait_stored(&edge, 1).await;
        end(edge, signal).await;
    }
    // An edge that could not start did not crash either.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let builder = builder.set("cellgate.listen", json!([address]));
    for _ in 0..3 {
        builder.run().await.assert_failed(&["in use"]);
    }
    let builder = builder.set("cellgate.listen", json!(["127.0.0.1:0"]));
    let edge = start(&builder).await;
    let config = edge.config().await;
    assert_eq!(config["generation"], 1);
    assert_eq!(config["state"]["fallback"], Value::Null);
}

#[tokio::test]
async fn an_upgrade_hands_the_state_directory_over() {
    let cells = Two::new().await;
    let builder = keeping(&cells.to("1", "one"));
    let mut old = start(&builder).await;
    wait_stored(&old, 1).await;
    let new = builder.successor().await;
    old.signal(libc::SIGQUIT);
    let new = new.ready().await;
    assert!(old.exited().await.success());
    new.write_routing(&cells.to("2", "two"));
    let state = wait_stored(&new, 2).await;
    assert_eq!(state["error"], Value::Null);
    end(new, libc::SIGKILL).await;
    let edge = start(&builder).await;
    assert_eq!(edge.config().await["version"], "2");
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_does_not_keep_the_edge_from_serving() {
    let cells = Two::new().await;
    let builder = keeping(&cells.to("1", "one"));
    let missing = builder.directory().join("missing");
    let builder = builder.set(DIR, missing.join("state").display().to_string());
    let edge = start(&builder).await;
    assert_eq!(home(&edge).await, "one");
    let state = wait_state(&edge, "the error is shown", |state| {
        !state["error"].is_null()
    })
    .await;
    let error = state["error"].as_str().expect("an error");
    assert!(error.starts_with("No such file or directory"), "{error}");
    fs::create_dir(missing).expect("make the directory");
    assert_eq!(wait_stored(&edge, 1).await["error"], Value::Null);
}

/// Something that makes writes in a directory fail.
enum Obstacle {
    /// The directory is a full file system.
    Full(PathBuf),
    /// There is a file in its place.
    Gone(PathBuf),
}

impl Obstacle {
    /// A full file system if the test may mount one.
    fn prepare(dir: &Path) -> Obstacle {
        fs::create_dir(dir).expect("make the directory");
        let target = CString::new(dir.as_os_str().as_bytes()).expect("a path");
        // SAFETY: all texts end with NUL and outlive the call.
        let mounted = unsafe {
            libc::mount(
                c"none".as_ptr(),
                target.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                c"size=512k,mode=700".as_ptr().cast(),
            )
        };
        match mounted {
            0 => Obstacle::Full(dir.to_owned()),
            // Only root may mount.
            _ => Obstacle::Gone(dir.to_owned()),
        }
    }

    fn put_up(&self) {
        match self {
            Obstacle::Full(dir) => {
                let filler = vec![0; 1 << 20];
                fs::write(dir.join("filler"), filler).expect_err("more than there is room for");
            }
            Obstacle::Gone(dir) => {
                fs::rename(dir, dir.with_extension("away")).expect("move it away");
                fs::write(dir, "").expect("put a file there");
            }
        }
    }

    fn take_down(&self) {
        match self {
            Obstacle::Full(dir) => fs::remove_file(dir.join("filler")).expect("make room"),
            Obstacle::Gone(dir) => {
                fs::remove_file(dir).expect("remove the file");
                fs::rename(dir.with_extension("away"), dir).expect("move it back");
            }
        }
    }

    /// How the error of a write begins.
    fn error(&self) -> &'static str {
        match self {
            Obstacle::Full(_) => "database or disk is full",
            Obstacle::Gone(_) => "Not a directory",
        }
    }
}

impl Drop for Obstacle {
    fn drop(&mut self) {
        match self {
            Obstacle::Full(dir) => {
                let target = CString::new(dir.as_os_str().as_bytes()).expect("a path");
                // SAFETY: the path ends with NUL and outlives the call.
                unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
            }
            Obstacle::Gone(_) => {}
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_logged_once_and_does_not_affect_requests() {
    let cells = Two::new().await;
    let builder = keeping(&cells.to("1", "one"));
    let obstacle = Obstacle::prepare(&state_dir(&builder));
    let edge = start(&builder).await;
    wait_stored(&edge, 1).await;
    obstacle.put_up();
    edge.write_routing(&cells.to("2", "two"));
    let state = wait_state(&edge, "the error is shown", |state| {
        !state["error"].is_null()
    })
    .await;
    let error = state["error"].as_str().expect("an error");
    assert!(error.starts_with(obstacle.error()), "{error}");
    assert_eq!(home(&edge).await, "two");
    assert_eq!(edge.metric(&["cellgate_state_error"]).await, 1.0);
    assert_eq!(state["stored_generation"], 1, "a restart would find it");
    edge.write_routing(&cells.to("3", "one"));
    edge.wait_version("3").await;
    assert_eq!(home(&edge).await, "one");

    obstacle.take_down();
    assert_eq!(wait_stored(&edge, 3).await["error"], Value::Null);
    assert_eq!(edge.metric(&["cellgate_state_error"]).await, 0.0);
    assert_eq!(edge.log.count("cannot be kept in"), 1);
    edge.log.wait("can be kept in").await;
    end(edge, libc::SIGKILL).await;
    fs::remove_file(builder.routing_path()).expect("remove the routing file");
    let edge = start(&builder).await;
    assert_eq!(edge.config().await["version"], "3");
}

#[tokio::test]
async fn on_a_full_disk_a_restart_serves_what_was_stored_before() {
    let cells = Two::new().await;
    let builder = keeping(&cells.to("1", "one"));
    let obstacle = Obstacle::prepare(&state_dir(&builder));
    let edge = start(&builder).await;
    wait_stored(&edge, 1).await;
    end(edge, libc::SIGKILL).await;
    // With a file in the place of the directory, there is nothing to read.
    if let Obstacle::Full(_) = &obstacle {
        obstacle.put_up();
        fs::remove_file(builder.routing_path()).expect("remove the routing file");
    }
    let edge = start(&builder).await;
    assert_eq!(edge.config().await["version"], "1");
    assert_eq!(home(&edge).await, "one");
}
