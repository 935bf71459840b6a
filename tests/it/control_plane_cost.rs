//! What a one-key change costs an edge with a large table: bytes on the wire and processor time, beside the
//! same change as a snapshot.
//!
//! A short form with the other tests, which shows that the cost does not grow with the table; with
//! CELLGATE_MEASURE=full (`make measure`), a million keys and the figures that are promised.

use std::time::Duration;

use cellgate::routing::Delta;
use serde_json::{Map, Value, json};

use crate::control_plane::{World, home};
use crate::cost;
use crate::harness::{Content, Dialect, cpu_time, document, placements};

/// What is promised of a delta, on the wire and at the edge.
const BYTES: usize = 1024;
const TIME: Duration = Duration::from_millis(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_one_key() {
    let (keys, deltas) = match cost::full() {
        true => (1_000_000, 1000),
        false => (20_000, 100),
    };
    let world = World::new(Dialect::V1).await;
    let homes = (0..keys).map(|number| (format!("tenant-{number:07}"), Value::from("one")));
    let cells = placements(&[&world.cells.one, &world.cells.two]);
    let large = document(
        "1",
        Value::Object(homes.collect::<Map<_, _>>()),
        cells,
        "one",
    );
    let Content { mut table, .. } = Content::new(large);
    let edge = world.builder.spawn().ready().await;
    let pid = edge.pid();

    let mut link = world.control.accept().await;
    link.expect("hello").await;
    link.welcome(1, None, 300).await;
    let begun = cpu_time(pid);
    let content = Content {
        document: Value::Null,
        table,
    };
    link.snapshot(1, 1, &content).await;
    link.expect_ack(1, &content).await;
    let snapshot = cpu_time(pid) - begun;
    let (sent, bytes) = (link.sent, link.sent_bytes);
    table = content.table;

    let begun = cpu_time(pid);
    let mut largest = 0;
    for generation in 2..deltas + 2 {
        let key = format!("tenant-{:07}", generation * 7919 % keys);
        let home = if generation % 2 == 0 { "two" } else { "one" };
        let delta = Delta {
            set: vec![(key.clone(), home.to_owned())],
            ..Delta::default()
        };
        table = table.apply(&delta).expect("a valid delta");
        let digest = table.digest().to_string();
        let message = json!({"type": "delta", "from": generation - 1, "generation": generation,
            "digest": digest, "set": {key: home}});
        largest = largest.max(message.to_string().len());
        link.send(message).await;
        let ack = link.expect("ack").await;
        assert_eq!(
            (&ack["generation"], &ack["digest"]),
            (&json!(generation), &json!(digest))
        );
    }
    let each = (cpu_time(pid) - begun) / u32::try_from(deltas).expect("few");
    println!(
        "{keys} keys: a snapshot of {bytes} bytes in {sent} frames takes {snapshot:?} at the edge; \
         a delta of one key has at most {largest} bytes and takes {each:?}, status messages included"
    );
    assert!(largest <= BYTES, "{largest} bytes");
    assert!(each * 10 < snapshot, "{each:?} of {snapshot:?}");
    if cost::full() {
        assert!(each <= TIME, "{each:?}");
    }
    assert_eq!(home(&edge).await, "one");
}
