//! What follows from each message of `cellgate.v1`: what is served, and what is
//! answered. Knows no socket; the time is given to it.

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

/// The largest frame that this edge takes, in bytes.
pub(super) const MAX_FRAME: usize = TO_EDGE_BYTES;

/// When asking for snapshots did not help so often, an operator has to know.
const LOOPING: u32 = 2;

/// A snapshot of which nothing came for so long is given up. Until then checkpoints
/// are not compared, as it may still bring what they speak of.
const STALLED: Duration = Duration::from_secs(60);

/// One conversation, from the welcome on.
pub(super) struct Session {
    edge: Arc<EdgeState>,
    limits: SnapshotLimits,
    /// What is being received.
    receiver: Option<SnapshotReceiver>,
    /// When the last of it came.
    received: Instant,
    /// What was refused last.
    refused: Option<u64>,
    resyncs: Resyncs,
    /// The newest generation that was spoken of.
    newest: u64,
}

/// What came of a frame.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The `type` of a message, or `chunk`, or `unknown`.
    pub kind: &'static str,
    /// The type, when that is not known.
    pub unknown: Option<String>,
    /// To be sent.
    pub answer: Option<ToControl>,
}

impl Session {
    /// Takes snapshots within `limits`.
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

    /// The newest generation that the control plane has spoken of; 0 for none.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// When [`resync`](Self::resync) may have something to say.
    pub fn resync_due(&self) -> Option<Instant> {
        let stalls = self.receiver.as_ref().map(|_| self.received + STALLED);
        [stalls, self.resyncs.due()].into_iter().flatten().min()
    }

    /// Asks for a snapshot, if one is wanted and it is time. One of which nothing
    /// came for [`STALLED`] is given up, and asked for again.
    pub fn resync(&mut self, now: Instant) -> Option<ToControl> {
        if self.received + STALLED <= now
            && let Some(receiver) = self.receiver.take()
        {
            let reason = format!(
                "nothing of the snapshot of generation {} came for {} s",
                receiver.begin().generation,
                STALLED.as_secs()
            );
            self.resyncs.want(reason, now);
        }
        let reason = self.resyncs.take(now)?;
        match self.resyncs.in_vain() {
            in_vain @ ..LOOPING => log::info!(
                target: "cellgate::source",
                "asking the control plane for the whole table: {reason}{}",
                if in_vain == 0 { "" } else { " (once more)" }
            ),
            in_vain => {
                let message = format!(
                    "asked {in_vain} times for the whole table, and it did not help: {reason}"
                );
                let problems = vec![Problem::without_place(message)];
                self.edge.out_of_step(problems, SystemTime::now());
            }
        }
        Some(ToControl::Resync(Resync { reason }))
    }

