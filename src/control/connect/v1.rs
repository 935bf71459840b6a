//! The server side of the `cellgate.v1` dialect: one task for each edge, from the hello to the close.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::metrics::{From, To};
use super::snapshots::{Failed, Part, Transfer};
use super::sync_state::{Next, SyncState};
use super::websocket::{EdgeSocket, End, Event};
use super::{Hub, ending};
use crate::control::Peer;
use crate::control::core::{Arrival, Dialect, Session};
use crate::control::store::Generation;
use crate::protocol::limits::TO_EDGE_BYTES;
use crate::protocol::{
    Checkpoint, Close, Hello, Mark, Received, Refusal, ToControl, ToEdge, Welcome,
};

/// Longest backoff between two snapshots to one edge.
const MAX_SNAPSHOT_BACKOFF: Duration = Duration::from_secs(60);

/// Serves an edge until it leaves.
pub(super) async fn serve(hub: &Arc<Hub>, peer: &Peer, mut socket: EdgeSocket) {
    let hello = match timeout(hub.times.greeting, hello(hub, &mut socket)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(end)) => {
            log::info!(target: "cellgate::control", peer:% = peer.address; "a client did not become an edge: {end}");
            return socket.finish(&end).await;
        }
        Err(_) => {
            let why = format!("no hello within {} s", hub.times.greeting.as_secs());
            let end = Refusal::new(Close::Protocol, why).into();
            log::info!(target: "cellgate::control", peer:% = peer.address; "a client did not become an edge: {end}");
            return socket.finish(&end).await;
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
    let conversation = Conversation::new(hub, &session, socket, &hello);
    let (end, socket) = conversation.run().await;
    log::info!(
        target: "cellgate::control",
        edge_id = session.edge_id(), peer:% = peer.address;
        "an edge disconnected: {end}"
    );
    session.ended(end.to_string());
    // Before the close frame, so that an edge that reconnects at once finds its session gone.
    drop(session);
    gauge.dec();
    socket.finish(&end).await;
}

/// Waits for the hello.
async fn hello(hub: &Hub, socket: &mut EdgeSocket) -> Result<Hello, End> {
    loop {
        let Event::Text(text) = socket.event().await? else {
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
        let why = format_args!("message {what} before the hello");
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

/// A connection after the hello.
struct Conversation<'a> {
    hub: &'a Arc<Hub>,
    session: &'a Session,
    socket: EdgeSocket,
    newest: watch::Receiver<Option<Arc<Generation>>>,
    state: SyncState,
    /// The largest message that the edge accepts, in bytes.
    max_message: usize,
    /// When the edge connected: older changes do not count as pushed to it.
    since: SystemTime,
    transfer: Option<Box<Transfer>>,
    /// The id of the last snapshot.
    id: u64,
    /// When the next snapshot may start, and the backoff after it.
    snapshot_at: Instant,
    backoff: Duration,
    /// When the awaited generation was made, if that was after `since`.
    pushed: Option<SystemTime>,
    answer_by: Option<Instant>,
    checkpoint_at: Instant,
}

impl<'a> Conversation<'a> {
    fn new(hub: &'a Arc<Hub>, session: &'a Session, mut socket: EdgeSocket, hello: &Hello) -> Self {
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
        say(hub, &mut socket, To::Welcome, &ToEdge::Welcome(welcome));
        let held = serves.filter(|serves| serves.generation > 0);
        let now = Instant::now();
        Self {
            hub,
            session,
            socket,
            newest,
            state: SyncState::greeted(held, serves, has),
            max_message: usize::try_from(hello.max_frame)
                .unwrap_or(TO_EDGE_BYTES)
                .min(TO_EDGE_BYTES),
            since: SystemTime::now(),
            transfer: None,
            id: 0,
            snapshot_at: now,
            backoff: hub.times.snapshot_backoff,
            pushed: None,
            answer_by: None,
            // With jitter, as edges that lost a control plane connect at the same time.
            checkpoint_at: now
                + hub
                    .times
                    .checkpoint
                    .mul_f64(rand::rng().random_range(0.5..1.0)),
        }
    }

    async fn run(mut self) -> (End, EdgeSocket) {
        let end = match self.converse().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        (end, self.socket)
    }

    async fn converse(&mut self) -> Result<std::convert::Infallible, End> {
        let mut ending = Box::pin(ending(self.hub));
        loop {
            self.push().await?;
            let written = self.socket.take_written();
            if written > 0 {
                self.session.sent(|sent| sent.bytes += written);
            }
            let due = self.due();
            let idle = self.socket.is_idle();
            let part = async {
                match &mut self.transfer {
                    Some(transfer) if idle => transfer.next().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.socket.event() => if let Event::Text(text) = event? {
                    self.receive(text.as_bytes())?;
                },
                part = part => self.send(part)?,
                changed = self.newest.changed() => if changed.is_err() {
                    return Err(internal("the control plane ends"));
                },
                () = tokio::time::sleep_until(due) => self.on_timer(),
                () = self.session.replaced() => {
                    let why = "replaced by another connection of this process";
                    return Err(Refusal::new(Close::Policy, why).into());
                }
                () = &mut ending => {
                    let why = "this control plane shuts down";
                    return Err(Refusal::new(Close::GoingAway, why).into());
                }
            }
        }
    }

    /// The next deadline.
    fn due(&self) -> Instant {
        let snapshot = Some(self.snapshot_at).filter(|at| *at > Instant::now());
        let pause = self.transfer.as_ref().and_then(|it| it.pause_due());
        let due = [self.answer_by, snapshot, pause].into_iter().flatten();
        due.fold(self.checkpoint_at, Instant::min)
    }

    /// Sends what the edge lacks, unless something is already being sent.
    async fn push(&mut self) -> Result<(), End> {
        if self.transfer.is_some() || !self.socket.is_idle() {
            return Ok(());
        }
        match self.state.next(&self.hub.control.truth) {
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

    /// The messages for these steps. None: a snapshot is smaller.
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
        self.hub.deltas.get(from, steps, self.max_message).await
    }

    fn deltas(&mut self, to: Mark, messages: &[Bytes]) {
        for message in messages {
            self.socket.text(message.clone());
            self.hub.metrics.sent(To::Delta);
        }
        self.session
            .sent(|sent| sent.deltas += messages.len() as u64);
        self.sent(to);
    }

    /// Starts a snapshot, unless the last one was too recent.
    fn snapshot(&mut self) {
        let now = Instant::now();
        if now < self.snapshot_at {
            return;
        }
        self.snapshot_at = now + self.backoff;
        self.backoff = (self.backoff * 2).min(MAX_SNAPSHOT_BACKOFF);
        self.id += 1;
        self.session.behind();
        self.transfer = Some(Box::new(self.hub.snapshots.send(self.id)));
    }

    fn send(&mut self, part: Result<Part, Failed>) -> Result<(), End> {
        match part {
            Ok(Part::Begin(begin)) => {
                self.say(To::SnapshotBegin, &ToEdge::SnapshotBegin(begin));
            }
            Ok(Part::Chunk(header, payload)) => {
                self.socket.binary(header, payload);
                self.hub.metrics.sent(To::Chunk);
            }
            Ok(Part::End(end)) => {
                self.say(To::SnapshotEnd, &ToEdge::SnapshotEnd(end));
                self.session.sent(|sent| sent.snapshots += 1);
                let transfer = self.transfer.take();
                if let Some(generation) = transfer.as_ref().and_then(|it| it.generation()) {
                    self.sent(generation.record.mark());
                }
            }
            Err(Failed(why)) => {
                log::error!(
                    target: "cellgate::control",
                    edge_id = self.session.edge_id();
                    "cannot send a snapshot: {why}"
                );
                return Err(internal("a snapshot cannot be encoded"));
            }
        }
        Ok(())
    }

    /// Expects an answer: the edge has been sent everything up to `to`.
    fn sent(&mut self, to: Mark) {
        self.state.sent(to);
        self.session.behind();
        self.answer_by = Some(Instant::now() + self.hub.times.answer);
        let newest = self.newest.borrow().clone();
        let newest = newest.filter(|newest| newest.record.mark() == to);
        self.pushed = newest
            .map(|newest| newest.record.at)
            .filter(|at| *at >= self.since);
    }

    /// Handles a message.
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
                self.state.nacked(nack.generation);
                self.stop_snapshot(|of| of.generation <= nack.generation);
                self.session.nacked(nack.generation, nack.problems);
            }
            ToControl::Resync(resync) => {
                self.hub.metrics.received(From::Resync);
                log::info!(
                    target: "cellgate::control",
                    edge_id = self.session.edge_id();
                    "an edge asks for a snapshot: {}", resync.reason
                );
                // The next snapshot replaces this one; an end message would declare it complete.
                self.transfer = None;
                self.state.resync();
                self.session.behind();
            }
            ToControl::Status(status) => {
                self.hub.metrics.received(From::Status);
                self.session.status(status);
            }
        }
        if self.state.awaited().is_none() {
            self.answer_by = None;
        }
        Ok(())
    }

    fn acked(&mut self, mark: Mark) {
        self.stop_snapshot(|of| of == mark);
        let due = self.state.acked(mark);
        self.session.acked(mark.generation, Some(mark.digest));
        if !due {
            return;
        }
        self.backoff = self.hub.times.snapshot_backoff;
        let pushed = self.pushed.take();
        if let Some(time) = pushed.and_then(|at| at.elapsed().ok()) {
            self.hub.metrics.push.observe(time.as_secs_f64());
        }
    }

    /// Stops a snapshot that the edge has answered early. The end message must be sent before a
    /// delta can follow.
    fn stop_snapshot(&mut self, answered: impl Fn(Mark) -> bool) {
        let answered = |transfer: &mut Box<Transfer>| {
            let of = transfer
                .generation()
                .map(|generation| generation.record.mark());
            of.is_some_and(&answered)
        };
        if let Some(transfer) = self.transfer.take_if(answered) {
            let end = ToEdge::SnapshotEnd(transfer.end());
            self.say(To::SnapshotEnd, &end);
        }
    }

    /// Handles whatever deadline has passed.
    fn on_timer(&mut self) {
        let now = Instant::now();
        if let Some(transfer) = &mut self.transfer {
            transfer.pause_if_due(now);
        }
        if self.answer_by.is_some_and(|by| by <= now) {
            self.answer_by = None;
            log::warn!(
                target: "cellgate::control",
                edge_id = self.session.edge_id();
                "an edge has not answered for {} s", self.hub.times.answer.as_secs()
            );
            self.state.unanswered();
        }
        if self.checkpoint_at <= now {
            self.checkpoint_at = now + self.hub.times.checkpoint;
            self.checkpoint();
        }
    }

    /// Sends a checkpoint, unless a push is in progress or due: an edge that learns of a generation
    /// before it has it asks for a snapshot.
    fn checkpoint(&mut self) {
        let newest = self.newest.borrow().clone();
        let lacks = !matches!(self.state.next(&self.hub.control.truth), Next::Nothing);
        let busy = lacks || self.transfer.is_some() || self.state.awaited().is_some();
        if let Some(newest) = newest.filter(|_| !busy && self.socket.is_idle()) {
            let Mark { generation, digest } = newest.record.mark();
            let checkpoint = Checkpoint { generation, digest };
            self.say(To::Checkpoint, &ToEdge::Checkpoint(checkpoint));
        }
    }

    fn say(&mut self, kind: To, message: &ToEdge) {
        say(self.hub, &mut self.socket, kind, message);
    }
}

/// From this many changed keys on, their number is compared with the size of the table.
const MANY_KEYS: usize = 1_000;

/// Queues a message. Only deltas can be too large, and they are encoded elsewhere.
fn say(hub: &Hub, socket: &mut EdgeSocket, kind: To, message: &ToEdge) {
    if let Ok(text) = message.encode(TO_EDGE_BYTES) {
        socket.text(text);
        hub.metrics.sent(kind);
    }
}

fn internal(why: &str) -> End {
    Refusal::new(Close::Internal, why).into()
}
