//! What follows from each `cellgate.v1` message: what the edge applies, and what it
//! answers. Knows no socket.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::{JoinError, spawn_blocking};

use super::link::{Ended, Frame};
use super::resync::Resyncs;
use crate::background;
use crate::protocol::limits::{CHUNK_FRAME_BYTES, TO_EDGE_BYTES};
use crate::protocol::{
    Ack, Checkpoint, ChunkHeader, Close, DeltaMessage, Mark, Nack, Received, Refusal, Resync,
    SnapshotBegin, SnapshotEnd, SnapshotError, SnapshotLimits, SnapshotReceiver, ToControl, ToEdge,
    Verdict, Welcome, checkpoint, delta, snapshot,
};
use crate::state::{EdgeState, Generation, Push, Pushed};
use crate::table::{Digest, Problem};

/// The largest frame that this edge accepts, in bytes.
pub(super) const MAX_FRAME: usize = TO_EDGE_BYTES;

/// After so many snapshots that did not help, the edge shows an error.
const LOOPING: u32 = 2;

/// A snapshot is given up when nothing of it came for this long. Until then checkpoints
/// are not compared, since the snapshot may bring the generation that they name.
const STALLED: Duration = Duration::from_secs(60);

/// The state of one conversation, from the welcome on.
pub(super) struct Session {
    edge: Arc<EdgeState>,
    limits: SnapshotLimits,
    /// The snapshot that is being received.
    receiver: Option<SnapshotReceiver>,
    /// When its last part came.
    received: Instant,
    /// The newest generation that the edge refused.
    refused: Option<u64>,
    resyncs: Resyncs,
    /// The newest generation that the control plane has mentioned.
    newest: u64,
}

/// What follows from a frame.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The `type` of a message, or `chunk`, or `unknown`.
    pub kind: &'static str,
    /// The `type`, if this version does not know it.
    pub unknown: Option<String>,
    /// The message to send.
    pub answer: Option<ToControl>,
}

impl Session {
    /// Accepts snapshots within `limits`.
    pub fn new(edge: Arc<EdgeState>, limits: SnapshotLimits) -> Self {
        Self {
            edge,
            limits,
            receiver: None,
            received: Instant::now(),
            refused: None,
            resyncs: Resyncs::default(),
            newest: 0,
        }
    }

    /// The newest generation that the control plane has mentioned; 0 for none.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// When [`resync`](Self::resync) has to be called next.
    pub fn resync_due(&self) -> Option<Instant> {
        let stalls = self.receiver.as_ref().map(|_| self.received + STALLED);
        [stalls, self.resyncs.due()].into_iter().flatten().min()
    }

    /// The request for a snapshot, if one is due. A snapshot of which nothing came for
    /// [`STALLED`] is given up, and requested again.
    pub fn resync(&mut self, now: Instant) -> Option<ToControl> {
        if self.received + STALLED <= now
            && let Some(receiver) = self.receiver.take()
        {
            let reason = format!(
                "no part of the snapshot of generation {} came for {} s",
                receiver.begin().generation,
                STALLED.as_secs()
            );
            self.resyncs.want(reason, now);
        }
        let reason = self.resyncs.take(now)?;
        match self.resyncs.in_vain() {
            in_vain @ ..LOOPING => log::info!(
                target: "cellgate::source",
                "requesting a snapshot from the control plane: {reason}{}",
                if in_vain == 0 { "" } else { " (again)" }
            ),
            in_vain => {
                let message =
                    format!("requested a snapshot {in_vain} times, and it did not help: {reason}");
                let problems = vec![Problem::without_place(message)];
                self.edge.out_of_step(problems, SystemTime::now());
            }
        }
        Some(ToControl::Resync(Resync { reason }))
    }

    /// Handles the welcome. If the edge already serves the control plane's table, from
    /// wherever it came, the edge recognises it by its digest.
    ///
    /// # Errors
    /// Why the connection has to end.
    pub async fn welcome(&mut self, welcome: &Welcome) -> Result<Option<ToControl>, Ended> {
        self.newest = welcome.generation;
        let held = held(&self.edge);
        let Some(current) = self.edge.current() else {
            return Ok(None);
        };
        let newer = held.is_none_or(|held| held.generation < welcome.generation);
        let same = welcome.digest == Some(current.table.digest());
        if let (true, true, Some(digest)) = (newer, same, welcome.digest) {
            let to = Mark {
                generation: welcome.generation,
                digest,
            };
            return self.push(Push::Delta(Default::default()), to).await;
        }
        if let Some(held) = held {
            if held.generation > welcome.generation {
                log::warn!(
                    target: "cellgate::source",
                    "the control plane has generation {}, this edge {}: the edge serves its \
                     own until there is a newer one",
                    welcome.generation, held.generation
                );
            }
            if same && held.generation == welcome.generation {
                self.edge.in_step();
            }
        }
        Ok(None)
    }

