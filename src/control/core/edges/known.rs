//! What is known of one edge, and how operators see it.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use serde::Serialize;

use super::Arrival;
use crate::protocol::{LastError, Load, Mark, Status};
use crate::table::{Digest, Problem};
use crate::telemetry::time::rfc3339_millis;

/// How many placements of a status are kept: the busiest ones. The metrics of the edge
/// have all of them.
const PLACEMENTS: usize = 100;

/// How many problems of a nack or a status are kept, and how many bytes of each
/// pointer and message. The edge has all of them.
const PROBLEMS: usize = 10;
const PROBLEM_BYTES: usize = 1024;

#[derive(Clone)]
pub(super) struct Known {
    arrival: Arrival,
    connected_at: SystemTime,
    /// When it disconnected, and why.
    left: Option<(SystemTime, Box<str>)>,
    last_ack: Option<SystemTime>,
    last_nack: Option<Box<NackView>>,
    status: Option<Box<StatusView>>,
    /// Since when it has not been known to have the newest generation.
    behind: Option<Instant>,
    pub sent: Sent,
}

/// What an edge was sent on this connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Sent {
    pub deltas: u64,
    /// Whole documents, for an edge that speaks M3.
    pub snapshots: u64,
    /// As WebSocket frames, in bytes.
    pub bytes: u64,
}

impl Known {
    pub fn new(arrival: Arrival, newest: Option<Mark>) -> Self {
        let mut known = Self {
            arrival,
            connected_at: SystemTime::now(),
            left: None,
            last_ack: None,
            last_nack: None,
            status: None,
            behind: None,
            sent: Sent::default(),
        };
        if !known.in_sync(newest) {
            known.behind();
        }
        known
    }

    /// Whether it has the newest generation. An edge that speaks M3 reports no digest.
    pub fn in_sync(&self, newest: Option<Mark>) -> bool {
        let Arrival {
            generation, digest, ..
        } = self.arrival;
        newest.is_none_or(|newest| {
            generation == newest.generation && digest.is_none_or(|digest| digest == newest.digest)
        })
    }

    pub fn behind(&mut self) {
        self.behind.get_or_insert_with(Instant::now);
    }

    pub fn acked(&mut self, generation: u64, digest: Option<Digest>, newest: Option<Mark>) {
        self.arrival.generation = generation;
        self.arrival.digest = digest;
        self.last_ack = Some(SystemTime::now());
        if self.in_sync(newest) {
            self.behind = None;
        }
    }

    pub fn nacked(&mut self, generation: u64, problems: Vec<Problem>, at: SystemTime) {
        self.last_nack = Some(Box::new(NackView {
            generation,
            at: rfc3339_millis(at),
            problems: bounded(problems),
        }));
    }

    pub fn status(&mut self, status: Status) {
        let Status {
            generation,
            digest: _,
            serving_since,
            source,
            stale_seconds,
            mut last_error,
            placements,
        } = status;
        if let Some(error) = &mut last_error {
            error.problems = bounded(std::mem::take(&mut error.problems));
        }
        let before = self.status.take();
        let (placements, placements_left_out) = match (placements, before) {
            (Some(placements), _) => busiest(placements),
            // It did not change since the last status.
            (None, Some(before)) => (before.placements, before.placements_left_out),
            (None, None) => Default::default(),
        };
        self.status = Some(Box::new(StatusView {
            at: rfc3339_millis(SystemTime::now()),
            generation,
            serving_since,
            source,
            stale_seconds,
            last_error,
            placements,
            placements_left_out,
        }));
    }

    pub fn leave(&mut self, why: &str, newest: Option<Mark>) {
        self.left = Some((SystemTime::now(), why.into()));
        if self.in_sync(newest) {
            self.behind = None;
        }
        self.behind();
        // Its load is of no interest any more, and there may be many such edges.
        if let Some(status) = &mut self.status {
            status.placements.clear();
        }
    }

    /// Its memory in bytes, estimated.
    pub fn bytes(&self) -> usize {
        let Arrival {
            edge_id,
            instance,
            peer,
            version,
            labels,
            ..
        } = &self.arrival;
        let labels = labels
            .iter()
            .map(|(name, value)| 48 + name.len() + value.len());
        let texts = [edge_id, instance, peer, version].map(String::len);
        let why = self.left.as_ref().map_or(0, |(_, why)| why.len());
        size_of::<Self>()
            + texts.iter().sum::<usize>()
            + labels.sum::<usize>()
            + why
            + self.report_bytes()
    }

    /// The part of it that [`forget_reports`](Self::forget_reports) frees.
    fn report_bytes(&self) -> usize {
        let problem = |problem: &Problem| {
            size_of::<Problem>() + problem.pointer.len() + problem.message.len()
        };
        let nack = self.last_nack.as_deref();
        let nack = nack.map_or(0, |nack| nack.problems.iter().map(problem).sum());
        let status = self.status.as_deref().map_or(0, |status| {
            let error = status.last_error.iter().flat_map(|error| &error.problems);
            size_of::<StatusView>() + error.map(problem).sum::<usize>()
        });
        nack + status
    }

    /// Drops the status, and the problems of the last nack.
    pub fn forget_reports(&mut self) {
        if let Some(nack) = &mut self.last_nack {
            nack.problems = Vec::new();
        }
        self.status = None;
    }

