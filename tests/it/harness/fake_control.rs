//! A scripted control plane: a real WebSocket server that sends what the test says.
//!
//! Digests and the chunks of snapshots come from the library; all other messages are written out here, so
//! that a mistake in the library's messages is not made on both sides.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use cellgate::protocol::SnapshotSender;
use cellgate::table::{RoutingTable, compile};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use super::wire::Stream;
use super::{Edge, eventually, within};

/// The protocol that it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    V1,
    M3,
}

/// A control plane on a free port of 127.0.0.1. Dropping it closes the listener; the test owns the links.
pub struct FakeControl {
    pub address: SocketAddr,
    scheme: &'static str,
    links: tokio::sync::Mutex<mpsc::UnboundedReceiver<Link>>,
    accepting: AbortHandle,
    /// The status with which upgrades are refused; `None`: they are accepted.
    refusal: Arc<Mutex<Option<u16>>>,
    /// The `Authorization` of every upgrade that was refused.
    refused: Arc<Mutex<Vec<Option<String>>>>,
}

/// A connection of an edge.
pub struct Link {
    socket: WebSocketStream<Box<dyn Stream>>,
    /// Headers and target of the upgrade request.
    pub authorization: Option<String>,
    pub target: String,
    pub offered: Option<String>,
    /// Statuses that arrived while the test waited for another message.
    pub statuses: VecDeque<Value>,
    /// The subject of the edge's certificate, if it presented one.
    pub certificate: Option<String>,
    /// Frames sent, and the bytes of their payloads.
    pub sent: usize,
    pub sent_bytes: usize,
    /// Text frames received, and the bytes of their payloads.
    pub received: usize,
    pub received_bytes: usize,
}

/// A document and its compiled table.
pub struct Content {
    pub document: Value,
    pub table: RoutingTable,
}

/// An accepted connection after its handshake, and the subject of the client's certificate.
type Accepted = (Box<dyn Stream>, Option<String>);

