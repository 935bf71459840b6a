//! Many edges in one process: real connections that speak the real protocol. Each keeps only the generation
//! and digest of its table.
//!
//! The edges share one copy of every table that they received: the first edge to receive a delta applies it,
//! and the others reuse the result. An edge acks the digest that was computed, not the one that was sent.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use cellgate::protocol::{
    Ack, Hello, Mark, Nack, Received, Resync, SUBPROTOCOL, SnapshotLimits, SnapshotReceiver,
    ToControl, ToEdge, Verdict, delta, snapshot,
};
use cellgate::table::{Problem, RoutingTable};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::within;

/// How many handshakes run at a time.
const AT_A_TIME: usize = 64;

/// How many tables are kept.
const TABLES: usize = 16;

/// How long all edges together may take for one step: there may be thousands of them on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// A table with its generation and digest.
pub type Held = (Mark, Arc<RoutingTable>);

/// Edges that are connected. Dropping it breaks all connections.
pub struct Fleet {
    shared: Arc<Shared>,
    edges: JoinSet<()>,
    count: usize,
}

/// The result of a delta, the same for all edges.
type Applied = Result<Mark, Vec<Problem>>;

#[derive(Default)]
struct Shared {
    tables: Mutex<Vec<Held>>,
    /// Results of deltas, by the generation they begin at and their text.
    applied: Mutex<HashMap<(u64, String), Applied>>,
    /// When acks were sent, by generation.
    acks: Mutex<BTreeMap<u64, Vec<Instant>>>,
    acked: watch::Sender<u64>,
    /// Everything that went wrong, in words.
    wrong: Mutex<Vec<String>>,
    /// Bytes received over all sockets.
    bytes: AtomicU64,
    closed: watch::Sender<usize>,
}

impl Fleet {
    /// Connects `count` edges that have `held`.
    pub async fn start(address: SocketAddr, count: usize, held: Option<Held>) -> Fleet {
        let shared = Arc::new(Shared::default());
        shared.tables.lock().unwrap().extend(held.clone());
        let mark = held.map(|(mark, _)| mark);
        let turns = Arc::new(Semaphore::new(AT_A_TIME));
        let (welcomed, mut welcomes) = watch::channel(0);
        let mut edges = JoinSet::new();
        for index in 0..count {
            let (shared, turns, welcomed) =
                (Arc::clone(&shared), Arc::clone(&turns), welcomed.clone());
            edges.spawn(async move {
                let turn = turns.acquire_owned().await;
                let edge = Edge::connect(shared.clone(), address, index, mark).await;
                drop(turn);
                welcomed.send_modify(|welcomed| *welcomed += 1);
                let end = match edge {
                    Ok(edge) => edge.follow().await,
                    Err(error) => error,
                };
                shared.closed.send_modify(|closed| *closed += 1);
                if !end.contains("1001") {
                    shared
                        .wrong
                        .lock()
                        .unwrap()
                        .push(format!("edge {index}: {end}"));
                }
            });
        }
        let all = welcomes.wait_for(|welcomed| *welcomed == count);
        let waited = tokio::time::timeout(PATIENCE, all).await;
        assert!(waited.is_ok(), "{count} edges did not connect");
        Fleet {
            shared,
            edges,
            count,
        }
    }

    /// Waits until all edges acked `generation`; returns when each did, sorted.
    pub async fn acked(&self, generation: u64) -> Vec<Instant> {
        let mut acked = self.shared.acked.subscribe();
        let number = || {
            let acks = self.shared.acks.lock().unwrap();
            acks.get(&generation).map_or(0, Vec::len)
        };
        let all = acked.wait_for(|_| number() >= self.count);
        let waited = tokio::time::timeout(PATIENCE, all).await.is_ok();
        assert!(waited, "{} of {} acked {generation}", number(), self.count);
        self.assert_well();
        let mut acks = self
            .shared
            .acks
            .lock()
            .unwrap()
            .remove(&generation)
            .unwrap();
        acks.sort();
        acks
    }

    /// Waits until the control plane has closed all connections.
    pub async fn closed(&self) {
        let mut closed = self.shared.closed.subscribe();
        let all = closed.wait_for(|closed| *closed == self.count);
        within("all edges are sent away", all).await.expect("edges");
        self.assert_well();
    }