    pub fn view(&self, newest: Option<Mark>) -> EdgeView {
        let Arrival {
            edge_id,
            instance,
            peer,
            dialect,
            version,
            labels,
            generation,
            digest,
        } = self.arrival.clone();
        let in_sync = self.in_sync(newest);
        let connected = self.left.is_none();
        let stale = self
            .behind
            .filter(|_| !(in_sync && connected))
            .map_or(0, |since| since.elapsed().as_secs());
        let (disconnected_at, why) = match self.left.clone() {
            Some((at, why)) => (Some(rfc3339_millis(at)), Some(why.into())),
            None => (None, None),
        };
        EdgeView {
            edge_id,
            instance,
            connected,
            peer,
            dialect: dialect.as_str(),
            version,
            labels,
            connected_at: rfc3339_millis(self.connected_at),
            disconnected_at,
            why,
            generation,
            digest,
            in_sync,
            stale_seconds: stale,
            last_ack_at: self.last_ack.map(rfc3339_millis),
            last_nack: self.last_nack.as_deref().cloned(),
            status: self.status.as_deref().cloned(),
            sent: self.sent,
        }
    }
}

/// The busiest of `placements`, and how many were left out.
fn busiest(placements: BTreeMap<String, Load>) -> (BTreeMap<String, Load>, usize) {
    let mut all: Vec<_> = placements.into_iter().collect();
    all.sort_by(|(_, one), (_, other)| {
        let rate = other
            .requests_per_second
            .total_cmp(&one.requests_per_second);
        rate.then(other.in_flight.cmp(&one.in_flight))
    });
    let left_out = all.len().saturating_sub(PLACEMENTS);
    all.truncate(PLACEMENTS);
    (all.into_iter().collect(), left_out)
}

/// The first of `problems`, with long texts truncated.
fn bounded(mut problems: Vec<Problem>) -> Vec<Problem> {
    let left_out = problems.len().saturating_sub(PROBLEMS);
    problems.truncate(PROBLEMS);
    for problem in &mut problems {
        for text in [&mut problem.pointer, &mut problem.message] {
            if text.len() > PROBLEM_BYTES {
                let mut end = PROBLEM_BYTES;
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                text.truncate(end);
                text.push('…');
            }
            text.shrink_to_fit();
        }
    }
    if left_out > 0 {
        let more = format!("and {left_out} more, which the edge logs");
        problems.push(Problem::without_place(more));
    }
    problems
}

/// What is known of an edge. Times are RFC 3339. What the edge reports of itself is
/// untrusted.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = Edge)]
pub struct EdgeView {
    /// Its name. An edge that speaks M3 has none, and is listed as `m3@` and its address.
    pub edge_id: String,
    /// The id of its process; empty for an edge that speaks M3.
    pub instance: String,
    pub connected: bool,
    /// Its address, or that of a proxy before it.
    pub peer: String,
    /// `cellgate.v1` or `m3`.
    #[schema(pattern = r"^(cellgate\.v1|m3)$")]
    pub dialect: &'static str,
    /// The version of the program; empty for an edge that speaks M3.
    pub version: String,
    pub labels: BTreeMap<String, String>,
    #[schema(format = DateTime)]
    pub connected_at: String,
    #[schema(required, format = DateTime)]
    pub disconnected_at: Option<String>,
    /// Why it disconnected.
    #[schema(required)]
    pub why: Option<String>,
    /// The generation that it serves; 0 if its table is not from a control plane.
    pub generation: u64,
    /// The digest of the table that it serves; unknown for an edge that speaks M3.
    #[schema(required)]
    pub digest: Option<Digest>,
    /// Whether that is the newest generation. For a disconnected edge: whether it is if the
    /// edge still serves the same table.
    pub in_sync: bool,
    /// For how long it has not been known to have the newest generation.
    pub stale_seconds: u64,
    #[schema(required, format = DateTime)]
    pub last_ack_at: Option<String>,
    /// The last generation that it refused on this connection.
    #[schema(required)]
    pub last_nack: Option<NackView>,
    /// The last status that it sent.
    #[schema(required)]
    pub status: Option<StatusView>,
    /// What it was sent on this connection.
    pub sent: Sent,
}

/// A generation that an edge refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = Nack)]
pub struct NackView {
    pub generation: u64,
    #[schema(format = DateTime)]
    pub at: String,
    /// The first ten.
    pub problems: Vec<Problem>,
}

/// A status, shortened.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = EdgeStatus)]
pub struct StatusView {
    /// When it was received.
    #[schema(format = DateTime)]
    pub at: String,
    pub generation: u64,
    #[schema(required)]
    pub serving_since: Option<String>,
    /// `file`, `control_plane`, or another value of a later version.
    #[schema(required)]
    pub source: Option<String>,
    /// How long it had been without a control plane when it connected.
    pub stale_seconds: u64,
    /// With at most ten problems.
    #[schema(required)]
    pub last_error: Option<LastError>,
    /// The hundred busiest ones; empty for a disconnected edge.
    pub placements: BTreeMap<String, Load>,
    /// How many placements were left out.
    pub placements_left_out: usize,
}
