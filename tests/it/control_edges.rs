//! A control plane and many edges: how soon a change reaches all of them, and what each edge costs.
//!
//! A short form with the other tests; with CELLGATE_MEASURE=full (`make measure`), thousands of edges, a
//! million keys, and figures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cellgate::protocol::Mark;
use cellgate::table::compile;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cost::full;
use crate::harness::{
    ControlBuilder, ControlProcess, Fleet, Held, LOOK, document, eventually, memory, own_address,
    within,
};

/// A document of `count` keys on `one` and `two`. Keys are as long as UUIDs and compress as badly.
fn keys(version: &str, count: usize) -> Value {
    let mut random = StdRng::seed_from_u64(1);
    let keys = (0..count).map(|index| {
        let key = format!("{:032x}", random.random::<u128>());
        (key, Value::from(["one", "two"][index % 2]))
    });
    let endpoints = json!({"one": "http://127.0.0.1:1", "two": "http://127.0.0.1:2"});
    document(
        version,
        Value::Object(keys.collect::<Map<_, _>>()),
        endpoints,
        "one",
    )
}

/// A control plane that serves this document, and the table that an edge has which received it.
async fn serving(builder: &ControlBuilder, document: &Value) -> (ControlProcess, Held) {
    let control = builder.start().await;
    let body = document.to_string();
    let mut client = control.client().await;
    // A million keys take a while, above all in a debug build.
    client.patience(Duration::from_secs(120));
    let head = format!(
        "PUT /api/v1/document HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    client
        .send([head.as_bytes(), body.as_bytes()].concat())
        .await;
    let response = client.response().await;
    assert!(matches!(response.status, 200 | 201), "{}", response.text());
    let record = response.json();
    let table = Arc::new(compile(body.as_bytes()).expect("a valid document"));
    let generation = record["generation"].as_u64().expect("a generation");
    let digest = table.digest();
    assert_eq!(record["digest"], digest.to_string());
    (control, (Mark { generation, digest }, table))
}

/// Assigns a key to a placement. Returns the generation, when the request was sent, and when it was answered.
async fn put(control: &ControlProcess, key: &str, placement: &str) -> (u64, Instant, Instant) {
    let path = format!("/api/v1/keys/{key}");
    let body = json!({"placement": placement}).to_string();
    let asked = Instant::now();
    let response = control.request("PUT", &path, &[], body).await;
    let done = Instant::now();
    assert!(matches!(response.status, 200 | 201), "{}", response.text());
    let generation = response.json()["generation"]
        .as_u64()
        .expect("a generation");
    (generation, asked, done)
}

/// Waits until a metric has this value.
async fn counts(control: &ControlProcess, metric: &str, wanted: f64) {
    eventually(metric, async || {
        (control.metric(&[metric]).await == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_reaches_a_hundred_edges_and_is_encoded_once() {
    let (control, held) = serving(&ControlProcess::builder(), &keys("1", 100)).await;
    let fleet = Fleet::start(control.address, 100, Some(held)).await;
    for (round, placement) in ["one", "two", "one"].into_iter().enumerate() {
        let (generation, ..) = put(&control, "acme", placement).await;
        fleet.acked(generation).await;
        let encoded = control
            .metric(&["cellgate_control_deltas_encoded_total"])
            .await;
        assert_eq!(encoded, (round + 1) as f64);
        // Acks may still be on their way.
        counts(&control, "cellgate_control_edges_in_sync", 100.0).await;
    }
    counts(&control, "cellgate_control_push_seconds_count", 300.0).await;
    let edges = control.get("/api/v1/edges").await.json();
    let edges = edges["edges"]
        .as_array()
        .or(edges.as_array())
        .expect("a list")
        .clone();
    assert_eq!(edges.len(), 100);
    assert!(
        edges.iter().all(|edge| edge["in_sync"] == true),
        "{edges:?}"
    );
    assert_eq!(edges[0]["sent"]["deltas"], 3);
}

/// The change was made while the edges were disconnected, and the control plane has been restarted since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edges_that_missed_a_change_get_it_from_a_control_plane_that_restarted() {
    let builder = ControlProcess::builder();
    let (control, held) = serving(&builder, &keys("1", 100)).await;
    put(&control, "acme", "two").await;
    let (generation, ..) = put(&control, "visa", "two").await;
    control.kill().await;
    let control = builder.start().await;
    let fleet = Fleet::start(control.address, 5, Some(held)).await;
    fleet.acked(generation).await;
    let edges = control.get("/api/v1/edges").await.json();
    let edges = edges["edges"].as_array().expect("edges");
    assert_eq!(edges.len(), 5);
    for edge in edges {
        assert_eq!(edge["sent"]["snapshots"], 0, "{edge}");
        assert!(edge["sent"]["deltas"].as_u64() >= Some(1), "{edge}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_after_a_restart_takes_turns() {
    let address = own_address(8081);
    let builder = ControlProcess::builder()
        .set("listen", address.to_string())
        .set("max_snapshots", 3);
    let (mut control, held) = serving(&builder, &keys("1", 100_000)).await;
    let fleet = Fleet::start(address, 100, Some(held.clone())).await;
    control.signal(libc::SIGTERM);
    fleet.closed().await;
    control.exited().await;

    // The edges come back without a table, all at once.
    let control = builder.start().await;
    let start = tokio::spawn(async move { Fleet::start(address, 100, None).await });
    let mut most = 0.0_f64;
    let fleet = loop {
        let sending = control
            .metric(&["cellgate_control_snapshots", "sending"])
            .await;
        most = most.max(sending);
        if start.is_finished() {
            break start.await.expect("a fleet");
        }
        tokio::time::sleep(LOOK).await;
    };
    let acked = fleet.acked(held.0.generation);
    tokio::pin!(acked);
    loop {
        tokio::select! {
            acks = &mut acked => break assert_eq!(acks.len(), 100),
            sending = control.metric(&["cellgate_control_snapshots", "sending"]) => {
                most = most.max(sending);
            }
        }
    }
    assert!((1.0..=3.0).contains(&most), "{most} at a time");
    // A delta applies, so the snapshots were right.
    let (generation, ..) = put(&control, "acme", "two").await;
    fleet.acked(generation).await;
}

/// Edges that read nothing and connections that send garbage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_the_deaf_nor_the_mad_hold_others_up() {
    let (control, held) = serving(&ControlProcess::builder(), &keys("1", 1000)).await;
    let fleet = Fleet::start(control.address, 100, Some(held)).await;
    let mut others = Vec::new();
    for index in 0..20 {
        others.push(deaf(control.address, index).await);
    }
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..20 {
        let mut mad = upgraded(control.address).await;
        let mut noise = [0; 2048];
        random.fill(&mut noise[..]);
        // The control plane may have closed it already.
        let _ = mad.write_all(&noise).await;
        others.push(mad);
    }
    within("20 changes are made and acked", async {
        for round in 0..20 {
            let (generation, ..) = put(&control, "acme", ["two", "one"][round % 2]).await;
            fleet.acked(generation).await;
        }
    })
    .await;
    fleet.assert_well();
}

const HANDSHAKE: &str = "GET /connect HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: cellgate.v1\r\n\r\n";

async fn upgraded(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    stream.write_all(HANDSHAKE.as_bytes()).await.expect("send");
    let mut start = [0; 12];
    within("an answer", stream.read_exact(&mut start))
        .await
        .expect("an answer");
    assert_eq!(&start[9..], b"101");
    stream
}

/// An edge that says hello and reads nothing.
async fn deaf(address: SocketAddr, index: usize) -> TcpStream {
    let mut stream = upgraded(address).await;
    let hello = json!({"type": "hello", "edge_id": format!("deaf-{index}"), "instance": "x",
        "version": "1", "generation": 0, "max_frame": 1 << 20});
    let hello = hello.to_string();
    let length = u16::try_from(hello.len()).expect("a short hello");
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend(length.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(hello.as_bytes());
    stream.write_all(&frame).await.expect("send");
    stream
}

/// The quantile `share` of these times, which are sorted.
fn quantile(times: &[Duration], share: f64) -> Duration {
    times[((times.len() - 1) as f64 * share).round() as usize]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_pushed_to_thousands() {
    let (fleets, count, rounds): (&[usize], usize, usize) = match full() {
        true => (&[1000, 5000], 1_000_000, 100),
        false => (&[50], 2000, 5),
    };
    let builder = ControlProcess::builder();
    let (control, held) = serving(&builder, &keys("1", count)).await;
    let whole = Fleet::start(control.address, 1, None).await;
    whole.acked(held.0.generation).await;
    let snapshot = whole.bytes();
    drop(whole);
    eprintln!("a table of {count} keys is a snapshot of {snapshot} bytes");

    let mut newest = held;
    for edges in fleets {
        crate::harness::raise_open_files(2 * edges + 1000);
        let empty = memory(control.pid());
        let fleet = Fleet::start(control.address, *edges, Some(newest.clone())).await;
        let connected = memory(control.pid());
        let mut each = Vec::new();
        let mut last = Vec::new();
        let mut committed = Vec::new();
        let bytes = fleet.bytes();
        for round in 0..rounds {
            let (generation, asked, done) = put(&control, "acme", ["two", "one"][round % 2]).await;
            let acks = fleet.acked(generation).await;
            each.extend(acks.iter().map(|ack| ack.duration_since(asked)));
            last.extend(acks.last().map(|ack| ack.duration_since(asked)));
            committed.push(done.duration_since(asked));
            newest = fleet.table(generation).expect("the newest table");
        }
        let bytes = (fleet.bytes() - bytes) / (edges * rounds) as u64;
        for times in [&mut each, &mut last, &mut committed] {
            times.sort();
        }
        let line = |what: &str, times: &[Duration]| {
            let [half, most, all] = [0.5, 0.99, 1.0].map(|share| quantile(times, share));
            eprintln!("  {what:34} p50 {half:9.1?}  p99 {most:9.1?}  max {all:9.1?}");
        };
        eprintln!(
            "{} edges, {rounds} changes of one key, from when they were asked for:",
            fleet.len()
        );
        line("until the api said that it is done", &committed);
        line("until an edge acked", &each);
        line("until all edges acked", &last);
        let pushed = memory(control.pid());
        let per_edge = |bytes: u64| bytes.saturating_sub(empty) / *edges as u64;
        eprintln!("  {bytes} bytes on the wire an edge and change");
        eprintln!(
            "  {} bytes of memory an edge when connected, {} after the changes ({} MiB in all)",
            per_edge(connected),
            per_edge(pushed),
            pushed >> 20
        );
        assert!(bytes < 1024, "{bytes} bytes an edge");
        assert!(
            bytes < snapshot / 10,
            "{bytes} bytes, and {snapshot} for all"
        );
        drop(fleet);
        crate::harness::eventually("all edges have left", async || {
            let connected = control.metric(&["cellgate_control_edges{"]).await;
            (connected == 0.0).then_some(())
        })
        .await;
    }
}