    /// Asserts that no edge saw an error or lost its connection.
    pub fn assert_well(&self) {
        let wrong = self.shared.wrong.lock().unwrap();
        assert!(
            wrong.is_empty(),
            "{} things went wrong, as {}",
            wrong.len(),
            wrong[0]
        );
    }

    /// Bytes received so far by all edges, with HTTP and WebSocket framing.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// A table that all edges have acked.
    pub fn table(&self, generation: u64) -> Option<Held> {
        let tables = self.shared.tables.lock().unwrap();
        let found = tables
            .iter()
            .find(|(mark, _)| mark.generation == generation);
        found.cloned()
    }

    pub fn len(&self) -> usize {
        self.edges.len()
    }
}

impl Shared {
    /// Applies the delta in `text` to the table `from`.
    fn apply(
        &self,
        from: Mark,
        text: &str,
        message: cellgate::protocol::DeltaMessage,
    ) -> Result<Mark, Vec<Problem>> {
        let mut applied = self.applied.lock().unwrap();
        let key = (from.generation, text.to_owned());
        if let Some(known) = applied.get(&key) {
            return known.clone();
        }
        if applied.len() > 4 * TABLES {
            applied.clear();
        }
        let generation = message.generation;
        let table = {
            let tables = self.tables.lock().unwrap();
            let found = tables.iter().find(|(mark, _)| *mark == from);
            Arc::clone(&found.expect("a table that an edge has").1)
        };
        let made = table.apply(&message.into_delta()).map(|next| {
            let digest = next.digest();
            let mark = Mark { generation, digest };
            self.keep(mark, Arc::new(next));
            mark
        });
        applied.insert(key, made.clone());
        made
    }

    fn keep(&self, mark: Mark, table: Arc<RoutingTable>) {
        let mut tables = self.tables.lock().unwrap();
        if tables.iter().all(|(known, _)| *known != mark) {
            tables.push((mark, table));
            if tables.len() > TABLES {
                tables.remove(0);
            }
        }
    }
}

struct Edge {
    shared: Arc<Shared>,
    socket: WebSocketStream<Counted>,
    held: Option<Mark>,
    receiver: Option<SnapshotReceiver>,
}

impl Edge {
    /// Connects, sends hello and waits for the welcome.
    async fn connect(
        shared: Arc<Shared>,
        address: SocketAddr,
        index: usize,
        held: Option<Mark>,
    ) -> Result<Edge, String> {
        let words = |error: &dyn std::fmt::Display| format!("connect: {error}");
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| words(&error))?;
        stream.set_nodelay(true).map_err(|error| words(&error))?;
        let stream = Counted {
            stream,
            shared: Arc::clone(&shared),
        };
        let mut request = format!("ws://{address}/connect")
            .into_client_request()
            .map_err(|error| words(&error))?;
        let protocol = SUBPROTOCOL.parse().expect("a header value");
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        let config = WebSocketConfig::default().read_buffer_size(4096);
        let (socket, _) = client_async_with_config(request, stream, Some(config))
            .await
            .map_err(|error| words(&error))?;
        let mut edge = Edge {
            shared,
            socket,
            held,
            receiver: None,
        };
        edge.say(ToControl::Hello(Hello {
            edge_id: format!("edge-{index}"),
            instance: format!("{:016x}", rand::random::<u64>()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            labels: [("zone".to_owned(), format!("zone-{}", index % 3))].into(),
            generation: held.map_or(0, |held| held.generation),
            digest: held.map(|held| held.digest),
            max_frame: 1 << 20,
        }))
        .await?;
        let first = edge.socket.next().await;
        match first {
            Some(Ok(Message::Text(text))) => match ToEdge::decode(text.as_bytes(), 1 << 20) {
                Ok(Received::Message(ToEdge::Welcome(_))) => Ok(edge),
                other => Err(format!("{other:?} where a welcome was due")),
            },
            other => Err(format!("{other:?} where a welcome was due")),
        }
    }

    async fn say(&mut self, message: ToControl) -> Result<(), String> {
        let text = message.encode().map_err(|error| error.to_string())?;
        let sent = self.socket.send(Message::Text(text.into())).await;
        sent.map_err(|error| format!("send: {error}"))
    }

