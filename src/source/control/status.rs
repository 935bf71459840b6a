//! What an edge tells its control plane of itself.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::live::{ConfigStatus, Generation, Live, Traffic};
use crate::protocol::{LastError, Load, Status};
use crate::telemetry::time::rfc3339;

/// Rates are those between two looks.
pub(super) struct Loads {
    at: Instant,
    /// Of every placement that was ever used.
    last: HashMap<String, Traffic>,
}

impl Loads {
    /// Begins to count.
    pub fn new(live: &Live, now: Instant) -> Self {
        let mut loads = Self {
            at: now,
            last: HashMap::new(),
        };
        if let Some(current) = live.current() {
            loads.look(&current, now);
        }
        loads
    }

    /// What each placement did since the last look. Those that did nothing are left
    /// out; of very many, the message keeps the busiest.
    pub fn look(&mut self, generation: &Generation, now: Instant) -> BTreeMap<String, Load> {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        let mut loads = BTreeMap::new();
        let mut seen = HashMap::new();
        for (name, traffic) in generation.traffic() {
            let known = self.last.get(name);
            let rate = |now: u64, was: fn(&Traffic) -> u64| {
                // One that was forgotten meanwhile begins again at 0.
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

/// With three decimals: more would only be noise.
fn per_second(count: u64, seconds: f64) -> f64 {
    match seconds > 0.0 {
        true => (count as f64 / seconds * 1000.0).round() / 1000.0,
        false => 0.0,
    }
}

/// The status as it is now. The edge had been without a control plane for `stale`
/// when the connection began.
pub(super) fn status(live: &Live, loads: &mut Loads, stale: Duration, now: Instant) -> Status {
    let current = live.current();
    let ConfigStatus {
        source, last_error, ..
    } = live.status();
    let placements = current.as_deref();
    Status {
        generation: placements
            .and_then(|current| current.control_generation)
            .unwrap_or_default(),
        digest: placements.map(|current| current.table.digest()),
        serving_since: placements.map(|current| rfc3339(current.applied_at)),
        source: source.map(|source| source.as_str().to_owned()),
        stale_seconds: stale.as_secs(),
        last_error: last_error.map(|error| LastError {
            at: rfc3339(error.at),
            problems: error.problems,
        }),
        placements: placements
            .map(|current| loads.look(current, now))
            .unwrap_or_default(),
    }
}