    /// The welcome. What is served already is known by its content, wherever it
    /// came from.
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
                    "the control plane has generation {}, this edge {}: it serves what it has \
                     until there is a newer one",
                    welcome.generation, held.generation
                );
            }
            if same && held.generation == welcome.generation {
                self.edge.in_step();
            }
        }
        Ok(None)
    }

    /// Takes a frame.
    ///
    /// # Errors
    ///
    /// How the connection ends.
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
            ToEdge::Welcome(_) => return Err(untimely("a second welcome")),
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
            return Err(untimely("a delta within a snapshot"));
        }
        match delta(held(&self.edge), message.from, to) {
            Verdict::Apply => self.push(Push::Delta(message.into_delta()), to).await,
            verdict => Ok(self.settle(verdict, to)),
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
                Err(error) => self.fail(error, to),
            },
            verdict => self.settle(verdict, to),
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
        let taken = off_thread(move || receiver.chunk(&frame).map(|()| receiver)).await?;
        match taken {
            Ok(receiver) => {
                self.receiver = Some(receiver);
                self.received = Instant::now();
                Ok(None)
            }
            Err(error) => Ok(self.fail(error, to)),
        }
    }

    async fn end(&mut self, end: SnapshotEnd) -> Result<Option<ToControl>, Ended> {
        let ours = |receiver: &mut SnapshotReceiver| end.id == receiver.begin().id;
        let Some(receiver) = self.receiver.take_if(ours) else {
            return Ok(None);
        };
        let to = receiver.begin().mark();
        let table = background::run(move || receiver.end(end)).await;
        match table.map_err(broke_off)? {
            Ok(table) => self.push(Push::Table(table), to).await,
            Err(error) => Ok(self.fail(error, to)),
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
            Some(reason) => self.want(reason),
            None => {
                if held == Some(to) {
                    self.healthy();
                }
                None
            }
        }
    }

    /// Serves it, or says why not.
    async fn push(&mut self, push: Push, to: Mark) -> Result<Option<ToControl>, Ended> {
        let edge = Arc::clone(&self.edge);
        let now = SystemTime::now();
        let large = push.is_large();
        let push = move || edge.push(push, to.generation, to.digest, now);
        let pushed = match large {
            true => background::run(push).await.map_err(broke_off)?,
            false => off_thread(push).await?,
        };
        Ok(match pushed {
            Pushed::Changed(generation) => {
                self.refused = None;
                self.resyncs.healed();
                ack(&generation)
            }
            Pushed::Refused(problems) => self.nack(to.generation, problems),
            Pushed::Differs(digest) => self.want(format!(
                "generation {} would have the digest {digest} here and {} there",
                to.generation, to.digest
            )),
        })
    }

    /// What follows from what is not applied.
    fn settle(&mut self, verdict: Verdict, to: Mark) -> Option<ToControl> {
        match verdict {
            Verdict::Known => {
                self.healthy();
                self.edge.current().as_deref().and_then(ack)
            }
            Verdict::Refuse(why) => {
                let problems = vec![Problem::without_place(why)];
                self.edge
                    .refuse_push(to.generation, &problems, SystemTime::now());
                self.nack(to.generation, problems)
            }
            Verdict::Resync(reason) => self.want(reason),
            // Whoever asks for the verdict sees to this one.
            Verdict::Apply => None,
        }
    }

    /// What follows from a snapshot that is no table.
    fn fail(&mut self, error: SnapshotError, to: Mark) -> Option<ToControl> {
        match error {
            SnapshotError::Refused(problems) => {
                self.edge
                    .refuse_push(to.generation, &problems, SystemTime::now());
                self.nack(to.generation, problems)
            }
            SnapshotError::Broken(why) => self.want(format!(
                "broken snapshot of generation {}: {why}",
                to.generation
            )),
        }
    }

    fn nack(&mut self, generation: u64, problems: Vec<Problem>) -> Option<ToControl> {
        // An older one that comes late is not what the next checkpoint is about.
        self.refused = self.refused.max(Some(generation));
        Some(ToControl::Nack(Nack {
            generation,
            problems,
        }))
    }

    fn want(&mut self, reason: String) -> Option<ToControl> {
        let now = Instant::now();
        self.resyncs.want(reason, now);
        self.resync(now)
    }

    /// What is here is what should be.
    fn healthy(&mut self) {
        self.refused = None;
        self.resyncs.healed();
        self.edge.in_step();
    }
}

/// What is served and came from a control plane.
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

/// The digest of what is served, wherever it came from.
pub(super) fn digest(edge: &EdgeState) -> Option<Digest> {
    edge.current().map(|current| current.table.digest())
}

fn untimely(what: &str) -> Ended {
    Ended::Refused(Refusal::new(Close::Protocol, what))
}

/// Does what may take a while where nobody waits for the thread.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Ended> {
    spawn_blocking(work).await.map_err(broke_off)
}

pub(super) fn broke_off(error: JoinError) -> Ended {
    Ended::here(format_args!("applying broke off: {error}"))
}

/// How soon what is wanted may be asked for, as a pause from `now`.
pub(super) fn until(due: Option<Instant>, now: Instant) -> Option<Duration> {
    due.map(|due| due.saturating_duration_since(now))
}
