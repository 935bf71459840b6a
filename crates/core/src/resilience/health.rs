//! The health of one endpoint, as its probes tell it.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::table::HealthCheck;

/// What an endpoint's probes say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Not enough yet. It takes requests: a new endpoint need not wait for its
    /// first probe.
    Unprobed,
    /// It works.
    Healthy,
    /// It does not, and takes no requests.
    Unhealthy,
}

impl Health {
    /// Every one, in the order of their declaration (`self as usize` is the
    /// index), so that metrics can hold one counter for each.
    pub const ALL: [Health; 3] = [Self::Unprobed, Self::Healthy, Self::Unhealthy];

    /// `unprobed`, `healthy` or `unhealthy`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unprobed => "unprobed",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// The health of one endpoint. Its settings come with each probe's outcome and
/// may differ from those of the last one.
#[derive(Debug)]
pub struct HealthState {
    status: Health,
    /// None: unprobed.
    since: Option<Instant>,
    /// Probes in a row that speak against `status`; of one that is unprobed,
    /// those that failed.
    against: u32,
}

impl HealthState {
    /// An unprobed one.
    pub const fn new() -> Self {
        Self {
            status: Health::Unprobed,
            since: None,
            against: 0,
        }
    }

    /// Takes in the outcome of one probe. Returns the new status if it changed.
    ///
    /// One good probe makes an unprobed endpoint healthy. All other changes take
    /// as many probes in a row as the settings say.
    pub fn observe(&mut self, well: bool, settings: &HealthCheck, now: Instant) -> Option<Health> {
        let (next, threshold) = match (self.status, well) {
            (Health::Healthy, true) | (Health::Unhealthy, false) => {
                self.against = 0;
                return None;
            }
            (Health::Unprobed, true) => (Health::Healthy, 1),
            (Health::Unhealthy, true) => (Health::Healthy, settings.healthy_threshold),
            (Health::Unprobed | Health::Healthy, false) => {
                (Health::Unhealthy, settings.unhealthy_threshold)
            }
        };
        self.against = self.against.saturating_add(1);
        if self.against < threshold {
            return None;
        }
        *self = Self {
            status: next,
            since: Some(now),
            against: 0,
        };
        Some(next)
    }

    /// What the probes so far say.
    pub fn status(&self) -> Health {
        self.status
    }

    /// Since when it has been in its status; none while unprobed.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Whether it may get requests: all but the unhealthy.
    pub fn usable(&self) -> bool {
        self.status != Health::Unhealthy
    }

    /// Forgets all probes, as when it is no longer probed.
    pub fn reset(&mut self) {
        *self = Self::new();
    }
}

impl Default for HealthState {
    fn default() -> Self {
        Self::new()
    }
}

/// The time to the next probe: `interval` give or take a tenth, as `draw` in
/// 0..1 has it, so that probes that began together spread out. A draw that is
/// out of range counts as one half.
pub fn jittered(interval: Duration, draw: f64) -> Duration {
    let draw = if (0.0..=1.0).contains(&draw) {
        draw
    } else {
        0.5
    };
    let seconds = interval.as_secs_f64() * (0.9 + 0.2 * draw);
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}
