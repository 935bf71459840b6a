//! Reads values of one kind each: numbers, durations, choices, hosts. The error says what was
//! expected and found.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use humantime::format_duration;

use super::policy::NULLABLE;
use crate::table::endpoint::host_and_port;
use crate::table::findings::{Entry, Findings, Path, fields};
use crate::table::json::Raw;
use crate::table::policy::HostHeader;
use crate::table::problem::{Quoted, Refused, nearest_within, unknown};
use crate::table::values::parse_duration;

/// Reads an object with `known` fields, none of them required, and calls `read` with each
/// member. Reports unknown and repeated fields, and a value that is not an object. Returns
/// whether it is one.
pub(super) fn object<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    known: &[&str],
    findings: &mut Findings<'a>,
    read: impl FnMut(Entry<'a>, &mut Findings<'a>),
) -> bool {
    let is_object = fields(value, path, known, findings, read).is_some();
    if !is_object {
        findings.at(value, path, || {
            format!(
                "expected an object, found {} ({{}} is one with all defaults)",
                value.described()
            )
        });
    }
    is_object
}

/// As [`object`], but reports members that are null and does not call `read` with them.
pub(super) fn members<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    known: &[&str],
    findings: &mut Findings<'a>,
    mut read: impl FnMut(&Entry<'a>, Path<'_>, &mut Findings<'a>),
) {
    object(value, path, known, findings, |entry, findings| {
        let path = path.child(&entry.name);
        if !refuse_null(&entry, path, findings) {
            read(&entry, path, findings);
        }
    });
}

/// Reports a field that is null and must not be. Returns whether it is null.
pub(super) fn refuse_null<'a>(
    entry: &Entry<'a>,
    path: Path<'_>,
    findings: &mut Findings<'a>,
) -> bool {
    if entry.value.is_null() {
        findings.at(entry.value, path, || {
            format!(
                "null has no meaning here (leave {} out; in a placement, null switches off: {})",
                Quoted(&entry.name),
                NULLABLE.join(", ")
            )
        });
    }
    entry.value.is_null()
}

/// Reads a whole number in `range`, whose type it has.
pub(super) fn whole<'a, T>(value: Raw<'a>, range: RangeInclusive<T>) -> Result<T, Refused<'a>>
where
    T: TryFrom<u64> + PartialOrd + Display + 'a,
{
    // 5.0 is refused, although JSON does not tell it from 5: who writes it expects fractions
    // to be valid.
    let number = value.number().and_then(|number| number.parse::<u64>().ok());
    match number.and_then(|number| T::try_from(number).ok()) {
        Some(number) if range.contains(&number) => Ok(number),
        _ => Err(Refused::because(move || {
            format!(
                "expected a whole number from {} to {}, found {}",
                range.start(),
                range.end(),
                value.described()
            )
        })),
    }
}

/// Reads a number of bytes in `range`.
pub(super) fn bytes(value: Raw<'_>, range: RangeInclusive<u64>) -> Result<u64, Refused<'_>> {
    // In the settings, which are not JSON, sizes have units.
    let hint = match value.is_string() {
        true => " (in bytes, such as 1048576)",
        false => "",
    };
    whole(value, range).map_err(|why| Refused::because(move || format!("{why}{hint}")))
}

/// Reads a duration such as `"10s"`, `"500ms"` or `"1m30s"`. A number is refused, as it could
/// mean seconds or milliseconds.
pub(super) fn duration(
    value: Raw<'_>,
    range: RangeInclusive<Duration>,
) -> Result<Duration, Refused<'_>> {
    let text = value.string().ok();
    match text.and_then(|text| parse_duration(&text)) {
        Some(duration) if range.contains(&duration) => Ok(duration),
        _ => Err(Refused::because(move || {
            let found = match (value.string(), value.number()) {
                (Ok(text), _) => Quoted(&text).to_string(),
                (Err(_), Some(number)) if is_short_whole(number) => format!(
                    "the number {number} without a unit (write \"{number}s\" or \"{number}ms\")"
                ),
                (Err(_), Some(_)) => format!(
                    "{} without a unit (write \"10s\" or \"500ms\")",
                    value.described()
                ),
                (Err(_), None) => value.described().to_string(),
            };
            format!(
                "expected a duration from {} to {}, such as \"10s\", \"500ms\" or \"1m30s\", \
                 found {found}",
                format_duration(*range.start()),
                format_duration(*range.end())
            )
        })),
    }
}

fn is_short_whole(number: &str) -> bool {
    number.len() <= 9 && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// Reads one of `choices`, which have a `name` each; errors call it a `what`.
pub(super) fn choice<'a, T: Copy>(
    value: Raw<'a>,
    what: &'static str,
    choices: &'static [T],
    name: fn(T) -> &'static str,
) -> Result<T, Refused<'a>> {
    let text = value.string().ok();
    text.and_then(|text| {
        let mut choices = choices.iter().copied();
        choices.find(|choice| name(*choice) == text)
    })
    .ok_or_else(|| {
        Refused::because(move || match value.string() {
            Ok(text) => unknown(what, &text, choices.iter().map(|choice| name(*choice))),
            Err(why) => why.to_string(),
        })
    })
}

const PRESERVE: &str = "preserve";
const REWRITE: &str = "rewrite";

/// Reads `preserve`, `rewrite`, or a host (RFC 9110, section 7.2).
pub(super) fn host_header(value: Raw<'_>) -> Result<HostHeader, Refused<'_>> {
    let text = value.string()?;
    match &*text {
        PRESERVE => return Ok(HostHeader::Preserve),
        REWRITE => return Ok(HostHeader::Rewrite),
        _ => {}
    }
    // A misspelled word would be a valid host and be sent to the cell. Only one edit counts
    // as a misspelling: there are hosts called `presence`.
    if !text.contains(':')
        && let Some(word) = nearest_within([PRESERVE, REWRITE].into_iter(), &text, 1)
    {
        return Err(Refused::because(move || {
            format!(
                "unknown host {} (did you mean {}? a host of that name needs its port)",
                Quoted(&text),
                Quoted(word)
            )
        }));
    }
    host_and_port(&text).map(HostHeader::Fixed).map_err(|why| {
        Refused::because(move || format!("{why}; also valid: {PRESERVE}, {REWRITE}"))
    })
}

/// Reads the host of a probe: `rewrite` (`None`) or a host. A probe has no client whose host
/// it could preserve.
pub(super) fn probe_host(value: Raw<'_>) -> Result<Option<String>, Refused<'_>> {
    match host_header(value)? {
        HostHeader::Rewrite => Ok(None),
        HostHeader::Fixed(host) => Ok(Some(host)),
        HostHeader::Preserve => Err(Refused::because(|| {
            format!(
                "{} has no meaning for probes, which come from no client \
                 (valid: {REWRITE} or a host)",
                Quoted(PRESERVE)
            )
        })),
    }
}
