//! Real connections to a router that is served in this process, over a truth on a
//! store in memory.

mod ending;
mod greeting;
mod hostile;
mod m3;
mod pushes;
mod sharing;
mod slow;
mod snapshots;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request};
use axum::middleware::{Next, from_fn};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::{Limits, Times, serve};
use crate::control::access::Access;
use crate::control::core::tests::memory::Memory;
use crate::control::core::tests::{author, set};
use crate::control::core::{Committed, Edges, Edit, Expected, Truth};
use crate::control::metrics::ControlMetrics;
use crate::control::store::{Generation, Store};
use crate::control::{Control, Peer};
use crate::protocol::{
    Ack, Hello, Mark, Received, SUBPROTOCOL, SnapshotLimits, SnapshotReceiver, ToControl, ToEdge,
    Welcome,
};
use crate::table::{Digest, RoutingTable};

const DEADLINE: Duration = Duration::from_secs(20);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing within {DEADLINE:?}"),
    }
}

/// How a control plane is to be.
#[derive(Default)]
struct Setup {
    limits: Limits,
    times: Times,
    access: Access,
}

/// A control plane.
struct Site {
    truth: Arc<Truth>,
    edges: Arc<Edges>,
    metrics: Arc<ControlMetrics>,
    address: SocketAddr,
    ending: watch::Sender<bool>,
}

impl Site {
    /// Without a generation.
    async fn empty(setup: Setup) -> Self {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let truth = Truth::open(store).await.unwrap();
        let mut control = Control::new("control-1", Arc::clone(&truth), setup.access);
        control.limits = setup.limits;
        let (edges, metrics) = (Arc::clone(&control.edges), Arc::clone(&control.metrics));
        let (ending, ends) = watch::channel(false);
        let router = serve(control, setup.times, ends).layer(from_fn(
            |ConnectInfo(address): ConnectInfo<SocketAddr>, mut request: Request, next: Next| {
                request.extensions_mut().insert(Peer {
                    address,
                    certificate: None,
                });
                next.run(request)
            },
        ));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        Self {
            truth,
            edges,
            metrics,
            address,
            ending,
        }
    }

    /// With generation 1, which has so many keys.
    async fn with(setup: Setup, keys: usize) -> Self {
        let site = Self::empty(setup).await;
        site.commit(Edit::Document(document("1", keys))).await;
        site
    }

    /// With a generation 1 that takes so many megabytes on the wire.
    async fn large(setup: Setup, megabytes: usize) -> Self {
        let site = Self::empty(setup).await;
        site.commit(Edit::Document(bulky(megabytes * 50))).await;
        site
    }

    async fn commit(&self, edit: Edit) -> Arc<Generation> {
        let made = self.truth.commit(edit, &Expected::Anything, author("edit"));
        match made.await.unwrap() {
            Committed::Changed(generation) => generation,
            Committed::Unchanged(_) => panic!("nothing changed"),
        }
    }

    async fn set(&self, key: &str, placement: &str) -> Arc<Generation> {
        self.commit(set(key, placement)).await
    }

    fn newest(&self) -> Arc<Generation> {
        self.truth.newest().unwrap()
    }

    fn mark(&self) -> Mark {
        self.newest().record.mark()
    }

    /// Edges' view of this one.
    async fn dial(&self) -> Client {
        self.request(Some(SUBPROTOCOL), None).await.unwrap()
    }