    /// Follows until the connection ends; returns why it ended.
    async fn follow(mut self) -> String {
        loop {
            let message = match self.socket.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return format!("receive: {error}"),
                None => return "end of stream".to_owned(),
            };
            let answer = match message {
                Message::Text(text) => self.text(&text),
                Message::Binary(chunk) => self.chunk(&chunk),
                Message::Close(frame) => {
                    // Reading on is what sends the reply.
                    while let Some(Ok(_)) = self.socket.next().await {}
                    return frame.map_or("closed".to_owned(), |frame| frame.to_string());
                }
                _ => Ok(None),
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(wrong) => return wrong,
            };
            if let Some(answer) = answer {
                let acked = match &answer {
                    ToControl::Ack(ack) => Some(ack.generation),
                    _ => None,
                };
                if let Err(error) = self.say(answer).await {
                    return error;
                }
                if let Some(generation) = acked {
                    let now = Instant::now();
                    let mut acks = self.shared.acks.lock().unwrap();
                    acks.entry(generation).or_default().push(now);
                    drop(acks);
                    self.shared.acked.send_modify(|acked| *acked += 1);
                }
            }
        }
    }

    fn text(&mut self, text: &str) -> Result<Option<ToControl>, String> {
        let message = match ToEdge::decode(text.as_bytes(), 1 << 20) {
            Ok(Received::Message(message)) => message,
            other => return Err(format!("{other:?}")),
        };
        match message {
            ToEdge::Welcome(_) => Err("a second welcome".to_owned()),
            ToEdge::Delta(_) if self.receiver.is_some() => {
                Err("a delta within a snapshot".to_owned())
            }
            ToEdge::Delta(message) => {
                let to = message.mark();
                match (delta(self.held, message.from, to), self.held) {
                    (Verdict::Apply, Some(held)) => match self.shared.apply(held, text, message) {
                        Ok(mark) if mark == to => Ok(Some(self.serve(mark))),
                        Ok(mark) => Err(format!("{mark:?} came of a delta to {to:?}")),
                        Err(problems) => Ok(Some(ToControl::Nack(Nack {
                            generation: to.generation,
                            problems,
                        }))),
                    },
                    (verdict, _) => self.settle(verdict, to),
                }
            }
            ToEdge::SnapshotBegin(begin) => {
                self.receiver = None;
                let to = begin.mark();
                match snapshot(self.held, to) {
                    Verdict::Apply => {
                        let receiver = SnapshotReceiver::new(begin, SnapshotLimits::default());
                        self.receiver = Some(receiver.map_err(|error| error.to_string())?);
                        Ok(None)
                    }
                    verdict => self.settle(verdict, to),
                }
            }
            ToEdge::SnapshotEnd(end) => {
                let Some(receiver) = self.receiver.take() else {
                    return Ok(None);
                };
                let generation = receiver.begin().generation;
                let table = receiver.end(end).map_err(|error| error.to_string())?;
                let digest = table.digest();
                let mark = Mark { generation, digest };
                self.shared.keep(mark, Arc::new(table));
                Ok(Some(self.serve(mark)))
            }
            ToEdge::Checkpoint(message) => {
                let due = cellgate::protocol::checkpoint(self.held, message.mark(), None);
                match due {
                    Some(reason) => Err(format!("a checkpoint found that: {reason}")),
                    None => Ok(None),
                }
            }
        }
    }

    fn chunk(&mut self, chunk: &[u8]) -> Result<Option<ToControl>, String> {
        if let Some(receiver) = &mut self.receiver {
            receiver.chunk(chunk).map_err(|error| error.to_string())?;
        }
        Ok(None)
    }

    fn serve(&mut self, mark: Mark) -> ToControl {
        self.held = Some(mark);
        let Mark { generation, digest } = mark;
        ToControl::Ack(Ack { generation, digest })
    }

    /// The nack of a delta that does not apply.
    fn settle(&mut self, verdict: Verdict, to: Mark) -> Result<Option<ToControl>, String> {
        match verdict {
            Verdict::Known => Ok(Some(self.serve(to))),
            Verdict::Refuse(why) => Err(why),
            Verdict::Resync(reason) => Ok(Some(ToControl::Resync(Resync { reason }))),
            Verdict::Apply => Ok(None),
        }
    }
}

/// A socket that counts received bytes.
struct Counted {
    stream: TcpStream,
    shared: Arc<Shared>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let bytes = buffer.filled().len() - before;
        self.shared.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
