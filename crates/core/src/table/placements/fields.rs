//! One reader a kind of value. Each answers with what it expected and found
//! when the value is not that, as an error that is put into words only if it is
//! reported: there may be a million of them.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::time::Duration;

use humantime::format_duration;

use super::policy::NULLABLE;
use crate::table::duration::parse_duration;
use crate::table::endpoint::host_and_port;
use crate::table::findings::{Findings, Path};
use crate::table::locate::{NotText, Raw};
use crate::table::object::{Entry, fields};
use crate::table::policy::HostHeader;
use crate::table::wording::{Quoted, nearest_within, unknown};

/// Calls `read` with each member of an object with `known` fields, none of them
/// required. What is wrong with its keys is reported, as is that it is no
/// object; says whether it is one.
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
pub(super) fn whole<T>(value: Raw<'_>, range: RangeInclusive<T>) -> Result<T, NotWhole<'_, T>>
where
    T: TryFrom<u64> + PartialOrd,
{
    // JSON does not tell 5 from 5.0, but who writes 5.0 takes the field for
    // something else than it is.
    let number = value.number().and_then(|number| number.parse::<u64>().ok());
    match number.and_then(|number| T::try_from(number).ok()) {
        Some(number) if range.contains(&number) => Ok(number),
        _ => Err(NotWhole { value, range }),
    }
}

pub(super) struct NotWhole<'a, T> {
    value: Raw<'a>,
    range: RangeInclusive<T>,
}

impl<T: Display> Display for NotWhole<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "expected a whole number from {} to {}, found {}",
            self.range.start(),
            self.range.end(),
            self.value.described()
        )
    }
}

/// A number of bytes in `range`.
pub(super) fn bytes(value: Raw<'_>, range: RangeInclusive<u64>) -> Result<u64, NotBytes<'_>> {
    whole(value, range).map_err(NotBytes)
}

pub(super) struct NotBytes<'a>(NotWhole<'a, u64>);

impl Display for NotBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        // The settings, which are no JSON, know units.
        match self.0.value.is_string() {
            true => f.write_str(" (in bytes, such as 1048576)"),
            false => Ok(()),
        }
    }
}

/// `"10s"`, `"500ms"`, `"1m30s"`. A number alone could mean seconds or
/// milliseconds and is refused.
pub(super) fn duration(
    value: Raw<'_>,
    range: RangeInclusive<Duration>,
) -> Result<Duration, NotDuration<'_>> {
    let text = value.string().ok();
    match text.and_then(|text| parse_duration(&text)) {
        Some(duration) if range.contains(&duration) => Ok(duration),
        _ => Err(NotDuration { value, range }),
    }
}

pub(super) struct NotDuration<'a> {
    value: Raw<'a>,
    range: RangeInclusive<Duration>,
}

impl Display for NotDuration<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "expected a duration from {} to {}, such as \"10s\", \"500ms\" or \"1m30s\", found ",
            format_duration(*self.range.start()),
            format_duration(*self.range.end())
        )?;
        match (self.value.string(), self.value.number()) {
            (Ok(text), _) => Quoted(&text).fmt(f),
            (Err(_), Some(number)) if is_short_whole(number) => write!(
                f,
                "the number {number} without a unit (write \"{number}s\" or \"{number}ms\")"
            ),
            (Err(_), Some(_)) => write!(
                f,
                "{} without a unit (write \"10s\" or \"500ms\")",
                self.value.described()
            ),
            (Err(_), None) => self.value.described().fmt(f),
        }
    }
}

fn is_short_whole(number: &str) -> bool {
    number.len() <= 9 && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// One of a few words, called `what` together.
pub(super) fn choice<'a, T: Copy>(
    value: Raw<'a>,
    what: &'static str,
    choices: &'static [T],
    name: fn(T) -> &'static str,
) -> Result<T, NotChoice<'a, T>> {
    let text = value.string().ok();
    text.and_then(|text| {
        let mut choices = choices.iter().copied();
        choices.find(|choice| name(*choice) == text)
    })
    .ok_or(NotChoice {
        value,
        what,
        choices,
        name,
    })
}

pub(super) struct NotChoice<'a, T: 'static> {
    value: Raw<'a>,
    what: &'static str,
    choices: &'static [T],
    name: fn(T) -> &'static str,
}

impl<T: Copy> Display for NotChoice<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.string() {
            Ok(text) => {
                let names = self.choices.iter().map(|choice| (self.name)(*choice));
                f.write_str(&unknown(self.what, &text, names))
            }
            Err(why) => why.fmt(f),
        }
    }
}

const PRESERVE: &str = "preserve";
const REWRITE: &str = "rewrite";

/// Why a value is not a host header (RFC 9110, section 7.2).
pub(super) enum NotHost<'a> {
    NotText(NotText<'a>),
    /// A misspelling of this word, which would be a valid host.
    Slip(Cow<'a, str>, &'static str),
    /// The error of [`host_and_port`].
    Invalid(String),
    /// `preserve`, for a probe.
    Preserve,
}

/// `preserve`, `rewrite`, or a host.
pub(super) fn host_header(value: Raw<'_>) -> Result<HostHeader, NotHost<'_>> {
    let text = value.string().map_err(NotHost::NotText)?;
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
        return Err(NotHost::Slip(text, word));
    }
    host_and_port(&text)
        .map(HostHeader::Fixed)
        .map_err(NotHost::Invalid)
}

/// `rewrite` or a host. A probe has no client whose host it could preserve.
pub(super) fn probe_host(value: Raw<'_>) -> Result<Option<String>, NotHost<'_>> {
    match host_header(value)? {
        HostHeader::Rewrite => Ok(None),
        HostHeader::Fixed(host) => Ok(Some(host)),
        HostHeader::Preserve => Err(NotHost::Preserve),
    }
}

impl fmt::Display for NotHost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotText(why) => why.fmt(f),
            Self::Slip(text, word) => write!(
                f,
                "unknown host {} (did you mean {}? a host of that name needs its port)",
                Quoted(text),
                Quoted(word)
            ),
            Self::Invalid(why) => write!(f, "{why}; also valid: {PRESERVE}, {REWRITE}"),
            Self::Preserve => write!(
                f,
                "{} has no meaning for probes, which come from no client \
                 (valid: {REWRITE} or a host)",
                Quoted(PRESERVE)
            ),
        }
    }
}