    /// Handles a frame.
    ///
    /// # Errors
    /// Why the connection has to end.
    pub async fn receive(&mut self, frame: Frame) -> Result<Outcome, Ended> {
        let text = match frame {
            Frame::Text(text) => text,
            Frame::Chunk(chunk) => {
                return Ok(Outcome {
                    kind: "chunk",
                    answer: self.chunk(chunk.into()).await?,
                    ..Outcome::default()
                });
            }
        };
        let message = match ToEdge::decode(text.as_bytes(), MAX_FRAME)? {
            Received::Message(message) => message,
            Received::Unknown(kind) => {
                return Ok(Outcome {
                    kind: "unknown",
                    unknown: Some(kind),
                    answer: None,
                });
            }
        };
        let (kind, answer) = match message {
            ToEdge::Welcome(_) => return Err(unexpected("a second welcome")),
            ToEdge::Delta(message) => ("delta", self.delta(message).await?),
            ToEdge::SnapshotBegin(begin) => ("snapshot_begin", self.begin(begin)),
            ToEdge::SnapshotEnd(end) => ("snapshot_end", self.end(end).await?),
            ToEdge::Checkpoint(message) => ("checkpoint", self.checkpoint(message)),
        };
        Ok(Outcome {
            kind,
            unknown: None,
            answer,
        })
    }

    async fn delta(&mut self, message: DeltaMessage) -> Result<Option<ToControl>, Ended> {
        let to = message.mark();
        self.newest = self.newest.max(to.generation);
        if self.receiver.is_some() {
            return Err(unexpected("a delta within a snapshot"));
        }
        match delta(held(&self.edge), message.from, to) {
            Verdict::Apply => self.push(Push::Delta(message.into_delta()), to).await,
            verdict => Ok(self.not_applied(verdict, to)),
        }
    }

    fn begin(&mut self, begin: SnapshotBegin) -> Option<ToControl> {
        let to = begin.mark();
        self.newest = self.newest.max(to.generation);
        self.resyncs.answered();
        self.receiver = None;
        match snapshot(held(&self.edge), to) {
            Verdict::Apply => match SnapshotReceiver::new(begin, self.limits) {
                Ok(receiver) => {
                    self.receiver = Some(receiver);
                    self.received = Instant::now();
                    None
                }
                Err(error) => self.snapshot_failed(error, to),
            },
            verdict => self.not_applied(verdict, to),
        }
    }

    async fn chunk(&mut self, frame: Vec<u8>) -> Result<Option<ToControl>, Ended> {
        if frame.len() > CHUNK_FRAME_BYTES {
            let bytes = frame.len();
            return Err(Ended::Refused(Refusal::new(
                Close::TooLarge,
                format_args!("binary frame of {bytes} bytes (at most {CHUNK_FRAME_BYTES})"),
            )));
        }
        let id = ChunkHeader::split(&frame).map(|(header, _)| header.id);
        let ours = |receiver: &mut SnapshotReceiver| id.is_none_or(|id| id == receiver.begin().id);
        let Some(mut receiver) = self.receiver.take_if(ours) else {
            return Ok(None);
        };
        let to = receiver.begin().mark();
        let added = off_thread(move || receiver.chunk(&frame).map(|()| receiver)).await?;
        match added {
            Ok(receiver) => {
                self.receiver = Some(receiver);
                self.received = Instant::now();
                Ok(None)
            }
            Err(error) => Ok(self.snapshot_failed(error, to)),
        }
    }

    async fn end(&mut self, end: SnapshotEnd) -> Result<Option<ToControl>, Ended> {
        let ours = |receiver: &mut SnapshotReceiver| end.id == receiver.begin().id;
        let Some(receiver) = self.receiver.take_if(ours) else {
            return Ok(None);
        };
        let to = receiver.begin().mark();
        let table = background::run(move || receiver.end(end)).await;
        match table.map_err(failed)? {
            Ok(table) => self.push(Push::Table(table), to).await,
            Err(error) => Ok(self.snapshot_failed(error, to)),
        }
    }