impl FakeControl {
    pub async fn start(dialect: Dialect) -> FakeControl {
        FakeControl::start_at(dialect, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// The same at a given address, for a control plane that comes back.
    pub async fn start_at(dialect: Dialect, address: SocketAddr) -> FakeControl {
        let plain = async |stream: TcpStream| -> std::io::Result<Accepted> {
            Ok((Box::new(stream) as Box<dyn Stream>, None))
        };
        FakeControl::over("ws", dialect, address, plain).await
    }

    /// The same behind a handshake, for TLS.
    pub async fn over<H, F>(
        scheme: &'static str,
        dialect: Dialect,
        address: SocketAddr,
        handshake: H,
    ) -> FakeControl
    where
        H: Fn(TcpStream) -> F + Send + Sync + 'static,
        F: Future<Output = std::io::Result<Accepted>> + Send + 'static,
    {
        let listener = TcpListener::bind(address)
            .await
            .expect("the address is free");
        let address = listener.local_addr().expect("an address");
        let (sender, links) = mpsc::unbounded_channel();
        let refusal = Arc::new(Mutex::new(None));
        let refused = Arc::new(Mutex::new(Vec::new()));
        let (refusing, noted) = (refusal.clone(), refused.clone());
        let accepting = tokio::spawn(async move {
            let handshake = Arc::new(handshake);
            while let Ok((stream, _)) = listener.accept().await {
                let (handshake, sender) = (handshake.clone(), sender.clone());
                let (refusing, noted) = (refusing.clone(), noted.clone());
                tokio::spawn(async move {
                    // A connection that ends during the handshake is ignored.
                    if let Ok((stream, certificate)) = handshake(stream).await
                        && let Ok(mut link) = upgrade(stream, dialect, &refusing, &noted).await
                    {
                        link.certificate = certificate;
                        let _ = sender.send(link);
                    }
                });
            }
        });
        FakeControl {
            address,
            scheme,
            links: links.into(),
            accepting: accepting.abort_handle(),
            refusal,
            refused,
        }
    }

    pub fn url(&self) -> String {
        format!("{}://{}/connect", self.scheme, self.address)
    }

    /// From now on, upgrades are refused with this status; `None`: they are accepted.
    pub fn refuse(&self, status: Option<u16>) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// The `Authorization` of every upgrade that was refused so far.
    pub fn refused(&self) -> Vec<Option<String>> {
        let refused = self.refused.lock();
        refused.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next connection of an edge.
    pub async fn accept(&self) -> Link {
        let mut links = self.links.lock().await;
        let link = within("an edge connects", links.recv()).await;
        link.expect("the listener runs")
    }

    /// The next connection after its hello, which is answered by a welcome with `content` as `generation`.
    pub async fn greet(&self, generation: u64, content: &Content) -> (Link, Value) {
        let mut link = self.accept().await;
        let hello = link.expect("hello").await;
        link.welcome(generation, Some(content), 15).await;
        (link, hello)
    }
}

impl Drop for FakeControl {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn upgrade(
    stream: Box<dyn Stream>,
    dialect: Dialect,
    refusal: &Mutex<Option<u16>>,
    refused: &Mutex<Vec<Option<String>>>,
) -> Result<Link, tokio_tungstenite::tungstenite::Error> {
    let mut seen = (None, String::new(), None);
    #[allow(clippy::result_large_err)]
    let callback = |request: &Request, mut response: Response| {
        let header = |name: &str| {
            let value = request.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        seen = (
            header("authorization"),
            request.uri().to_string(),
            header("sec-websocket-protocol"),
        );
        if let Some(status) = *refusal.lock().unwrap_or_else(PoisonError::into_inner) {
            let mut refused = refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.push(seen.0.clone());
            let mut answer = ErrorResponse::new(Some("not you".to_owned()));
            *answer.status_mut() = http::StatusCode::from_u16(status).expect("a status");
            return Err(answer);
        }
        if dialect == Dialect::V1 {
            let chosen = http::HeaderValue::from_static("cellgate.v1");
            response
                .headers_mut()
                .insert("sec-websocket-protocol", chosen);
        }
        Ok(response)
    };
    let socket = accept_hdr_async(stream, callback).await?;
    let (authorization, target, offered) = seen;
    Ok(Link {
        socket,
        authorization,
        target,
        offered,
        statuses: VecDeque::new(),
        certificate: None,
        sent: 0,
        sent_bytes: 0,
        received: 0,
        received_bytes: 0,
    })
}

impl Link {
    pub async fn send(&mut self, message: Value) {
        self.send_text(message.to_string()).await;
    }

    /// Any text. Errors are ignored: the edge may have closed the connection.
    pub async fn send_text(&mut self, text: impl Into<String>) {
        self.write(Message::text(text.into())).await;
    }

    pub async fn send_binary(&mut self, bytes: impl Into<Bytes>) {
        self.write(Message::binary(bytes)).await;
    }

    /// One text message in several frames.
    pub async fn send_fragments(&mut self, parts: &[&str]) {
        for (index, part) in parts.iter().enumerate() {
            let kind = match index {
                0 => Data::Text,
                _ => Data::Continue,
            };
            let last = index + 1 == parts.len();
            let part = Bytes::copy_from_slice(part.as_bytes());
            let frame = Frame::message(part, OpCode::Data(kind), last);
            self.write(Message::Frame(frame)).await;
        }
    }

    /// The header of a text frame of `bytes` bytes, without its payload.
    pub async fn announce(&mut self, bytes: u64) {
        let mut header = vec![0x81, 127];
        header.extend(bytes.to_be_bytes());
        let stream = self.socket.get_mut();
        stream.write_all(&header).await.expect("write a header");
        stream.flush().await.expect("write a header");
    }

    async fn write(&mut self, message: Message) {
        self.sent += 1;
        self.sent_bytes += message.len();
        let _ = self.socket.send(message).await;
    }

    pub async fn welcome(&mut self, generation: u64, content: Option<&Content>, ping: u64) {
        let digest = content.map(Content::digest);
        self.send(
            json!({"type": "welcome", "control_id": "fake", "generation": generation,
            "digest": digest, "ping_seconds": ping}),
        )
        .await;
    }

    pub async fn checkpoint(&mut self, generation: u64, content: &Content) {
        self.send(
            json!({"type": "checkpoint", "generation": generation, "digest": content.digest()}),
        )
        .await;
    }

    /// A delta from generation `from` to `generation`, which is `content`: one key has moved.
    pub async fn moved(&mut self, from: u64, generation: u64, content: &Content, key: &str) {
        let home = content.document["routingTable"][key].clone();
        self.send(
            json!({"type": "delta", "from": from, "generation": generation,
            "digest": content.digest(), "set": {key: home}}),
        )
        .await;
    }

    /// A snapshot of `content`.
    pub async fn snapshot(&mut self, id: u64, generation: u64, content: &Content) {
        let count = self
            .part_of_snapshot(id, generation, content, usize::MAX)
            .await;
        self.send(json!({"type": "snapshot_end", "id": id, "chunks": count}))
            .await;
    }

    /// The beginning of a snapshot and its first chunks, `most` at most. Returns their number.
    pub async fn part_of_snapshot(
        &mut self,
        id: u64,
        generation: u64,
        content: &Content,
        most: usize,
    ) -> usize {
        let mut sender = SnapshotSender::new(&content.table, id, generation).expect("a sender");
        let chunks: Vec<_> = sender
            .by_ref()
            .map(|chunk| chunk.expect("a chunk"))
            .collect();
        let table = &content.table;
        self.send(
            json!({"type": "snapshot_begin", "id": id, "generation": generation,
            "digest": content.digest(), "head_bytes": table.head_json().len(),
            "keys": table.key_count(), "encoding": "zstd"}),
        )
        .await;
        let count = chunks.len().min(most);
        for chunk in chunks.into_iter().take(most) {
            self.send_binary(chunk).await;
        }
        count
    }

    /// The next text frame, or the code and the reason with which the connection ended.
    async fn next(&mut self) -> Result<Value, (u16, String)> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    self.received += 1;
                    self.received_bytes += text.len();
                    return Ok(serde_json::from_str(&text).expect("JSON from the edge"));
                }
                Some(Ok(Message::Close(frame))) => {
                    let frame = frame.map(|it| (it.code.into(), it.reason.to_string()));
                    return Err(frame.unwrap_or((1005, String::new())));
                }
                Some(Ok(Message::Binary(_))) => panic!("a binary frame from an edge"),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err((1006, error.to_string())),
                None => return Err((1006, "the end".to_owned())),
            }
        }
    }

    /// The next message other than a status.
    pub async fn receive(&mut self) -> Value {
        within("a message from the edge", async {
            loop {
                let message = self.next().await;
                let message = message.unwrap_or_else(|end| panic!("the link ended: {end:?}"));
                if message["type"] != "status" {
                    return message;
                }
                self.statuses.push_back(message);
            }
        })
        .await
    }

    /// The next message other than a status, which must have this type.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let message = self.receive().await;
        assert_eq!(message["type"], kind, "{message}");
        message
    }

