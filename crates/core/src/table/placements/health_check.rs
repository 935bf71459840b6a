//! Reads `health_check`.

use std::ops::RangeInclusive;
use std::time::Duration;

use humantime::format_duration;

use super::policy::{DEADLINE, LONGEST};
use super::values::{duration, object, probe_host, refuse_null, whole};
use crate::table::findings::{Findings, Path};
use crate::table::json::Raw;
use crate::table::policy::HealthCheck;
use crate::table::problem::{Quoted, Refused};

pub(super) const HEALTH_CHECK: &str = "health_check";

const PATH: &str = "path";
const INTERVAL: &str = "interval";
const TIMEOUT: &str = "timeout";
const HEALTHY: &str = "healthy_threshold";
const UNHEALTHY: &str = "unhealthy_threshold";
const EXPECTED: &str = "expected_status";
const HOST: &str = "host";

const FIELDS: [&str; 7] = [PATH, INTERVAL, TIMEOUT, HEALTHY, UNHEALTHY, EXPECTED, HOST];

const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=LONGEST;
const THRESHOLDS: RangeInclusive<u32> = 1..=100;

/// The valid statuses. Those below are interim responses, or switch to a protocol that no
/// probe asks for (RFC 9110, section 15.2).
const STATUSES: RangeInclusive<u16> = 200..=599;

/// Longest path, in bytes.
const PATH_MAX: usize = 1024;

/// Most entries of `expected_status`.
const EXPECTED_MAX: usize = 100;

/// Where a `health_check` gives its timeout and interval. Either may come from `defaults`, so
/// they are compared after merging.
#[derive(Clone, Copy)]
pub(super) struct Times<'a> {
    timeout: Option<Raw<'a>>,
    interval: Option<Raw<'a>>,
    /// Whether those that are given are valid.
    pub readable: bool,
}

impl<'a> Times<'a> {
    /// Whether the object gives either of them.
    pub fn is_given(&self) -> bool {
        self.timeout.is_some() || self.interval.is_some()
    }

    /// Reports a timeout longer than the interval in the merged `check`. `path` is the object
    /// with the `health_check` that these times are from.
    pub fn check(&self, check: &HealthCheck, path: Path<'_>, findings: &mut Findings<'a>) {
        if check.timeout <= check.interval {
            return;
        }
        let path = path.child(HEALTH_CHECK);
        let timeout = format_duration(check.timeout);
        let interval = format_duration(check.interval);
        if let Some(value) = self.timeout {
            findings.at(value, path.child(TIMEOUT), || {
                format!("timeout {timeout} is longer than the interval {interval}")
            });
        } else if let Some(value) = self.interval {
            findings.at(value, path.child(INTERVAL), || {
                format!(
                    "interval {interval} is shorter than the timeout {timeout} \
                     (set a timeout of at most {interval} as well)"
                )
            });
        }
    }
}

/// Reads a `health_check` on top of the inherited `check`.
pub(super) fn read<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    check: &mut HealthCheck,
    findings: &mut Findings<'a>,
) -> Times<'a> {
    let mut times = Times {
        timeout: None,
        interval: None,
        readable: true,
    };
    let is_object = object(value, path, &FIELDS, findings, |entry, findings| {
        let (value, path) = (entry.value, path.child(&entry.name));
        if refuse_null(&entry, path, findings) {
            times.readable &= !matches!(&*entry.name, INTERVAL | TIMEOUT);
            return;
        }
        match &*entry.name {
            PATH => findings.set(&mut check.path, value, path, probe_path(value)),
            INTERVAL => {
                let read = duration(value, INTERVALS);
                times.readable &= read.is_ok();
                times.interval = Some(value);
                findings.set(&mut check.interval, value, path, read);
            }
            TIMEOUT => {
                let read = duration(value, DEADLINE);
                times.readable &= read.is_ok();
                times.timeout = Some(value);
                findings.set(&mut check.timeout, value, path, read);
            }
            HEALTHY => {
                let read = whole(value, THRESHOLDS);
                findings.set(&mut check.healthy_threshold, value, path, read);
            }
            UNHEALTHY => {
                let read = whole(value, THRESHOLDS);
                findings.set(&mut check.unhealthy_threshold, value, path, read);
            }
            EXPECTED => {
                if let Some(expected) = expected_status(value, path, findings) {
                    check.expected_status = expected;
                }
            }
            HOST => findings.set(&mut check.host, value, path, probe_host(value)),
            _ => {}
        }
    });
    times.readable &= is_object;
    times
}

