//! Time as atomics can hold it.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Fixes the start; what came before it counts as it.
pub(crate) fn start() {
    LazyLock::force(&START);
}

/// `now` as the time since a fixed moment near the start of the process.
pub fn uptime(now: Instant) -> Duration {
    now.saturating_duration_since(*START)
}

/// The wall clock's time at `then`, as far as it was not set since.
pub fn wall(then: Instant) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(then.elapsed()).unwrap_or(now)
}