    /// Waits for the ack of this generation with the digest of `content`.
    pub async fn expect_ack(&mut self, generation: u64, content: &Content) {
        let ack = self.expect("ack").await;
        let expected = json!({"type": "ack", "generation": generation, "digest": content.digest()});
        assert_eq!(ack, expected);
    }

    /// The next status for which `is` is true.
    pub async fn status(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        within(what, async {
            loop {
                let status = match self.statuses.pop_front() {
                    Some(status) => status,
                    None => self.next().await.expect("the link holds"),
                };
                if status["type"] == "status" && is(&status) {
                    return status;
                }
            }
        })
        .await
    }

    /// The code and the reason with which the edge ends the connection.
    pub async fn ended(&mut self) -> (u16, String) {
        within("the edge ends the connection", async {
            loop {
                if let Err(end) = self.next().await {
                    return end;
                }
            }
        })
        .await
    }

    /// Closes the connection with this code and reason.
    pub async fn close(mut self, code: u16, reason: &str) {
        let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame {
            code: code.into(),
            reason: reason.into(),
        };
        let _ = self.socket.close(Some(frame)).await;
    }
}

impl Content {
    pub fn new(document: Value) -> Content {
        let table = compile(document.to_string().as_bytes()).expect("a valid document");
        Content { document, table }
    }

    pub fn digest(&self) -> String {
        self.table.digest().to_string()
    }

    /// The message with which a control plane of M3 sends it.
    pub fn message(&self) -> Value {
        let mut message = self.document.clone();
        message["type"] = "config_snapshot".into();
        message
    }
}

/// Waits until `is` is true for `control_plane` in `/debug/config`.
pub async fn wait_control(edge: &Edge, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually(what, async || {
        let shown = edge.config().await["control_plane"].take();
        is(&shown).then_some(shown)
    })
    .await
}
