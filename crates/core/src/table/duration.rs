//! How durations are written: `"10s"`, `"500ms"`, `"1m30s"`.

use std::time::Duration;

/// Reads a duration: whole numbers, each followed by its unit (`ms`, `s`, `m`,
/// `h`, `d`, or one of their longer names), added up. One space may part them,
/// as in `1m 30s`. None: `text` is no duration, or one beyond all use.
///
/// Other white space is refused. Readers that skip it take `1 30s` for 130
/// seconds, and who wrote it meant something else.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    loop {
        let (number, tail) = split_while(rest, u8::is_ascii_digit)?;
        let (name, tail) = split_while(tail, u8::is_ascii_alphabetic)?;
        let part = unit(name)?.checked_mul(number.parse().ok()?)?;
        total = total.checked_add(part)?;
        if tail.is_empty() {
            return Some(total);
        }
        rest = tail.strip_prefix(' ').unwrap_or(tail);
    }
}

fn split_while(text: &str, belongs: fn(&u8) -> bool) -> Option<(&str, &str)> {
    text.split_at_checked(text.bytes().take_while(belongs).count())
}

fn unit(name: &str) -> Option<Duration> {
    Some(match name {
        "ms" | "msec" | "millis" => Duration::from_millis(1),
        "s" | "sec" | "secs" | "second" | "seconds" => Duration::from_secs(1),
        "m" | "min" | "mins" | "minute" | "minutes" => Duration::from_secs(60),
        "h" | "hr" | "hrs" | "hour" | "hours" => Duration::from_secs(3600),
        "d" | "day" | "days" => Duration::from_secs(24 * 3600),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use humantime::format_duration;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_have_units() {
        for (text, millis) in [
            ("0s", 0),
            ("500ms", 500),
            ("010s", 10_000),
            ("1m30s", 90_000),
            ("1m 30s", 90_000),
            ("1hour 2min 3secs 4millis", 3_723_004),
            ("1day", 86_400_000),
            ("4294967295ms", 4_294_967_295),
        ] {
            let expected = Some(Duration::from_millis(millis));
            assert_eq!(parse_duration(text), expected, "{text}");
        }
        for text in [
            "",
            " ",
            "s",
            "10",
            "1 30s",
            "1 0s",
            "10 s",
            " 10s",
            "10s ",
            "10s\n",
            "1m  30s",
            "1m\t30s",
            "1m\u{a0}30s",
            "1\u{a0}0s",
            "1.5s",
            "1,5s",
            "+1s",
            "-1s",
            "1e3s",
            "1S",
            "1M",
            "1w",
            "999us",
            "10sm",
            "1m30",
            "١s",
            "4294967296ms",
            "99999999999999999999d",
            // What made a library panic: seconds at their end, and a carry.
            "18446744073709551615s1000000000ns",
        ] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_can_be_read(millis in 0..=2 * 24 * 3_600_000u64) {
            let duration = Duration::from_millis(millis);
            let printed = format_duration(duration).to_string();
            prop_assert_eq!(parse_duration(&printed), Some(duration));
        }

        /// Of what is read, the known reader makes the same.
        #[test]
        fn agrees_with_the_usual_reader(text in "([0-9]{1,9} ?(ms|s|m|h|d|us|[a-z]{1,3}) ?){1,3}") {
            if let Some(duration) = parse_duration(&text) {
                prop_assert_eq!(humantime::parse_duration(&text), Ok(duration));
            }
        }
    }
}
