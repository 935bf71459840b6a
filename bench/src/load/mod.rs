//! The load: random keys of the whole table, every answer checked.
//!
//! One thread and one epoll. Closed: each connection sends its next request when
//! the last one is answered. At a rate: requests are due at fixed times, whatever
//! became of those before, and latency counts from when a request was due, so a
//! stall shows in all requests that it kept waiting (no coordinated omission).

mod answer;
mod conn;
mod run;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

pub use run::run;

use crate::table::Table;

/// How connections are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// For all requests.
    Keepalive,
    /// One for each request.
    Never,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// As soon as a connection is free.
    Closed,
    /// So many a second.
    Rate(f64),
}

/// Which cell has to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The one that the table names.
    Routed,
    /// Any; for a proxy that has no table.
    Any,
}

/// A bounded piece of load.
#[derive(Clone, Debug)]
pub struct Spec {
    pub target: SocketAddr,
    pub connections: usize,
    pub reuse: Reuse,
    pub pace: Pace,
    /// Size of the bodies, one of [`crate::cells::SIZES`].
    pub body: usize,
    pub table: Table,
    pub expect: Expect,
    /// Not measured.
    pub warm_up: Duration,
    pub measure: Duration,
    /// Ends sooner when so many requests were sent.
    pub most: u64,
    /// Where random keys start.
    pub seed: u64,
}

/// What was not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// Connections refused or broken with a request under way.
    pub broken: u64,
    /// Answers with another status than 200.
    pub status: u64,
    /// Answers of another cell.
    pub misrouted: u64,
    /// Bodies that were not those of the cell, and answers that are no HTTP.
    pub garbled: u64,
    /// Requests without an answer when the load ended.
    pub unanswered: u64,
    /// The first of them in words.
    pub first: Option<String>,
}

impl Errors {
    pub fn total(&self) -> u64 {
        self.broken + self.status + self.misrouted + self.garbled + self.unanswered
    }
}

/// What a piece of load measured, its warm-up left out. `G` is what the caller
/// looked at when measuring began and ended.
#[derive(Debug)]
pub struct Outcome<G> {
    pub requests: u64,
    pub elapsed: Duration,
    /// In nanoseconds.
    pub latency: hdrhistogram::Histogram<u64>,
    pub errors: Errors,
    pub before: G,
    pub after: G,
}
