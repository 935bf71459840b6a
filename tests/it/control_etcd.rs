//! Two control planes over one etcd, with edges on both: each change that is made while processes are killed
//! reaches every edge, once.
//!
//! A short form with the other tests; with CELLGATE_SOAK=full (`make soak`), 1,000 changes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cellgate::control::store::Store;
use cellgate::protocol::{
    Ack, Hello, Mark, Received, SnapshotLimits, SnapshotReceiver, ToControl, ToEdge,
};
use cellgate::table::{Delta, RoutingTable};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::etcd_store::{document, placement, store};
use crate::harness::{ControlBuilder, ControlProcess, EtcdCluster, own_address, within};
use crate::soak;

/// How many writers set keys at a time.
const WRITERS: usize = 4;
/// How many keys each writer sets in turn, each time to the other placement. A change that was made twice would
/// show as one more generation, or as the wrong placement.
const KEYS: usize = 10;
const EDGES: usize = 6;

/// How many changes are made in all.
fn changes() -> usize {
    if soak::full() { 1_000 } else { 200 }
}

/// How long a fifth of the changes may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The largest message that an edge takes.
const MAX_FRAME: usize = 1 << 20;

fn control(cluster: &EtcdCluster, listen: SocketAddr) -> ControlBuilder {
    let endpoints = cluster.settings().endpoints;
    let endpoints: Vec<&str> = endpoints.iter().map(|url| url.as_str()).collect();
    ControlProcess::builder()
        .set("listen", listen.to_string())
        .set("store", json!({"etcd": {"endpoints": endpoints}}))
        .set("ping_seconds", 1)
}

/// Sends a request and returns the status of the answer, if there is one.
async fn put(to: SocketAddr, path: &str, body: &[u8]) -> Option<u16> {
    let exchange = async {
        let mut stream = TcpStream::connect(to).await.ok()?;
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(&[head.as_bytes(), body].concat())
            .await
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    };
    // Longer than the control plane takes to make a change or to give it up, with others before it: a change
    // that is given up here and made later would be made twice.
    timeout(Duration::from_secs(90), exchange).await.ok()?
}

/// The key that a writer's change sets, and to what.
fn nth(writer: usize, change: usize) -> (String, &'static str) {
    let key = format!("key-{writer}-{}", change % KEYS);
    (key, ["two", "one"][change / KEYS % 2])
}

/// Makes one writer's share of the changes, repeating each until it is acknowledged. As a load balancer would,
/// it alternates between the control planes.
async fn write(writer: usize, addresses: [SocketAddr; 2], done: watch::Sender<usize>) {
    for change in 0..changes() / WRITERS {
        let (key, placement) = nth(writer, change);
        let path = format!("/api/v1/keys/{key}");
        let body = json!({"placement": placement}).to_string();
        for address in addresses.iter().cycle().skip(writer) {
            match put(*address, &path, body.as_bytes()).await {
                Some(200 | 201) => break,
                // A pause between attempts, as a client would make.
                None | Some(500..) => tokio::time::sleep(Duration::from_millis(20)).await,
                status => panic!("{path}: {status:?}"),
            }
        }
        done.send_modify(|done| *done += 1);
    }
}

/// The protocol's part of an edge: it keeps a table and acknowledges what it has.
struct LightEdge {
    held: Option<(Mark, RoutingTable)>,
    tell: watch::Sender<Option<Mark>>,
    /// How often it was sent a generation that it had.
    again: Arc<AtomicUsize>,
}

