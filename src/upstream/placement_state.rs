//! The state of a placement that outlives generations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use tokio::sync::{Notify, watch};

use crate::resilience::RetryBudget;
use crate::telemetry::metrics::PlacementMetrics;

/// The state of one placement, shared by the generations that name it. So a concurrency
/// limit that a reload lowers counts the requests that are already in flight.
pub struct PlacementState {
    pub name: String,
    pub metrics: PlacementMetrics,
    /// Every request writes this. It has cache lines of its own: every request reads
    /// `changes`.
    counts: CachePadded<Counts>,
    /// The number of changes of the endpoints' addresses.
    changes: AtomicU64,
    /// Notified on each of them.
    changed: Notify,
    /// Notified as well; shared by all placements.
    any_changed: watch::Sender<()>,
}

#[derive(Default)]
struct Counts {
    in_flight: AtomicUsize,
    budget: RetryBudget,
    /// The round-robin counter; wraps.
    turn: AtomicU64,
}

impl PlacementState {
    pub(crate) fn new(
        name: &str,
        metrics: PlacementMetrics,
        any_changed: watch::Sender<()>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            metrics,
            counts: CachePadded::default(),
            changes: AtomicU64::new(0),
            changed: Notify::new(),
            any_changed,
        }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.counts.in_flight.load(Ordering::Relaxed)
    }

    /// Takes a slot for a request, unless `limit` of them are taken.
    pub(crate) fn enter(self: &Arc<Self>, limit: Option<u32>) -> Option<Slot> {
        match limit {
            None => {
                self.counts.in_flight.fetch_add(1, Ordering::Relaxed);
            }
            Some(limit) => {
                let next = |taken: usize| (taken < limit as usize).then_some(taken + 1);
                self.counts
                    .in_flight
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
                    .ok()?;
            }
        }
        Some(Slot(Arc::clone(self)))
    }

    /// Counts a request towards the retry budget.
    pub(crate) fn may_retry(&self, uptime: Duration) {
        self.counts.budget.request(uptime);
    }

    /// Takes a retry from the budget; false if there is none.
    pub fn try_retry(&self, uptime: Duration) -> bool {
        self.counts.budget.try_retry(uptime)
    }

    pub(crate) fn next_turn(&self) -> u64 {
        self.counts.turn.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn turn(&self) -> u64 {
        self.counts.turn.load(Ordering::Relaxed)
    }

    pub(crate) fn addresses_changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
        self.changed.notify_waiters();
        self.any_changed.send_replace(());
    }

    /// Returns when `enough` is true; checks it on every change of an endpoint's addresses.
    pub(crate) async fn addresses_until(&self, enough: impl Fn() -> bool) {
        loop {
            // Registered before the check, so that a change in between is not missed.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if enough() {
                return;
            }
            changed.await;
        }
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}

impl std::fmt::Debug for PlacementState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlacementState")
            .field("name", &self.name)
            .field("in_flight", &self.counts.in_flight)
            .finish_non_exhaustive()
    }
}

/// The slot of a request at a placement; given back when dropped, also after a panic.
#[derive(Debug)]
pub struct Slot(Arc<PlacementState>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.counts.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn a_limit_counts_what_is_in_flight_already() {
        let state = Arc::new(PlacementState::new(
            "tier1",
            Metrics::new().placement("tier1"),
            watch::Sender::new(()),
        ));
        let unlimited: Vec<_> = (0..3).map(|_| state.enter(None)).collect();
        assert!(unlimited.iter().all(Option::is_some));
        assert!(
            state.enter(Some(3)).is_none(),
            "lowered below what is there"
        );
        assert_eq!(state.in_flight(), 3, "a refusal keeps no place");
        let fourth = state.enter(Some(4));
        assert!(fourth.is_some());
        assert!(state.enter(Some(4)).is_none());
        drop(fourth);
        drop(unlimited);
        assert_eq!(state.in_flight(), 0);
    }
}
