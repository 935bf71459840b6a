//! The health of one backend, from the outcomes of its probes.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::table::HealthCheck;

/// The health of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Not decided yet. It takes requests, so that a new backend need not wait for its
    /// first probe.
    Unprobed,
    /// Its probes succeed.
    Healthy,
    /// Its probes fail. It takes no requests.
    Unhealthy,
}

impl Health {
    /// All values; `self as usize` is the index.
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

/// The health of one backend. The settings are passed with each outcome and may differ from
/// those of the last one.
#[derive(Debug)]
pub struct HealthState {
    status: Health,
    /// None if unprobed.
    since: Option<Instant>,
    /// Successive probes that contradict `status`; while unprobed, successive failures.
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

    /// Records the outcome of one probe. Returns the new status if it changed.
    ///
    /// One successful probe makes an unprobed backend healthy. All other changes take as
    /// many successive probes as the settings say.
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

    /// The status.
    pub fn status(&self) -> Health {
        self.status
    }

    /// When the status began; none while unprobed.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Whether it may get requests: unless it is unhealthy.
    pub fn usable(&self) -> bool {
        self.status != Health::Unhealthy
    }

    /// Resets it to unprobed, when it is no longer probed.
    pub fn reset(&mut self) {
        *self = Self::new();
    }
}

impl Default for HealthState {
    fn default() -> Self {
        Self::new()
    }
}

/// The time to the next probe: `interval` ± 10 %, by `draw` in 0..1, so that probes that
/// began together spread out. A draw out of range counts as 0.5.
pub fn jittered(interval: Duration, draw: f64) -> Duration {
    let draw = if (0.0..=1.0).contains(&draw) {
        draw
    } else {
        0.5
    };
    let seconds = interval.as_secs_f64() * (0.9 + 0.2 * draw);
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}
