//! A connection that speaks M3: whole documents to the edge, and verdicts back.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;

use super::documents::Document;
use super::link::{End, Event, Link};
use super::metrics::{From, To};
use super::{Hub, ending};
use crate::control::Peer;
use crate::control::core::{Arrival, Dialect, Session};
use crate::control::store::Generation;
use crate::protocol::m3::Reply;
use crate::protocol::{Close, Received, Refusal};
use crate::table::Problem;

/// Most documents that wait for an answer. An edge that never answers is sent
/// documents all the same.
const MOST_SENT: usize = 16;

/// Serves an edge until it leaves.
pub(super) async fn serve(hub: &Arc<Hub>, peer: &Peer, mut link: Link) {
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
        "an edge connected that speaks M3"
    );
    let mut conversation = Conversation {
        hub,
        session: &session,
        link: &mut link,
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
        "an edge left: {end}"
    );
    session.ended(end.to_string());
    drop(session);
    gauge.dec();
    link.finish(&end).await;
}

struct Conversation<'a> {
    hub: &'a Arc<Hub>,
    session: &'a Session,
    link: &'a mut Link,
    /// The generation that was sent last.
    pushed: Option<u64>,
    /// What was sent and is not answered, oldest first.
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
        // Kept until it is written: it is the right to have it in memory.
        let mut document: Option<Document> = None;
        let mut wanted = None;
        loop {
            let written = self.link.take_written();
            if written > 0 {
                self.session.sent(|sent| sent.bytes += written);
            }
            if self.link.is_idle() {
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
                event = self.link.event() => if let Event::Text(text) = event? {
                    self.receive(text.as_bytes())?;
                },
                next = next => {
                    wanted = None;
                    let Some((made, text)) = next else {
                        let why = "a document cannot be made";
                        return Err(Refusal::new(Close::Internal, why).into());
                    };
                    self.link.text(text);
                    self.sent(&made.generation);
                    document = Some(made);
                }
                changed = newest.changed() => if changed.is_err() {
                    let why = "the control plane has no more to say";
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
        if self.sent.len() == MOST_SENT {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent {
            generation: record.generation,
            version: record.version.clone(),
            at: record.at,
        });
    }

    /// Takes an answer. Edges answer in order; one that says a version answers that
    /// one, and nothing before it will be.
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
                // It may be anything that another program says.
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

/// As much of it as a log line takes.
fn short(text: &str) -> String {
    text.chars().take(1000).collect()
}