    fn checkpoint(&mut self, message: Checkpoint) -> Option<ToControl> {
        let to = message.mark();
        self.newest = self.newest.max(to.generation);
        if self.receiver.is_some() {
            return None;
        }
        let held = held(&self.edge);
        match checkpoint(held, to, self.refused) {
            Some(reason) => self.request_resync(reason),
            None => {
                if held == Some(to) {
                    self.in_step();
                }
                None
            }
        }
    }

    /// Applies what was pushed. Answers with an ack, a nack or a resync.
    async fn push(&mut self, push: Push, to: Mark) -> Result<Option<ToControl>, Ended> {
        let edge = Arc::clone(&self.edge);
        let now = SystemTime::now();
        let large = push.is_large();
        let push = move || edge.push(push, to.generation, to.digest, now);
        let pushed = match large {
            true => background::run(push).await.map_err(failed)?,
            false => off_thread(push).await?,
        };
        Ok(match pushed {
            Pushed::Changed(generation) => {
                self.refused = None;
                self.resyncs.healed();
                ack(&generation)
            }
            Pushed::Refused(problems) => self.nack(to.generation, problems),
            Pushed::Differs(digest) => self.request_resync(format!(
                "generation {} would have the digest {digest} here and {} there",
                to.generation, to.digest
            )),
        })
    }

    /// What follows from a verdict other than to apply.
    fn not_applied(&mut self, verdict: Verdict, to: Mark) -> Option<ToControl> {
        match verdict {
            Verdict::Known => {
                self.in_step();
                self.edge.current().as_deref().and_then(ack)
            }
            Verdict::Refuse(why) => {
                let problems = vec![Problem::without_place(why)];
                self.edge
                    .refuse_push(to.generation, &problems, SystemTime::now());
                self.nack(to.generation, problems)
            }
            Verdict::Resync(reason) => self.request_resync(reason),
            // The callers handle this one.
            Verdict::Apply => None,
        }
    }

    /// What follows from a snapshot that is not a valid table.
    fn snapshot_failed(&mut self, error: SnapshotError, to: Mark) -> Option<ToControl> {
        match error {
            SnapshotError::Refused(problems) => {
                self.edge
                    .refuse_push(to.generation, &problems, SystemTime::now());
                self.nack(to.generation, problems)
            }
            SnapshotError::Broken(why) => self.request_resync(format!(
                "broken snapshot of generation {}: {why}",
                to.generation
            )),
        }
    }

    fn nack(&mut self, generation: u64, problems: Vec<Problem>) -> Option<ToControl> {
        // The next checkpoint names the newest, so a refused older one does not count.
        self.refused = self.refused.max(Some(generation));
        Some(ToControl::Nack(Nack {
            generation,
            problems,
        }))
    }

    fn request_resync(&mut self, reason: String) -> Option<ToControl> {
        let now = Instant::now();
        self.resyncs.want(reason, now);
        self.resync(now)
    }

    /// The edge has the table that it should have.
    fn in_step(&mut self) {
        self.refused = None;
        self.resyncs.healed();
        self.edge.in_step();
    }
}

/// The served generation, if it came from a control plane.
pub(super) fn held(edge: &EdgeState) -> Option<Mark> {
    edge.current().and_then(|current| mark(&current))
}

fn mark(generation: &Generation) -> Option<Mark> {
    Some(Mark {
        generation: generation.control_generation?,
        digest: generation.table.digest(),
    })
}

fn ack(generation: &Generation) -> Option<ToControl> {
    let Mark { generation, digest } = mark(generation)?;
    Some(ToControl::Ack(Ack { generation, digest }))
}

/// The digest of the served table, wherever it came from.
pub(super) fn digest(edge: &EdgeState) -> Option<Digest> {
    edge.current().map(|current| current.table.digest())
}

fn unexpected(what: &str) -> Ended {
    Ended::Refused(Refusal::new(Close::Protocol, what))
}

/// Runs work that may take a few milliseconds on a thread that may block.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Ended> {
    spawn_blocking(work).await.map_err(failed)
}

pub(super) fn failed(error: JoinError) -> Ended {
    Ended::here(format_args!("applying a table failed: {error}"))
}
