//! A connection that speaks `cellgate.v1`, from the hello to the end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::link::{End, Event, Link};
use super::metrics::{From, To};
use super::snapshots::{Failed, Piece, Sending};
use super::standing::{Next, Standing};
use super::{Hub, ending};
use crate::control::Peer;
use crate::control::core::{Arrival, Dialect, Session};
use crate::control::store::Generation;
use crate::protocol::limits::TO_EDGE_BYTES;
use crate::protocol::{
    Checkpoint, Close, Hello, Mark, Received, Refusal, ToControl, ToEdge, Welcome,
};

/// Most time from a snapshot that was of no use to the next.
const SNAPSHOT_AGAIN_MOST: Duration = Duration::from_secs(60);

/// Serves an edge until it leaves.
pub(super) async fn serve(hub: &Arc<Hub>, peer: &Peer, mut link: Link) {
    let hello = match timeout(hub.times.greeting, hello(hub, &mut link)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(end)) => {
            log::info!(target: "cellgate::control", peer:% = peer.address; "no edge: {end}");
            return link.finish(&end).await;
        }
        Err(_) => {
            let why = format!("no hello within {} s", hub.times.greeting.as_secs());
            let end = Refusal::new(Close::Protocol, why).into();
            log::info!(target: "cellgate::control", peer:% = peer.address; "no edge: {end}");
            return link.finish(&end).await;
        }
    };
    let gauge = hub.metrics.edges(Dialect::V1);
    gauge.inc();
    let mut session = hub.control.edges.join(arrival(&hello, peer));
    log::info!(
        target: "cellgate::control",
        edge_id = session.edge_id(), peer:% = peer.address, version = hello.version.as_str(),
        generation = hello.generation;
        "an edge connected"
    );
    let conversation = Conversation::new(hub, &session, link, &hello);
    let (end, link) = conversation.run().await;
    log::info!(
        target: "cellgate::control",
        edge_id = session.edge_id(), peer:% = peer.address;
        "an edge left: {end}"
    );
    session.ended(end.to_string());
    // It is gone before it is told so: one that dials again finds itself forgotten.
    drop(session);
    gauge.dec();
    link.finish(&end).await;
}

/// Waits for the first message that is known here.
async fn hello(hub: &Hub, link: &mut Link) -> Result<Hello, End> {
    loop {
        let Event::Text(text) = link.event().await? else {
            continue;
        };
        let what = match ToControl::decode(text.as_bytes())? {
            Received::Message(ToControl::Hello(hello)) => {
                hub.metrics.received(From::Hello);
                return Ok(hello);
            }
            Received::Unknown(kind) => {
                hub.unknown(kind);
                continue;
            }
            Received::Message(ToControl::Ack(_)) => "ack",
            Received::Message(ToControl::Nack(_)) => "nack",
            Received::Message(ToControl::Resync(_)) => "resync",
            Received::Message(ToControl::Status(_)) => "status",
        };
        let why = format_args!("message {what} where a hello was due");
        return Err(Refusal::new(Close::Protocol, why).into());
    }
}

fn arrival(hello: &Hello, peer: &Peer) -> Arrival {
    Arrival {
        edge_id: hello.edge_id.clone(),
        instance: hello.instance.clone(),
        peer: peer.address.to_string(),
        dialect: Dialect::V1,
        version: hello.version.clone(),
        labels: hello.labels.clone(),
        generation: hello.generation,
        digest: hello.digest,
    }
}

/// What a welcomed edge is in the middle of.
struct Conversation<'a> {
    hub: &'a Arc<Hub>,
    session: &'a Session,
    link: Link,
    newest: watch::Receiver<Option<Arc<Generation>>>,
    standing: Standing,
    /// The largest message that the edge takes.
    most: usize,
    /// When the edge connected: what is older was not pushed to it.
    since: SystemTime,
    sending: Option<Box<Sending>>,
    /// Of the next snapshot.
    id: u64,
    /// When the next snapshot may begin, and how long after it the one after that.
    again_at: Instant,
    again: Duration,
    /// When what is awaited was made, if that was after `since`.
    pushed: Option<SystemTime>,
    answer_by: Option<Instant>,
    checkpoint_at: Instant,
}

impl<'a> Conversation<'a> {
    fn new(hub: &'a Arc<Hub>, session: &'a Session, mut link: Link, hello: &Hello) -> Self {
        let mut newest = hub.control.truth.watch();
        let has = newest
            .borrow_and_update()
            .as_ref()
            .map(|newest| newest.record.mark());
        hub.control.truth.heard_of(&hello.edge_id, hello.generation);
        let welcome = Welcome {
            control_id: hub.control.id.to_string(),
            generation: has.map_or(0, |has| has.generation),
            digest: has.map(|has| has.digest),
            ping_seconds: hub.control.limits.ping.as_secs().max(1),
        };
        let serves = hello.digest.map(|digest| Mark {
            generation: hello.generation,
            digest,
        });
        say(hub, &mut link, To::Welcome, &ToEdge::Welcome(welcome));
        let held = serves.filter(|serves| serves.generation > 0);
        let now = Instant::now();
        Self {
            hub,
            session,
            link,
            newest,
            standing: Standing::greeted(held, serves, has),
            most: usize::try_from(hello.max_frame)
                .unwrap_or(TO_EDGE_BYTES)
                .min(TO_EDGE_BYTES),
            since: SystemTime::now(),
            sending: None,
            id: 0,
            again_at: now,
            again: hub.times.again,
            pushed: None,
            answer_by: None,
            // Not all at the same time, when all came at the same time.
            checkpoint_at: now
                + hub
                    .times
                    .checkpoint
                    .mul_f64(rand::rng().random_range(0.5..1.0)),
        }
    }

