//! What is known of one edge.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use serde::Serialize;

use super::Arrival;
use super::view::{EdgeView, NackView, StatusView};
use crate::protocol::{Load, Mark, Status};
use crate::table::{Digest, Problem};
use crate::telemetry::time::rfc3339_millis;

/// Placements of a status that are kept: the busiest. An operator looks at a few;
/// metrics have them all.
const PLACEMENTS: usize = 100;

/// Problems of a nack or a status that are kept, and the bytes of each one's
/// pointer and message. The edge has all of them.
const PROBLEMS: usize = 10;
const PROBLEM_BYTES: usize = 1024;

#[derive(Clone)]
pub(super) struct Known {
    arrival: Arrival,
    connected_at: SystemTime,
    /// When it left, and why.
    left: Option<(SystemTime, Box<str>)>,
    last_ack: Option<SystemTime>,
    last_nack: Option<Box<NackView>>,
    status: Option<Box<StatusView>>,
    /// Since when it is not known to have the newest generation.
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

    /// Whether it has the newest generation. An edge of M3 says no digest.
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
            // It says nothing of them, so what was said last still stands.
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
        // What it was doing says nothing any more, and there may be many of these.
        if let Some(status) = &mut self.status {
            status.placements.clear();
        }
    }

    /// About how many bytes it takes.
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
        size_of::<Self>() + texts.iter().sum::<usize>() + labels.sum::<usize>() + why + self.told()
    }

    /// About how many of these are what the edge said of problems, and of itself.
    fn told(&self) -> usize {
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

    /// Forgets that.
    pub fn forget_told(&mut self) {
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

/// The busiest of `placements`, and how many there were more.
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

/// The first of `problems`, none longer than an operator reads.
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
        let more = format!("and {left_out} more, which the edge has");
        problems.push(Problem::without_place(more));
    }
    problems
}
