//! The server side of the M3 dialect: whole documents to the edge, acks and nacks back.
//!
//! A document is encoded once for all edges that are sent it, and is in memory only while it is
//! being sent. As the dialect has no smaller pieces, only some edges are sent one at a time.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use super::metrics::{ConnectMetrics, From, To};
use super::websocket::{EdgeSocket, End, Event};
use super::{Hub, ending};
use crate::control::Peer;
use crate::control::core::{Arrival, Dialect, Session};
use crate::control::store::Generation;
use crate::protocol::m3::{Reply, encode_snapshot};
use crate::protocol::{Close, Received, Refusal};
use crate::table::Problem;

/// Most unanswered documents that are remembered. An edge that never answers is still sent new
/// documents.
const MAX_UNANSWERED: usize = 16;

/// Serves an edge until it leaves.
pub(super) async fn serve(hub: &Arc<Hub>, peer: &Peer, mut socket: EdgeSocket) {
    let gauge = hub.metrics.edges(Dialect::M3);
    gauge.inc();
    let mut session = hub.control.edges.join(Arrival {
        edge_id: format!("m3@{}", peer.address),
        instance: String::new(),
        peer: peer.address.to_string(),
        dialect: Dialect::M3,
        version: String::new(),
        labels: BTreeMap::new(),
        generation: 0,
        digest: None,
    });
    log::info!(
        target: "cellgate::control",
        edge_id = session.edge_id(), peer:% = peer.address;
        "an edge connected with the M3 dialect"
    );
    let mut conversation = Conversation {
        hub,
        session: &session,
        socket: &mut socket,
        pushed: None,
        sent: VecDeque::new(),
        since: SystemTime::now(),
    };
    let end = match conversation.converse().await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    log::info!(
        target: "cellgate::control",
        edge_id = session.edge_id(), peer:% = peer.address;
        "an edge disconnected: {end}"
    );
    session.ended(end.to_string());
    drop(session);
    gauge.dec();
    socket.finish(&end).await;
}

struct Conversation<'a> {
    hub: &'a Arc<Hub>,
    session: &'a Session,
    socket: &'a mut EdgeSocket,
    /// The last generation that was sent.
    pushed: Option<u64>,
    /// Unanswered documents, oldest first.
    sent: VecDeque<Sent>,
    since: SystemTime,
}

struct Sent {
    generation: u64,
    version: String,
    at: SystemTime,
}

