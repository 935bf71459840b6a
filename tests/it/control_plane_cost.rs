//! What a change of one key costs an edge with a large table: bytes on the wire in both directions and CPU
//! time, compared to a snapshot; with and without a state_dir.
//!
//! A short form with the other tests, which shows that the cost does not grow with the table; with
//! CELLGATE_MEASURE=full (`make measure`), a million keys and the documented limits.

use std::fs;
use std::time::Duration;

use cellgate::table::{Delta, RoutingTable};
use rusqlite::Connection;
use serde_json::{Map, Value, json};

use crate::control_plane::{World, home};
use crate::cost;
use crate::harness::{
    Content, Dialect, Edge, Link, cpu_time, document, eventually, placements, wait_control,
};

/// The documented limits of a delta: bytes on the wire in either direction, and CPU time at the edge.
const BYTES: usize = 1024;
const TIME: Duration = Duration::from_millis(1);

/// What a delta writes: its pages of the database and those of the journal, and messages.
const WRITTEN: u64 = 32 << 10;

/// What the process has written to files and sockets.
fn bytes_written(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).expect("its counters");
    let bytes = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    bytes
        .and_then(|bytes| bytes.parse().ok())
        .expect("a number")
}

/// How much each run does.
#[derive(Clone, Copy)]
struct Size {
    keys: u64,
    /// Deltas sent back to back.
    deltas: u64,
    /// Deltas each sent once the one before is on disk.
    apart: u64,
}

fn size() -> Size {
    match cost::full() {
        true => Size {
            keys: 1_000_000,
            deltas: 1000,
            apart: 100,
        },
        false => Size {
            keys: 100_000,
            deltas: 100,
            apart: 10,
        },
    }
}

/// A control plane that sends one change of a key after another.
struct Stream {
    link: Link,
    table: RoutingTable,
    keys: u64,
    generation: u64,
    /// Size of the largest message in bytes.
    largest: usize,
}

impl Stream {
    /// Starts an edge and sends it a snapshot. Returns the CPU time that the edge took, without writing to
    /// disk.
    async fn start(world: &World, keys: u64) -> (Edge, Stream, Duration) {
        let homes = (0..keys).map(|number| (format!("tenant-{number:07}"), Value::from("one")));
        let cells = placements(&[&world.cells.one, &world.cells.two]);
        let routing = Value::Object(homes.collect::<Map<_, _>>());
        // Built before the edge starts, so that the edge does not wait for it.
        let content = Content::new(document("1", routing, cells, "one"));
        let edge = world.builder.spawn().ready().await;
        let mut link = world.control.accept().await;
        link.expect("hello").await;
        link.welcome(1, None, 300).await;
        let begun = cpu_time(edge.pid());
        link.snapshot(1, 1, &content).await;
        link.expect_ack(1, &content).await;
        let snapshot = cpu_time(edge.pid()) - begun;
        println!(
            "{keys} keys: a snapshot of {} bytes in {} frames takes {snapshot:?} at the edge",
            link.sent_bytes, link.sent
        );
        let stream = Stream {
            link,
            table: content.table,
            keys,
            generation: 1,
            largest: 0,
        };
        (edge, stream, snapshot)
    }

    /// Sends the next change and waits until it is served.
    async fn change(&mut self) {
        self.generation += 1;
        let generation = self.generation;
        let key = format!("tenant-{:07}", generation * 7919 % self.keys);
        let home = if generation.is_multiple_of(2) {
            "two"
        } else {
            "one"
        };
        let delta = Delta {
            set: vec![(key.clone(), home.to_owned())],
            ..Delta::default()
        };
        self.table = self.table.apply(&delta).expect("a valid delta");
        let digest = self.table.digest().to_string();
        let message = json!({"type": "delta", "from": generation - 1, "generation": generation,
            "digest": digest, "set": {key: home}});
        self.largest = self.largest.max(message.to_string().len());
        self.link.send(message).await;
        let ack = self.link.expect("ack").await;
        assert_eq!(
            (&ack["generation"], &ack["digest"]),
            (&json!(generation), &json!(digest))
        );
    }