    async fn request(
        &self,
        protocol: Option<&'static str>,
        authorization: Option<&'static str>,
    ) -> Result<Client, http::Response<Option<Vec<u8>>>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let url = format!("ws://{}/connect", self.address);
        let mut request = url.into_client_request().unwrap();
        let headers = request.headers_mut();
        if let Some(protocol) = protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol.parse().unwrap());
        }
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization.parse().unwrap());
        }
        match within("handshake", client_async(request, stream)).await {
            Ok((socket, response)) => {
                let chosen = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
                let chosen = chosen.map(|chosen| chosen.to_str().unwrap().to_owned());
                Ok(Client { socket, chosen })
            }
            Err(Error::Http(response)) => Err(*response),
            Err(error) => panic!("handshake: {error}"),
        }
    }

    /// An edge that has `held`, welcomed.
    async fn edge(&self, edge_id: &str, held: Option<Mark>) -> (Client, Welcome) {
        let mut client = self.dial().await;
        client.hello(edge_id, held).await;
        let welcome = client.welcome().await;
        (client, welcome)
    }

    /// An edge in sync.
    async fn synced(&self, edge_id: &str) -> Client {
        let (client, welcome) = self.edge(edge_id, Some(self.mark())).await;
        assert_eq!(welcome.generation, self.mark().generation);
        client
    }

    /// The value of a metric, with its labels as they are written.
    fn metric(&self, name: &str) -> f64 {
        let text = self.metrics.encode();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = line.unwrap_or_else(|| panic!("no {name} in {text}"));
        value.parse().unwrap()
    }

    async fn until(&self, what: &str, mut seen: impl FnMut(&Self) -> bool) {
        let looks = async {
            while !seen(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(what, looks).await;
    }
}

/// A document of so many keys on `one` and `two`.
fn document(version: &str, keys: usize) -> Bytes {
    let names: Vec<_> = (0..keys).map(|key| format!("key-{key}")).collect();
    let homes = names.iter().enumerate().map(|(index, name)| {
        let home = if index % 2 == 0 { "one" } else { "two" };
        (name.as_str(), home)
    });
    crate::control::core::tests::document(version, &homes.collect::<Vec<_>>())
}

const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";

/// A document that is long for the keys that it has, and hard to compress: some
/// 24 KB of each arrive on the wire, and ten of them fill a chunk.
fn bulky(keys: usize) -> Bytes {
    let mut state = 1_u64;
    let mut key = || {
        let letters = (0..2_600).flat_map(|_| {
            // Xorshift: of a generator that is better, a test would see nothing but
            // the time that it takes.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let state = state;
            (0..10).map(move |index| LETTERS[(state >> (6 * index)) as usize % LETTERS.len()])
        });
        String::from_utf8(letters.collect()).unwrap()
    };
    let keys: Vec<_> = (0..keys).map(|_| key()).collect();
    let homes: Vec<_> = keys.iter().map(|key| (key.as_str(), "one")).collect();
    crate::control::core::tests::document("1", &homes)
}

fn hello(edge_id: &str, held: Option<Mark>) -> Hello {
    Hello {
        edge_id: edge_id.to_owned(),
        instance: format!("{edge_id}-process"),
        version: "0.1.0".to_owned(),
        labels: [("zone".to_owned(), "eu-1".to_owned())].into(),
        generation: held.map_or(0, |held| held.generation),
        digest: held.map(|held| held.digest),
        max_frame: 1 << 20,
    }
}

/// What a control plane said.
#[derive(Debug)]
enum Said {
    Message(ToEdge),
    Chunk(Bytes),
    Text(String),
    Closed {
        code: u16,
        reason: String,
    },
    /// Without a close frame.
    Broken,
}

/// An edge, by hand.
struct Client<S = TcpStream> {
    socket: WebSocketStream<S>,
    /// The subprotocol.
    chosen: Option<String>,
}

impl Client {
    /// On a socket that takes little before it is read.
    async fn narrow(site: &Site) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        let stream = socket.connect(site.address).await.unwrap();
        let url = format!("ws://{}/connect", site.address);
        let mut request = url.into_client_request().unwrap();
        let protocol = SUBPROTOCOL.parse().unwrap();
        request
            .headers_mut()
            .insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        let (socket, _) = within("handshake", client_async(request, stream))
            .await
            .unwrap();
        let chosen = Some(SUBPROTOCOL.to_owned());
        Self { socket, chosen }
    }

    async fn raw(&mut self, message: Message) {
        within("send", self.socket.send(message)).await.unwrap();
    }

    async fn text(&mut self, text: &str) {
        self.raw(Message::Text(text.into())).await;
    }

    async fn send(&mut self, message: ToControl) {
        let text = message.encode().unwrap();
        self.text(&text).await;
    }

    async fn hello(&mut self, edge_id: &str, held: Option<Mark>) {
        self.send(ToControl::Hello(hello(edge_id, held))).await;
    }

    async fn ack(&mut self, mark: Mark) {
        let Mark { generation, digest } = mark;
        self.send(ToControl::Ack(Ack { generation, digest })).await;
    }

    /// What comes next, apart from pings.
    async fn next(&mut self) -> Said {
        loop {
            match within("a message", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    return match ToEdge::decode(text.as_bytes(), 1 << 20) {
                        Ok(Received::Message(message)) => Said::Message(message),
                        _ => Said::Text(text.to_string()),
                    };
                }
                Some(Ok(Message::Binary(chunk))) => return Said::Chunk(chunk),
                Some(Ok(Message::Close(Some(frame)))) => {
                    let (code, reason) = (frame.code.into(), frame.reason.to_string());
                    return Said::Closed { code, reason };
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Said::Broken,
            }
        }
    }

    async fn welcome(&mut self) -> Welcome {
        match self.next().await {
            Said::Message(ToEdge::Welcome(welcome)) => welcome,
            other => panic!("{other:?} where a welcome was due"),
        }
    }

    async fn delta(&mut self) -> crate::protocol::DeltaMessage {
        match self.next().await {
            Said::Message(ToEdge::Delta(delta)) => delta,
            other => panic!("{other:?} where a delta was due"),
        }
    }

    /// A whole snapshot as a table, and its id.
    async fn snapshot(&mut self) -> (Mark, RoutingTable, u64) {
        let begin = match self.next().await {
            Said::Message(ToEdge::SnapshotBegin(begin)) => begin,
            other => panic!("{other:?} where a snapshot was due"),
        };
        self.snapshot_of(begin).await
    }

    /// The rest of a snapshot that has begun.
    async fn snapshot_of(
        &mut self,
        begin: crate::protocol::SnapshotBegin,
    ) -> (Mark, RoutingTable, u64) {
        let (mut mark, mut id) = (begin.mark(), begin.id);
        let receive = |begin| SnapshotReceiver::new(begin, SnapshotLimits::default()).unwrap();
        let mut receiver = receive(begin);
        loop {
            match self.next().await {
                Said::Chunk(chunk) => receiver.chunk(&chunk).unwrap(),
                // Which does away with the one before.
                Said::Message(ToEdge::SnapshotBegin(begin)) => {
                    (mark, id) = (begin.mark(), begin.id);
                    receiver = receive(begin);
                }
                Said::Message(ToEdge::SnapshotEnd(end)) => {
                    return (mark, receiver.end(end).unwrap(), id);
                }
                other => panic!("{other:?} within a snapshot"),
            }
        }
    }

    async fn closed(&mut self) -> (u16, String) {
        match self.next().await {
            Said::Closed { code, reason } => (code, reason),
            other => panic!("{other:?} where a close was due"),
        }
    }

    /// Nothing is on its way: what is asked for now comes first.
    async fn nothing(&mut self) {
        let reason = "nothing was due".to_owned();
        self.send(ToControl::Resync(crate::protocol::Resync { reason }))
            .await;
        self.snapshot().await;
    }
}

fn digest(number: u8) -> Digest {
    format!("{number:032x}").parse().unwrap()
}
