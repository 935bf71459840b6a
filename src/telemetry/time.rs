//! Points in time as RFC 3339 UTC, the only form the edge writes.
//!
//! Enough of a calendar for that and no more: days since 1970 to year, month
//! and day in the proleptic Gregorian calendar. Leap seconds do not exist in
//! Unix time, so they do not exist here.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

const SECONDS_PER_DAY: i64 = 86_400;

/// Length of `2026-11-23T23:00:00`.
const PREFIX: usize = 19;

/// RFC 3339 has four digits for the year: times outside of it are clamped.
const FIRST_SECOND: i64 = -62_167_219_200;
const LAST_SECOND: i64 = 253_402_300_799;

/// `2026-11-23T23:00:00Z`: whole seconds, rounded down.
pub fn rfc3339(time: SystemTime) -> String {
    let (seconds, _) = since_epoch(time);
    let mut text = Vec::with_capacity(PREFIX + 1);
    text.extend_from_slice(&prefix(seconds));
    text.push(b'Z');
    into_string(text)
}

/// `2026-11-23T23:00:00.123Z`: milliseconds, rounded down.
pub fn rfc3339_millis(time: SystemTime) -> String {
    let mut text = Vec::with_capacity(PREFIX + 5);
    write_millis(&mut text, time);
    into_string(text)
}

/// Appends [`rfc3339_millis`] to `out` without an allocation of its own. The
/// date is computed once a second and thread.
pub fn write_millis(out: &mut Vec<u8>, time: SystemTime) {
    thread_local! {
        static LAST: Cell<(i64, [u8; PREFIX])> = const { Cell::new((i64::MIN, [0; PREFIX])) };
    }
    let (seconds, nanos) = since_epoch(time);
    let prefix = LAST.with(|last| {
        let (of, text) = last.get();
        if of == seconds {
            return text;
        }
        let text = prefix(seconds);
        last.set((seconds, text));
        text
    });
    let millis = nanos / 1_000_000;
    out.extend_from_slice(&prefix);
    out.push(b'.');
    out.push(digit(millis / 100));
    out.push(digit(millis / 10));
    out.push(digit(millis));
    out.push(b'Z');
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

/// Seconds since 1970, rounded down, and the nanoseconds on top of them.
fn since_epoch(time: SystemTime) -> (i64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (whole_seconds(after), after.subsec_nanos()),
        Err(error) => {
            let before = error.duration();
            match before.subsec_nanos() {
                0 => (-whole_seconds(before), 0),
                nanos => (-whole_seconds(before) - 1, 1_000_000_000 - nanos),
            }
        }
    }
}

fn whole_seconds(duration: Duration) -> i64 {
    // Far outside of what RFC 3339 can write; clamped there in `prefix`.
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX - 1)
}

fn prefix(seconds: i64) -> [u8; PREFIX] {
    let seconds = seconds.clamp(FIRST_SECOND, LAST_SECOND);
    let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_PER_DAY));
    let second = seconds.rem_euclid(SECONDS_PER_DAY);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let d = |value: i64, unit: i64| b'0' + (value / unit % 10) as u8;
    [
        d(year, 1000),
        d(year, 100),
        d(year, 10),
        d(year, 1),
        b'-',
        d(month, 10),
        d(month, 1),
        b'-',
        d(day, 10),
        d(day, 1),
        b'T',
        d(hour, 10),
        d(hour, 1),
        b':',
        d(minute, 10),
        d(minute, 1),
        b':',
        d(second, 10),
        d(second, 1),
    ]
}

/// Year, month (1 to 12) and day (1 to 31) of a day counted from 1970-01-01.
///
/// Years are counted from March, so that the leap day is a year's last day and
/// month lengths repeat every five months with 153 days.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    const DAYS_PER_400_YEARS: i64 = 146_097;
    // From 0000-03-01 on.
    let days = days + 719_468;
    let era = days.div_euclid(DAYS_PER_400_YEARS);
    let day_of_era = days.rem_euclid(DAYS_PER_400_YEARS);
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

fn digit(value: u32) -> u8 {
    b'0' + (value % 10) as u8
}

fn into_string(ascii: Vec<u8>) -> String {
    // Digits and punctuation only; lossy, so that there is nothing to panic.
    String::from_utf8(ascii).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, millis: u64) -> SystemTime {
        let base = if seconds >= 0 {
            UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs())
        } else {
            UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs())
        };
        base + Duration::from_millis(millis)
    }

    #[test]
    fn known_points_in_time() {
        for (seconds, millis, expected) in [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (0, 999, "1970-01-01T00:00:00.999Z"),
            (-1, 1, "1969-12-31T23:59:59.001Z"),
            (951_782_400, 0, "2000-02-29T00:00:00.000Z"),
            (951_868_800, 0, "2000-03-01T00:00:00.000Z"),
            (1_709_251_199, 500, "2024-02-29T23:59:59.500Z"),
            (1_767_473_112, 0, "2026-01-03T20:45:12.000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000Z"),
            (FIRST_SECOND, 0, "0000-01-01T00:00:00.000Z"),
            (FIRST_SECOND - 5, 0, "0000-01-01T00:00:00.000Z"),
            (LAST_SECOND, 999, "9999-12-31T23:59:59.999Z"),
            (LAST_SECOND + 5, 0, "9999-12-31T23:59:59.000Z"),
        ] {
            let time = at(seconds, millis);
            assert_eq!(rfc3339_millis(time), expected, "{seconds}.{millis}");
            assert_eq!(rfc3339(time), format!("{}Z", &expected[..PREFIX]));
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let length = |year: i64, month: i64| match month {
            2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let mut expected = (1600, 1, 1);
        for day in -135_140..150_000 {
            assert_eq!(civil_from_days(day), expected, "day {day}");
            let (year, month, day) = expected;
            expected = if day < length(year, month) {
                (year, month, day + 1)
            } else if month < 12 {
                (year, month + 1, 1)
            } else {
                (year + 1, 1, 1)
            };
        }
    }

    #[test]
    fn the_cached_second_does_not_leak_into_the_next() {
        let mut out = Vec::new();
        for (seconds, millis) in [(59, 999), (60, 0), (59, 0)] {
            write_millis(&mut out, at(seconds, millis));
            out.push(b' ');
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "1970-01-01T00:00:59.999Z 1970-01-01T00:01:00.000Z 1970-01-01T00:00:59.000Z "
        );
    }
}