    /// CPU time of the edge for each of `deltas` changes, status messages included.
    async fn burst(&mut self, edge: &Edge, deltas: u64) -> Duration {
        let begun = cpu_time(edge.pid());
        for _ in 0..deltas {
            self.change().await;
        }
        (cpu_time(edge.pid()) - begun) / u32::try_from(deltas).expect("few")
    }
}

fn check(what: &str, each: Duration, snapshot: Duration) {
    println!("{what}, a delta of one key takes {each:?}");
    assert!(each * 10 < snapshot, "{what}: {each:?} of {snapshot:?}");
    if cost::full() {
        assert!(each <= TIME, "{what}: {each:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_one_key() {
    let size = size();
    let world = World::new(Dialect::V1).await;
    let (edge, mut stream, snapshot) = Stream::start(&world, size.keys).await;
    let received = stream.link.received_bytes;
    let each = stream.burst(&edge, size.deltas).await;
    check("without a state_dir", each, snapshot);
    let answers = (stream.link.received_bytes - received) as u64 / size.deltas;
    println!(
        "it has at most {} bytes, and is answered with {answers}",
        stream.largest
    );
    assert!(stream.largest <= BYTES, "{} bytes", stream.largest);
    assert!(answers <= BYTES as u64, "{answers} bytes");
    assert_eq!(home(&edge).await, "one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_one_key_that_is_kept() {
    let size = size();
    let mut world = World::new(Dialect::V1).await;
    let dir = world.builder.directory().join("state");
    world.builder = world.builder.set(
        "cellgate.control_plane.state_dir",
        dir.display().to_string(),
    );
    let (edge, mut stream, snapshot) = Stream::start(&world, size.keys).await;
    // Nothing that was sent before is written after this.
    eventually("the table is on disk", async || {
        let config = edge.config().await;
        (config["state"]["stored_generation"] == config["generation"]).then_some(())
    })
    .await;

    let each = stream.burst(&edge, size.deltas).await;
    check("with a state_dir, right after one another", each, snapshot);
    eventually("the last of them is on disk", async || {
        let config = edge.config().await;
        (config["state"]["stored_generation"] == config["generation"]).then_some(())
    })
    .await;

    let reader = Connection::open(dir.join("state.db")).expect("a database");
    let deltas = || -> (u64, i64) {
        let sizes = "SELECT count(*), sum(length(record)) FROM generations";
        let sizes = reader.query_row(sizes, [], |row| Ok((row.get(0)?, row.get(1)?)));
        let (count, bytes): (i64, i64) = sizes.expect("the deltas");
        (count.unsigned_abs(), bytes)
    };
    let begun = (cpu_time(edge.pid()), deltas().1, bytes_written(edge.pid()));
    for _ in 0..size.apart {
        let before = deltas().0;
        stream.change().await;
        // Read from the disk: asking the edge would cost it CPU time.
        eventually("it is on disk", async || {
            (deltas().0 > before).then_some(())
        })
        .await;
    }
    let each = (cpu_time(edge.pid()) - begun.0) / u32::try_from(size.apart).expect("few");
    check("with a state_dir, each written on its own", each, snapshot);
    let bytes = (deltas().1 - begun.1).unsigned_abs() / size.apart;
    let written = (bytes_written(edge.pid()) - begun.2) / size.apart;
    println!("and {bytes} bytes in the database, for which {written} bytes are written");
    assert!(bytes <= BYTES as u64, "{bytes} bytes");
    assert!(written <= WRITTEN, "{written} bytes");
    drop(reader);

    // The next process finds all of it.
    let digest = stream.table.digest().to_string();
    let config = edge.config().await;
    assert_eq!(config["control_plane"]["digest"], digest);
    edge.kill().await;
    world.control.refuse(Some(503));
    let edge = world.builder.spawn().ready().await;
    let shown = wait_control(&edge, "it has its table", |shown| {
        shown["digest"] == json!(digest)
    })
    .await;
    assert_eq!(shown["generation"], json!(stream.generation));
}