impl Conversation<'_> {
    async fn converse(&mut self) -> Result<Infallible, End> {
        let mut ending = Box::pin(ending(self.hub));
        let mut newest = self.hub.control.truth.watch();
        // Kept until it is written, with the permit to have it in memory.
        let mut document: Option<Document> = None;
        let mut wanted = None;
        loop {
            let written = self.socket.take_written();
            if written > 0 {
                self.session.sent(|sent| sent.bytes += written);
            }
            if self.socket.is_idle() {
                document = None;
            }
            let generation = newest
                .borrow_and_update()
                .as_ref()
                .map(|newest| newest.record.generation);
            if generation != self.pushed && document.is_none() && wanted.is_none() {
                let hub = Arc::clone(self.hub);
                wanted = Some(Box::pin(async move {
                    hub.documents.get(|| hub.control.truth.newest()).await
                }));
                self.session.behind();
            }
            let next = async {
                match &mut wanted {
                    Some(next) => next.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.socket.event() => if let Event::Text(text) = event? {
                    self.receive(text.as_bytes())?;
                },
                next = next => {
                    wanted = None;
                    let Some((encoded, text)) = next else {
                        let why = "a document cannot be encoded";
                        return Err(Refusal::new(Close::Internal, why).into());
                    };
                    self.socket.text(text);
                    self.sent(&encoded.generation);
                    document = Some(encoded);
                }
                changed = newest.changed() => if changed.is_err() {
                    let why = "the control plane ends";
                    return Err(Refusal::new(Close::Internal, why).into());
                },
                () = &mut ending => {
                    let why = "this control plane shuts down";
                    return Err(Refusal::new(Close::GoingAway, why).into());
                }
            }
        }
    }

    fn sent(&mut self, generation: &Generation) {
        let record = &generation.record;
        self.pushed = Some(record.generation);
        self.hub.metrics.sent(To::Document);
        self.session.sent(|sent| sent.snapshots += 1);
        if self.sent.len() == MAX_UNANSWERED {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent {
            generation: record.generation,
            version: record.version.clone(),
            at: record.at,
        });
    }

    /// Handles an ack or a nack. Edges answer in order: one that names a version answers that
    /// document, and will not answer the documents before it.
    fn receive(&mut self, text: &[u8]) -> Result<(), End> {
        let reply = match Reply::decode(text)? {
            Received::Message(reply) => reply,
            Received::Unknown(kind) => {
                self.hub.unknown(kind);
                return Ok(());
            }
        };
        match reply {
            Reply::Ack(ack) => {
                self.hub.metrics.received(From::Ack);
                if let Some(sent) = self.answered(&ack.version) {
                    self.session.acked(sent.generation, None);
                    let time = Some(sent.at).filter(|at| *at >= self.since);
                    if let Some(time) = time.and_then(|at| at.elapsed().ok()) {
                        self.hub.metrics.push.observe(time.as_secs_f64());
                    }
                }
            }
            Reply::Nack(nack) => {
                self.hub.metrics.received(From::Nack);
                let sent = self.answered(&nack.version);
                let generation = sent.map_or(0, |sent| sent.generation);
                // The text comes from outside.
                let why = nack.error.replace(char::is_control, " ");
                let edge_id = self.session.edge_id();
                self.hub.refused(edge_id, generation, &short(&why));
                self.session
                    .nacked(generation, vec![Problem::without_place(why)]);
            }
        }
        Ok(())
    }

    fn answered(&mut self, version: &str) -> Option<Sent> {
        let said = self.sent.iter().position(|sent| sent.version == version);
        let at = said.unwrap_or(0);
        self.sent.drain(..at.min(self.sent.len()));
        self.sent.pop_front()
    }
}

/// The first 1000 characters, for a log line.
fn short(text: &str) -> String {
    text.chars().take(1000).collect()
}

/// Encodes documents, and limits how many edges are sent one at a time.
pub(super) struct Documents {
    permits: Arc<Semaphore>,
    /// The encoded document that is being sent, with its generation.
    last: Mutex<(u64, Weak<OnceCell<Bytes>>)>,
    metrics: ConnectMetrics,
}

/// An encoded document, and the permit to send it.
pub(super) struct Document {
    pub generation: Arc<Generation>,
    encoded: Arc<OnceCell<Bytes>>,
    metrics: ConnectMetrics,
    _permit: OwnedSemaphorePermit,
}

impl Documents {
    /// At most `max` edges are sent a document at a time.
    pub fn new(max: usize, metrics: ConnectMetrics) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max.max(1))),
            last: Mutex::default(),
            metrics,
        }
    }

    /// Waits for a permit, then encodes the generation that `newest` returns. None: there is no
    /// generation, or the process ends.
    pub async fn get(
        &self,
        newest: impl FnOnce() -> Option<Arc<Generation>>,
    ) -> Option<(Document, Bytes)> {
        let permit = self.permit().await?;
        let generation = newest()?;
        self.metrics.snapshots_sending.inc();
        let document = Document {
            encoded: self.encoded(generation.record.generation),
            generation,
            metrics: self.metrics.clone(),
            _permit: permit,
        };
        let of = Arc::clone(&document.generation);
        let make = || async {
            let encoded = tokio::task::spawn_blocking(move || encode_snapshot(&of.table));
            encoded.await.map(Bytes::from)
        };
        let bytes = document.encoded.get_or_try_init(make).await.ok()?.clone();
        Some((document, bytes))
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        struct Waits<'a>(&'a ConnectMetrics);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.snapshots_waiting.dec();
            }
        }
        self.metrics.snapshots_waiting.inc();
        let _waits = Waits(&self.metrics);
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    fn encoded(&self, generation: u64) -> Arc<OnceCell<Bytes>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.1.upgrade().filter(|_| last.0 == generation);
        known.unwrap_or_else(|| {
            let encoded = Arc::default();
            *last = (generation, Arc::downgrade(&encoded));
            encoded
        })
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        self.metrics.snapshots_sending.dec();
    }
}