    async fn run(mut self) -> (End, Link) {
        let end = match self.converse().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        (end, self.link)
    }

    async fn converse(&mut self) -> Result<std::convert::Infallible, End> {
        let mut ending = Box::pin(ending(self.hub));
        loop {
            self.push().await?;
            let written = self.link.take_written();
            if written > 0 {
                self.session.sent(|sent| sent.bytes += written);
            }
            let due = self.due();
            let idle = self.link.is_idle();
            let piece = async {
                match &mut self.sending {
                    Some(sending) if idle => sending.next().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.link.event() => if let Event::Text(text) = event? {
                    self.receive(text.as_bytes())?;
                },
                piece = piece => self.send(piece)?,
                changed = self.newest.changed() => if changed.is_err() {
                    return Err(internal("the control plane has no more to say"));
                },
                () = tokio::time::sleep_until(due) => self.remind(),
                () = self.session.replaced() => {
                    let why = "another connection of this process took its place";
                    return Err(Refusal::new(Close::Policy, why).into());
                }
                () = &mut ending => {
                    let why = "this control plane shuts down";
                    return Err(Refusal::new(Close::GoingAway, why).into());
                }
            }
        }
    }

    /// When there is something to do though nothing happens.
    fn due(&self) -> Instant {
        let again = Some(self.again_at).filter(|at| *at > Instant::now());
        let turn = self.sending.as_ref().and_then(|it| it.turn_ends());
        let due = [self.answer_by, again, turn].into_iter().flatten();
        due.fold(self.checkpoint_at, Instant::min)
    }

    /// Sends what the edge lacks, if it is time.
    async fn push(&mut self) -> Result<(), End> {
        if self.sending.is_some() || !self.link.is_idle() {
            return Ok(());
        }
        match self.standing.next(&self.hub.control.truth) {
            Next::Nothing => {}
            Next::Steps { from, steps } => {
                let Some(last) = steps.last() else {
                    return Ok(());
                };
                let to = last.to;
                match self.messages(from, steps).await {
                    Some(messages) => self.deltas(to, &messages),
                    None => self.snapshot(),
                }
            }
            Next::Snapshot => self.snapshot(),
        }
        Ok(())
    }

    /// The messages that make these steps; none: a snapshot is less.
    async fn messages(
        &mut self,
        from: Mark,
        steps: Vec<crate::control::core::Step>,
    ) -> Option<Arc<[Bytes]>> {
        let keys =
            |step: &crate::control::core::Step| step.delta.set.len() + step.delta.remove.len();
        let changed: usize = steps.iter().map(keys).sum();
        let newest = self.newest.borrow().clone()?;
        if changed > MANY_KEYS && changed > newest.table.key_count() {
            return None;
        }
        self.hub.deltas.get(from, steps, self.most).await
    }

    fn deltas(&mut self, to: Mark, messages: &[Bytes]) {
        for message in messages {
            self.link.text(message.clone());
            self.hub.metrics.sent(To::Delta);
        }
        self.session
            .sent(|sent| sent.deltas += messages.len() as u64);
        self.sent(to);
    }

    /// Begins a snapshot, unless the last one is too near.
    fn snapshot(&mut self) {
        let now = Instant::now();
        if now < self.again_at {
            return;
        }
        self.again_at = now + self.again;
        self.again = (self.again * 2).min(SNAPSHOT_AGAIN_MOST);
        self.id += 1;
        self.session.behind();
        self.sending = Some(Box::new(self.hub.snapshots.send(self.id)));
    }

    fn send(&mut self, piece: Result<Piece, Failed>) -> Result<(), End> {
        match piece {
            Ok(Piece::Begin(begin)) => {
                self.say(To::SnapshotBegin, &ToEdge::SnapshotBegin(begin));
            }
            Ok(Piece::Chunk(header, payload)) => {
                self.link.binary(header, payload);
                self.hub.metrics.sent(To::Chunk);
            }
            Ok(Piece::End(end)) => {
                self.say(To::SnapshotEnd, &ToEdge::SnapshotEnd(end));
                self.session.sent(|sent| sent.snapshots += 1);
                let sending = self.sending.take();
                if let Some(generation) = sending.as_ref().and_then(|it| it.generation()) {
                    self.sent(generation.record.mark());
                }
            }
            Err(Failed(why)) => {
                log::error!(
                    target: "cellgate::control",
                    edge_id = self.session.edge_id();
                    "a snapshot cannot be sent: {why}"
                );
                return Err(internal("a snapshot cannot be made"));
            }
        }
        Ok(())
    }

    /// The edge will be at `to` when it has taken all that was sent.
    fn sent(&mut self, to: Mark) {
        self.standing.sent(to);
        self.session.behind();
        self.answer_by = Some(Instant::now() + self.hub.times.answer);
        let newest = self.newest.borrow().clone();
        let newest = newest.filter(|newest| newest.record.mark() == to);
        self.pushed = newest
            .map(|newest| newest.record.at)
            .filter(|at| *at >= self.since);
    }

    /// Takes a message.
    fn receive(&mut self, text: &[u8]) -> Result<(), End> {
        let message = match ToControl::decode(text)? {
            Received::Message(message) => message,
            Received::Unknown(kind) => {
                self.hub.unknown(kind);
                return Ok(());
            }
        };
        match message {
            ToControl::Hello(_) => {
                return Err(Refusal::new(Close::Protocol, "a second hello").into());
            }
            ToControl::Ack(ack) => {
                self.hub.metrics.received(From::Ack);
                self.acked(Mark {
                    generation: ack.generation,
                    digest: ack.digest,
                });
            }
            ToControl::Nack(nack) => {
                self.hub.metrics.received(From::Nack);
                let why = nack.problems.first().map(ToString::to_string);
                let edge_id = self.session.edge_id();
                self.hub
                    .refused(edge_id, nack.generation, &why.unwrap_or_default());
                self.standing.nacked(nack.generation);
                self.give_up(|of| of.generation <= nack.generation);
                self.session.nacked(nack.generation, nack.problems);
            }
            ToControl::Resync(resync) => {
                self.hub.metrics.received(From::Resync);
                log::info!(
                    target: "cellgate::control",
                    edge_id = self.session.edge_id();
                    "an edge asks for a snapshot: {}", resync.reason
                );
                // The next one does away with it; an end would say that it is whole.
                self.sending = None;
                self.standing.resync();
                self.session.behind();
            }
            ToControl::Status(status) => {
                self.hub.metrics.received(From::Status);
                self.session.status(status);
            }
        }
        if self.standing.awaited().is_none() {
            self.answer_by = None;
        }
        Ok(())
    }

    fn acked(&mut self, mark: Mark) {
        self.give_up(|of| of == mark);
        let due = self.standing.acked(mark);
        self.session.acked(mark.generation, Some(mark.digest));
        if !due {
            return;
        }
        self.again = self.hub.times.again;
        let pushed = self.pushed.take();
        if let Some(time) = pushed.and_then(|at| at.elapsed().ok()) {
            self.hub.metrics.push.observe(time.as_secs_f64());
        }
    }

    /// Stops a snapshot that the edge has answered and needs no more of. What comes
    /// next may be a delta, which has to be after the end.
    fn give_up(&mut self, needless: impl Fn(Mark) -> bool) {
        let needless = |sending: &mut Box<Sending>| {
            let of = sending
                .generation()
                .map(|generation| generation.record.mark());
            of.is_some_and(&needless)
        };
        if let Some(sending) = self.sending.take_if(needless) {
            let end = ToEdge::SnapshotEnd(sending.end());
            self.say(To::SnapshotEnd, &end);
        }
    }

    /// Does what is due by the clock.
    fn remind(&mut self) {
        let now = Instant::now();
        if let Some(sending) = &mut self.sending {
            sending.give_way(now);
        }
        if self.answer_by.is_some_and(|by| by <= now) {
            self.answer_by = None;
            log::warn!(
                target: "cellgate::control",
                edge_id = self.session.edge_id();
                "an edge has not answered for {} s", self.hub.times.answer.as_secs()
            );
            self.standing.unanswered();
        }
        if self.checkpoint_at <= now {
            self.checkpoint_at = now + self.hub.times.checkpoint;
            self.checkpoint();
        }
    }

    /// Says what the edge should have, unless something is on its way or is about to
    /// be: an edge that hears of a generation before it gets it asks for a snapshot.
    fn checkpoint(&mut self) {
        let newest = self.newest.borrow().clone();
        let lacks = !matches!(self.standing.next(&self.hub.control.truth), Next::Nothing);
        let busy = lacks || self.sending.is_some() || self.standing.awaited().is_some();
        if let Some(newest) = newest.filter(|_| !busy && self.link.is_idle()) {
            let Mark { generation, digest } = newest.record.mark();
            let checkpoint = Checkpoint { generation, digest };
            self.say(To::Checkpoint, &ToEdge::Checkpoint(checkpoint));
        }
    }

    fn say(&mut self, kind: To, message: &ToEdge) {
        say(self.hub, &mut self.link, kind, message);
    }
}

/// So many changed keys are compared with the size of the table.
const MANY_KEYS: usize = 1_000;

/// Only a delta may be too large for a message, and those are made elsewhere.
fn say(hub: &Hub, link: &mut Link, kind: To, message: &ToEdge) {
    if let Ok(text) = message.encode(TO_EDGE_BYTES) {
        link.text(text);
        hub.metrics.sent(kind);
    }
}

fn internal(why: &str) -> End {
    Refusal::new(Close::Internal, why).into()
}
