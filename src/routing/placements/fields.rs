//! One reader a kind of value. Each answers with what it expected and found
//! when the value is not that.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use humantime::format_duration;

use super::policy::NULLABLE;
use crate::routing::duration::parse_duration;
use crate::routing::findings::{Findings, Path};
use crate::routing::locate::Raw;
use crate::routing::object::{Entry, entries, one_of};
use crate::routing::wording::{Quoted, unknown};

/// The members of an object with `fields`, none of them required. Problems with
/// its keys are reported, as is that it is no object.
pub(super) fn object<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    fields: &[&str],
    findings: &mut Findings<'a>,
) -> Option<Vec<Entry<'a>>> {
    let Some(members) = value.members() else {
        findings.at(value, path, || {
            format!(
                "expected an object, found {} ({{}} is one with all defaults)",
                value.described()
            )
        });
        return None;
    };
    Some(entries(members, path, findings, one_of(fields)))
}

/// Reports that a field is null where there is nothing to switch off; says
/// whether it was.
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

/// A whole number in `range`; the type is the range's.
pub(super) fn whole<T>(value: Raw<'_>, range: RangeInclusive<T>) -> Result<T, String>
where
    T: TryFrom<u64> + PartialOrd + Display,
{
    // JSON does not tell 5 from 5.0, but who writes 5.0 takes the field for
    // something else than it is.
    let number = value.number().and_then(|number| number.parse::<u64>().ok());
    match number.and_then(|number| T::try_from(number).ok()) {
        Some(number) if range.contains(&number) => Ok(number),
        _ => Err(format!(
            "expected a whole number from {} to {}, found {}",
            range.start(),
            range.end(),
            value.described()
        )),
    }
}

/// `"10s"`, `"500ms"`, `"1m30s"`. A number alone could mean seconds or
/// milliseconds and is refused.
pub(super) fn duration(
    value: Raw<'_>,
    range: RangeInclusive<Duration>,
) -> Result<Duration, String> {
    let text = value.string();
    if let Ok(text) = &text
        && let Some(duration) = parse_duration(text)
        && range.contains(&duration)
    {
        return Ok(duration);
    }
    let found = match (&text, value.number()) {
        (Ok(text), _) => Quoted(text).to_string(),
        (Err(_), Some(number)) if is_short_whole(number) => {
            format!("the number {number} without a unit (write \"{number}s\" or \"{number}ms\")")
        }
        (Err(_), Some(_)) => format!(
            "{} without a unit (write \"10s\" or \"500ms\")",
            value.described()
        ),
        (Err(_), None) => value.described(),
    };
    Err(format!(
        "expected a duration from {} to {}, such as \"10s\", \"500ms\" or \"1m30s\", found {found}",
        format_duration(*range.start()),
        format_duration(*range.end())
    ))
}

fn is_short_whole(number: &str) -> bool {
    number.len() <= 9 && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// One of a few words, called `what` together.
pub(super) fn choice<T: Copy>(
    value: Raw<'_>,
    what: &str,
    choices: &[T],
    name: fn(T) -> &'static str,
) -> Result<T, String> {
    let text = value.string()?;
    choices
        .iter()
        .copied()
        .find(|choice| name(*choice) == text)
        .ok_or_else(|| unknown(what, &text, choices.iter().map(|choice| name(*choice))))
}