/// Reads the path and query of a request (RFC 9112, section 3.2.1).
fn probe_path(value: Raw<'_>) -> Result<String, Refused<'_>> {
    let path = value.string()?;
    // RFC 3986, section 2 excludes these four. It also excludes others, such as the bar,
    // which servers accept.
    let valid = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '`');
    let invalid = path.chars().find(|character| !valid(*character));
    if path.starts_with('/') && path.len() <= PATH_MAX && !path.contains('#') && invalid.is_none() {
        return Ok(path.into_owned());
    }
    Err(Refused::because(move || {
        let quoted = Quoted(&path);
        if !path.starts_with('/') {
            format!("path {quoted} does not begin with a slash")
        } else if path.len() > PATH_MAX {
            format!("path of {} bytes (at most {PATH_MAX})", path.len())
        } else if path.contains('#') {
            format!("path {quoted} has a fragment, which no request carries (cut it off)")
        } else {
            format!(
                "path {quoted} contains U+{:04X} (valid is visible ASCII but for \" < > `; \
                 percent-encode the rest)",
                invalid.map_or(0, u32::from)
            )
        }
    }))
}

/// Reads one range of statuses, or an array of them.
fn expected_status<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    findings: &mut Findings<'a>,
) -> Option<Vec<RangeInclusive<u16>>> {
    let Some((elements, count)) = value.elements(EXPECTED_MAX) else {
        return Some(vec![findings.keep(value, path, statuses(value))?]);
    };
    if elements.is_empty() {
        findings.at(value, path, || {
            format!("{count} statuses (valid: 1 to {EXPECTED_MAX}, such as [200, \"300-399\"])")
        });
        return None;
    }
    let mut expected = Vec::with_capacity(elements.len());
    for (index, element) in elements.into_iter().enumerate() {
        expected.push(findings.keep(element, path.element(index), statuses(element)));
    }
    expected.into_iter().collect()
}

/// Reads `200`, `"200-299"` or `"2xx"`.
fn statuses(value: Raw<'_>) -> Result<RangeInclusive<u16>, Refused<'_>> {
    let read = match value.number() {
        Some(_) => whole(value, STATUSES).ok().map(|status| status..=status),
        None => value.string().ok().and_then(|text| parse_statuses(&text)),
    };
    read.ok_or_else(|| {
        Refused::because(move || {
            let found = match value.string() {
                Ok(text) => Quoted(&text).to_string(),
                Err(_) => value.described().to_string(),
            };
            format!(
                "expected a status from {} to {}, a range such as \"200-299\" or a class such as \
                 \"2xx\", found {found}",
                STATUSES.start(),
                STATUSES.end()
            )
        })
    })
}

fn parse_statuses(text: &str) -> Option<RangeInclusive<u16>> {
    if let [class @ b'2'..=b'5', b'x', b'x'] = text.as_bytes() {
        let first = u16::from(class - b'0') * 100;
        return Some(first..=first + 99);
    }
    let (from, to) = text.split_once('-')?;
    let (from, to) = (status(from)?, status(to)?);
    (from <= to).then_some(from..=to)
}

/// Three digits (RFC 9110, section 15).
fn status(text: &str) -> Option<u16> {
    // `parse` would accept a sign and leading zeros.
    let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|status| digits && STATUSES.contains(status))
}
