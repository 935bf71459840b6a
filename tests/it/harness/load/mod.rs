//! Load: keep-alive clients that check every answer.

mod schedule;
mod tally;
mod tests;
mod user;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

pub use tally::{Failure, Tally};

use super::DEADLINE;
use schedule::{Pacer, Schedule};
use user::User;

/// What the clients send and which responses they accept.
#[derive(Clone)]
pub struct Plan {
    pub proxy: SocketAddr,
    /// The number of clients, each with one connection at a time.
    pub clients: usize,
    /// Keys, each with the placements that some valid table names for it, fallbacks included. A cell named
    /// `tier1/b` counts as an endpoint of placement `tier1`.
    pub keys: Vec<(String, Vec<String>)>,
    /// Stops a client, without counting a failure, once its connection is refused: for an edge that is
    /// shutting down.
    pub until_refused: bool,
    /// Which failures the test itself causes. They are counted separately.
    pub expect: fn(&Failure) -> bool,
    /// The group that a key's latencies are counted in.
    pub group: fn(&str) -> &str,
    /// `None`: each client sends its next request when the previous one was answered.
    pub pace: Option<Pace>,
}

/// A fixed rate that does not drop when responses are slow: requests fall due by the clock, and latency
/// counts from then, so that it includes the time that a request waited for a free client.
///
/// A client that waits for a response sends nothing else. Keys that are expected to hang need a load of their
/// own, or they raise the latencies of the others.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Requests per second of all clients together.
    pub per_second: f64,
    /// The total number of requests.
    pub requests: usize,
}

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: JoinSet<Tally>,
    pacer: Option<Arc<Pacer>>,
}

impl Plan {
    /// Clients that expect no failure and send as fast as they get responses.
    pub fn new(proxy: SocketAddr, clients: usize, keys: Vec<(String, Vec<String>)>) -> Plan {
        Plan {
            proxy,
            clients,
            keys,
            until_refused: false,
            expect: |_| false,
            group: |_| "all",
            pace: None,
        }
    }
}

impl Pace {
    fn lasts(&self) -> Duration {
        Duration::from_secs_f64(self.requests as f64 / self.per_second)
    }
}

impl Load {
    pub fn start(plan: &Plan) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let (plan, began) = (Arc::new(plan.clone()), Instant::now());
        let pacer = plan
            .pace
            .map(|pace| Arc::new(Pacer::start(pace, began, stop.clone())));
        let mut clients = JoinSet::new();
        for number in 0..plan.clients {
            let schedule = match &pacer {
                Some(pacer) => Schedule::Paced(pacer.clone()),
                None => Schedule::AtOnce {
                    stop: stop.clone(),
                    next: number + 1,
                },
            };
            let user = User::new(plan.clone(), began, done.clone());
            clients.spawn(user.run(schedule));
        }
        Load {
            stop,
            done,
            clients,
            pacer,
        }
    }

    /// Requests that succeeded or failed as expected, so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until `more` further requests are done.
    pub async fn progress(&self, more: u64) {
        let target = self.done() + more;
        let what = format!("{more} more answers under load");
        super::eventually(&what, async || (self.done() >= target).then_some(())).await;
    }

    /// Lets the clients finish the requests that have begun or are due, and returns the sum of their tallies.
    pub async fn finish(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.join().await
    }

    /// Waits until the clients end by themselves (see [`Plan::until_refused`] and [`Plan::pace`]).
    pub async fn join(mut self) -> Tally {
        let mut sum = Tally::default();
        while let Some(tally) = self.next_ended().await {
            sum.add(tally);
        }
        self.stop.store(true, Ordering::Relaxed);
        if let Some(pacer) = &self.pacer {
            sum.unsent += pacer.unsent().await;
        }
        sum
    }

    async fn next_ended(&mut self) -> Option<Tally> {
        let pacing = self.pacer.as_ref().map(|pacer| pacer.time_left());
        let patience = DEADLINE + pacing.unwrap_or_default();
        match tokio::time::timeout(patience, self.clients.join_next()).await {
            Ok(ended) => ended.map(|tally| tally.expect("a client does not panic")),
            Err(_) => panic!("a client has not ended within {patience:?}"),
        }
    }
}