impl LightEdge {
    /// Connects to one address after the other until it is dropped.
    async fn run(mut self, name: String, addresses: Vec<SocketAddr>) {
        for address in addresses.iter().cycle() {
            let _ = self.connection(&name, *address).await;
            // A pause before the next attempt, as an edge makes.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Follows over one connection until it ends.
    async fn connection(&mut self, name: &str, address: SocketAddr) -> Result<(), String> {
        let mut request = format!("ws://{address}/connect")
            .into_client_request()
            .map_err(say)?;
        let protocol = "cellgate.v1".parse().map_err(say)?;
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", protocol);
        let (mut socket, _) = tokio_tungstenite::connect_async(request)
            .await
            .map_err(say)?;
        let hello = ToControl::Hello(Hello {
            edge_id: name.to_owned(),
            instance: name.to_owned(),
            version: "0".to_owned(),
            labels: Default::default(),
            generation: self.held.as_ref().map_or(0, |(mark, _)| mark.generation),
            digest: self.held.as_ref().map(|(mark, _)| mark.digest),
            max_frame: MAX_FRAME as u64,
        });
        socket.send(text(&hello)).await.map_err(say)?;
        let mut snapshot: Option<SnapshotReceiver> = None;
        loop {
            // Pings come every second.
            let message = timeout(Duration::from_secs(4), socket.next()).await;
            let message = message.map_err(say)?.ok_or("ended")?;
            let bytes = match message.map_err(say)? {
                Message::Binary(frame) => {
                    let receiver = snapshot.as_mut().expect("a snapshot");
                    receiver.chunk(&frame).expect("a chunk");
                    continue;
                }
                Message::Text(text) => text,
                Message::Close(close) => return Err(format!("{close:?}")),
                _ => continue,
            };
            let Received::Message(message) =
                ToEdge::decode(bytes.as_bytes(), MAX_FRAME).expect("a message")
            else {
                continue;
            };
            let (generation, table) = match message {
                ToEdge::SnapshotBegin(begin) => {
                    snapshot = SnapshotReceiver::new(begin, SnapshotLimits::default()).ok();
                    continue;
                }
                ToEdge::SnapshotEnd(end) => {
                    let receiver = snapshot.take().expect("a snapshot");
                    let generation = receiver.begin().generation;
                    (generation, receiver.end(end).expect("a table"))
                }
                ToEdge::Delta(delta) => {
                    let (held, table) = self.held.as_ref().expect("a table");
                    if delta.generation <= held.generation {
                        self.again.fetch_add(1, Ordering::Relaxed);
                    }
                    assert_eq!(delta.from, held.generation);
                    let next = table.apply(&Delta {
                        head: delta.head,
                        set: delta.set,
                        remove: delta.remove,
                    });
                    (delta.generation, next.expect("a delta that applies"))
                }
                _ => continue,
            };
            let mark = Mark {
                generation,
                digest: table.digest(),
            };
            assert!(
                self.held
                    .as_ref()
                    .is_none_or(|(held, _)| held.generation <= generation)
            );
            self.held = Some((mark, table));
            let ack = ToControl::Ack(Ack {
                generation,
                digest: mark.digest,
            });
            socket.send(text(&ack)).await.map_err(say)?;
            self.tell.send_replace(Some(mark));
        }
    }
}

fn say(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn text(message: &ToControl) -> Message {
    Message::text(serde_json::to_string(message).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_leader_and_a_control_plane_are_killed() {
    let mut cluster = EtcdCluster::start().await;
    let addresses = [own_address(8081), own_address(8081)];
    let builders = addresses.map(|address| control(&cluster, address));
    let mut one = builders[0].start().await;
    let other = builders[1].start().await;
    let status = put(one.address, "/api/v1/document", &document(1)).await;
    assert_eq!(status, Some(201));

    let again = Arc::new(AtomicUsize::new(0));
    let edges: Vec<_> = (0..EDGES)
        .map(|index| {
            let (tell, seen) = watch::channel(None);
            let edge = LightEdge {
                held: None,
                tell,
                again: Arc::clone(&again),
            };
            let mut addresses = addresses.to_vec();
            addresses.rotate_left(index % 2);
            tokio::spawn(edge.run(format!("edge-{index}"), addresses));
            seen
        })
        .collect();
    for edge in &edges {
        let mut edge = edge.clone();
        within("a table", edge.wait_for(Option::is_some))
            .await
            .expect("an edge");
    }

    let done = watch::Sender::new(0);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(writer, addresses, done.clone())))
        .collect();
    let until = async |count: usize| {
        let mut done = done.subscribe();
        let enough = timeout(PATIENCE, done.wait_for(|done| *done >= count)).await;
        enough.expect("changes go on").expect("writers");
    };
    let count = changes();
    until(count / 5).await;
    let leader = cluster.leader().await;
    cluster.kill(leader);
    until(count * 2 / 5).await;
    one.kill().await;
    until(count * 3 / 5).await;
    one = builders[0].start().await;
    until(count * 4 / 5).await;
    cluster.restart(leader);
    for writer in writers {
        let end = timeout(PATIENCE, writer).await;
        end.expect("the last changes").expect("a writer");
    }

    let newest = store(&cluster.settings()).newest().await;
    let newest = newest.expect("the newest").expect("the newest");
    // A change that was made twice would be one more generation.
    assert_eq!(newest.record.generation, 1 + count as u64);
    assert_eq!(newest.table.key_count(), 1 + WRITERS * KEYS);
    let each = count / WRITERS;
    for (writer, change) in
        (0..WRITERS).flat_map(|writer| (each - KEYS..each).map(move |c| (writer, c)))
    {
        let (key, expected) = nth(writer, change);
        assert_eq!(placement(&newest.table, &key), Some(expected), "{key}");
    }
    for mut edge in edges {
        let mark = newest.record.mark();
        let seen = edge.wait_for(|seen| *seen == Some(mark));
        within("the newest on every edge", seen)
            .await
            .expect("an edge");
    }
    assert_eq!(again.load(Ordering::Relaxed), 0);
    for control in [&one, &other] {
        control.wait_generation(newest.record.generation).await;
    }
}
