//! The status messages that an edge sends to its control plane.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::protocol::limits::STATUS_EVERY;
use crate::protocol::{LastError, Load, Status};
use crate::state::{ConfigStatus, EdgeState, Generation};
use crate::telemetry::time::rfc3339;
use crate::upstream::Traffic;

/// The least time between a status and the next one that a change causes: hundreds of
/// changes may come in a second.
const PAUSE: Duration = Duration::from_secs(1);

/// When a status is due: one with rates every [`STATUS_EVERY`], and one without soon
/// after a change. A pure state machine: the time is passed in.
pub(super) struct Statuses {
    /// The next one with rates. Changes do not move it: a change reaches all edges at
    /// once, and would make all of them send at the same time from then on.
    full: Instant,
    change: Option<Instant>,
    last: Option<Instant>,
}

impl Statuses {
    /// The first one is due at once, and the first one with rates after the fraction
    /// `phase` of the interval. `phase` is random, from 0 to 1.
    pub fn new(now: Instant, phase: f64) -> Self {
        Self {
            full: now + STATUS_EVERY.mul_f64(phase.clamp(0.0, 1.0)),
            change: Some(now),
            last: None,
        }
    }

    /// The table changed.
    pub fn changed(&mut self, now: Instant) {
        let earliest = self.last.map_or(now, |last| last + PAUSE);
        self.change.get_or_insert(earliest.max(now));
    }

    /// When the next status is due.
    pub fn due(&self) -> Instant {
        self.change
            .map_or(self.full, |change| change.min(self.full))
    }

    /// A status is sent now. Returns whether it has rates.
    pub fn sent(&mut self, now: Instant) -> bool {
        self.change = None;
        self.last = Some(now);
        let full = self.full <= now;
        while self.full <= now {
            self.full += STATUS_EVERY;
        }
        full
    }
}

/// The rates of placements, each over the time since the last call of [`look`](Self::look).
pub(super) struct Loads {
    at: Instant,
    /// The counters of every placement that has served a request.
    last: HashMap<String, Traffic>,
}

impl Loads {
    /// Starts to count.
    pub fn new(edge: &EdgeState, now: Instant) -> Self {
        let mut loads = Self {
            at: now,
            last: HashMap::new(),
        };
        if let Some(current) = edge.current() {
            loads.look(&current, now);
        }
        loads
    }

    /// The load of each placement since the last call, without idle ones. The message
    /// keeps only the busiest of very many.
    pub fn look(&mut self, generation: &Generation, now: Instant) -> BTreeMap<String, Load> {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        let mut loads = BTreeMap::new();
        let mut seen = HashMap::new();
        for (name, traffic) in generation.placements.traffic() {
            let known = self.last.get(name);
            let rate = |now: u64, was: fn(&Traffic) -> u64| {
                // A placement that was removed meanwhile starts at 0 again.
                let more = now.saturating_sub(known.map_or(0, was));
                per_second(more, seconds)
            };
            let load = Load {
                requests_per_second: rate(traffic.requests, |was| was.requests),
                errors_per_second: rate(traffic.errors, |was| was.errors),
                in_flight: traffic.in_flight as u64,
            };
            if load.requests_per_second > 0.0 || load.in_flight > 0 {
                loads.insert(name.to_owned(), load);
            }
            if traffic.requests > 0 {
                seen.insert(name.to_owned(), traffic);
            }
        }
        self.at = now;
        self.last = seen;
        loads
    }
}

/// Rounded to three decimals: more would be noise.
fn per_second(count: u64, seconds: f64) -> f64 {
    match seconds > 0.0 {
        true => (count as f64 / seconds * 1000.0).round() / 1000.0,
        false => 0.0,
    }
}

/// The present status, with the rates of placements if `loads` is given. `stale` is
/// how long the edge had no control plane before this connection.
pub(super) fn status(
    edge: &EdgeState,
    loads: Option<&mut Loads>,
    stale: Duration,
    now: Instant,
) -> Status {
    let current = edge.current();
    let ConfigStatus {
        source, last_error, ..
    } = edge.status();
    let current = current.as_deref();
    Status {
        generation: current
            .and_then(|current| current.control_generation)
            .unwrap_or_default(),
        digest: current.map(|current| current.table.digest()),
        serving_since: current.map(|current| rfc3339(current.applied_at)),
        source: source.map(|source| source.as_str().to_owned()),
        stale_seconds: stale.as_secs(),
        last_error: last_error.map(|error| LastError {
            at: rfc3339(error.at),
            problems: error.problems,
        }),
        placements: loads.map(|loads| match current {
            Some(current) => loads.look(current, now),
            None => BTreeMap::new(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_keep_their_phase_whatever_changes() {
        let start = Instant::now();
        let at = |tenths: u64| start + Duration::from_millis(100 * tenths);
        let mut statuses = Statuses::new(start, 0.25);
        assert_eq!(statuses.due(), at(0), "one at the start");
        assert!(!statuses.sent(at(0)));
        assert_eq!(statuses.due(), at(25));
        assert!(statuses.sent(at(25)));
        assert_eq!(statuses.due(), at(125));
        // Many changes cause one status, not too soon after the last.
        for tenth in 30..34 {
            statuses.changed(at(tenth));
            assert_eq!(statuses.due(), at(35));
        }
        assert!(!statuses.sent(at(35)));
        assert_eq!(statuses.due(), at(125));
        statuses.changed(at(100));
        assert_eq!(statuses.due(), at(100));
        // A late one has rates, and does not move the next.
        assert!(statuses.sent(at(130)));
        assert_eq!(statuses.due(), at(225));
        assert!(statuses.sent(at(500)));
        assert_eq!(statuses.due(), at(525));
    }
}
