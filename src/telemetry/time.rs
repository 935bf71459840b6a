//! Points in time as RFC 3339 in UTC, the only form in which Cellgate writes
//! them. Times before 1970 are written as 1970-01-01T00:00:00, and times after
//! 9999 as its last millisecond.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

/// RFC 3339 has four digits for the year.
const LAST: Duration = Duration::from_millis(253_402_300_799_999);

/// `2026-11-23T23:00:00Z`: whole seconds, rounded down.
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(clamp(time)).to_string()
}

/// `2026-11-23T23:00:00.123Z`: milliseconds, rounded down.
pub fn rfc3339_millis(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(clamp(time)).to_string()
}

/// Appends [`rfc3339_millis`] to `out` without an allocation of its own.
pub fn write_millis(out: &mut Vec<u8>, time: SystemTime) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{}", humantime::format_rfc3339_millis(clamp(time)));
}

/// Serializes as [`rfc3339`].
pub fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time))
}

/// Serializes as [`rfc3339`], or as null.
pub fn serialize_option<S: Serializer>(
    time: &Option<SystemTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    time.map(rfc3339).serialize(serializer)
}

/// The wall clock's time at `then`, unless it was set since.
pub fn wall(then: Instant) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(then.elapsed()).unwrap_or(now)
}

/// humantime panics on a time before 1970 and fails on one after 9999.
fn clamp(time: SystemTime) -> SystemTime {
    time.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_points_in_time() {
        const LAST_SECOND: u64 = 253_402_300_799;
        for (seconds, millis, expected) in [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (0, 999, "1970-01-01T00:00:00.999Z"),
            (951_782_400, 0, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199, 500, "2024-02-29T23:59:59.500Z"),
            (1_767_473_112, 0, "2026-01-03T20:45:12.000Z"),
            (LAST_SECOND, 999, "9999-12-31T23:59:59.999Z"),
            (LAST_SECOND + 5, 0, "9999-12-31T23:59:59.999Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis);
            let mut out = Vec::new();
            write_millis(&mut out, time);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
            assert_eq!(rfc3339_millis(time), expected);
            assert_eq!(rfc3339(time), format!("{}Z", &expected[..19]));
        }
        let before = UNIX_EPOCH - Duration::from_millis(1);
        assert_eq!(rfc3339_millis(before), "1970-01-01T00:00:00.000Z");
    }
}
