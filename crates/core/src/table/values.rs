//! Checks of single values of a document: versions, routing keys, placement names, durations.
//!
//! The fast path asks only whether a value is valid; `diagnose` reports the error.

use std::fmt;
use std::time::Duration;

use super::problem::Refused;

/// The longest placement name, in bytes. Names are sent to clients in `X-Routed-To` and are
/// labels of metrics.
const PLACEMENT_NAME_MAX: usize = 128;

/// The longest version, in bytes. It is in every log line about a reload.
const VERSION_MAX: usize = 256;

pub(super) fn check_version(version: &str) -> Result<(), String> {
    let control = version.chars().find(|character| character.is_control());
    if version.trim().is_empty() {
        Err("empty version (give each change one, such as \"1.0.0\")".into())
    } else if version.len() > VERSION_MAX {
        let bytes = version.len();
        Err(format!("version of {bytes} bytes (at most {VERSION_MAX})"))
    } else if let Some(character) = control {
        let number = u32::from(character);
        Err(format!("version with the control character U+{number:04X}"))
    } else {
        Ok(())
    }
}

/// Why a routing key is refused: no request can carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// A request with an empty key is answered 400.
    Empty,
    /// A character that header values must not have (RFC 9110, section 5.5).
    Control(char),
    /// White space at the start or end. It is not part of a header value (RFC 9110, section
    /// 5.5).
    Padded,
}

/// Checks that a request header can carry `key`.
///
/// # Errors
///
/// The reason why none can.
pub fn check_key(key: &str) -> Result<(), KeyError> {
    let bytes = key.as_bytes();
    let padding = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if bytes.is_empty() {
        return Err(KeyError::Empty);
    }
    if padding(bytes.first()) || padding(bytes.last()) {
        return Err(KeyError::Padded);
    }
    match bytes
        .iter()
        .find(|&&byte| byte.is_ascii_control() && byte != b'\t')
    {
        Some(&byte) => Err(KeyError::Control(char::from(byte))),
        None => Ok(()),
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => {
                f.write_str("empty routing key (a request without a key is answered 400)")
            }
            Self::Control(character) => write!(
                f,
                "routing key with the control character U+{:04X}, which no header can carry",
                u32::from(*character)
            ),
            Self::Padded => f.write_str(
                "routing key with white space at its start or end, which is stripped from headers",
            ),
        }
    }
}

/// Checks a placement name. It is sent in a header, so it is printable ASCII without spaces.
pub(super) fn check_placement_name(name: &str) -> Result<(), Refused<'static>> {
    let invalid = name.chars().find(|character| !character.is_ascii_graphic());
    if name.is_empty() {
        Err(Refused::because(|| "empty placement name".to_owned()))
    } else if name.len() > PLACEMENT_NAME_MAX {
        let bytes = name.len();
        Err(Refused::because(move || {
            format!("placement name of {bytes} bytes (at most {PLACEMENT_NAME_MAX})")
        }))
    } else if let Some(character) = invalid {
        Err(Refused::because(move || {
            format!(
                "placement name with the character {}; valid is printable ASCII without spaces, \
                 as the name is sent in the header X-Routed-To",
                Codepoint(character)
            )
        }))
    } else {
        Ok(())
    }
}

/// A character as `'ü' (U+00FC)`, or its number alone if it may be invisible.
struct Codepoint(char);

impl fmt::Display for Codepoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = u32::from(self.0);
        if self.0.is_alphanumeric() {
            write!(f, "'{}' (U+{number:04X})", self.0)
        } else {
            write!(f, "U+{number:04X}")
        }
    }
}

/// Parses a duration such as `10s`, `500ms` or `1m 30s`: the sum of whole numbers, each
/// followed by its unit (`ms`, `s`, `m`, `h`, `d`, or one of their longer names). One space may
/// separate them. Returns `None` if `text` is not a duration or is too long to represent.
///
/// Other white space is refused: parsers that skip it read `1 30s` as 130 seconds.
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
    fn durations_are_parsed_or_refused() {
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
            // Overflows in the carry from nanoseconds.
            "18446744073709551615s1000000000ns",
        ] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn printed_durations_can_be_parsed(millis in 0..=2 * 24 * 3_600_000u64) {
            let duration = Duration::from_millis(millis);
            let printed = format_duration(duration).to_string();
            prop_assert_eq!(parse_duration(&printed), Some(duration));
        }

        /// humantime agrees on all durations that are accepted.
        #[test]
        fn agrees_with_humantime(text in "([0-9]{1,9} ?(ms|s|m|h|d|us|[a-z]{1,3}) ?){1,3}") {
            if let Some(duration) = parse_duration(&text) {
                prop_assert_eq!(humantime::parse_duration(&text), Ok(duration));
            }
        }
    }
}
