//! `health_check`.

use std::ops::RangeInclusive;
use std::time::Duration;

use humantime::format_duration;

use super::fields::{duration, object, refuse_null, whole};
use super::host::probe_host;
use super::policy::{DEADLINE, LONGEST, set};
use crate::routing::findings::{Findings, Path};
use crate::routing::locate::Raw;
use crate::routing::policy::HealthCheck;
use crate::routing::wording::Quoted;

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
const STATUSES: RangeInclusive<u16> = 100..=599;

/// Longest path, in bytes.
const PATH_MAX: usize = 1024;

/// Most entries of `expected_status`.
const EXPECTED_MAX: usize = 100;

/// Where one `health_check` gives its two times. They belong together, and
/// either may come from `defaults`, so they are judged once merged.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    timeout: Option<Raw<'a>>,
    interval: Option<Raw<'a>>,
    /// Both could be read, as far as they are given.
    pub readable: bool,
}

impl<'a> Pair<'a> {
    /// Whether the object gives any of the two.
    pub fn is_given(&self) -> bool {
        self.timeout.is_some() || self.interval.is_some()
    }

    /// Reports a timeout that is longer than the interval of `check`, of which
    /// this object, in the one at `path`, is the reason.
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

/// Reads a `health_check` on top of `base`.
pub(super) fn read<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    base: HealthCheck,
    findings: &mut Findings<'a>,
) -> (HealthCheck, Pair<'a>) {
    let mut check = base;
    let mut times = Pair {
        timeout: None,
        interval: None,
        readable: true,
    };
    let entries = object(value, path, &FIELDS, findings);
    times.readable = entries.is_some();
    for entry in entries.unwrap_or_default() {
        let (value, path) = (entry.value, path.child(&entry.name));
        if refuse_null(&entry, path, findings) {
            times.readable &= !matches!(&*entry.name, INTERVAL | TIMEOUT);
            continue;
        }
        match &*entry.name {
            PATH => set(
                &mut check.path,
                findings.keep(value, path, probe_path(value)),
            ),
            INTERVAL => {
                let interval = findings.keep(value, path, duration(value, INTERVALS));
                times.readable &= interval.is_some();
                times.interval = Some(value);
                set(&mut check.interval, interval);
            }
            TIMEOUT => {
                let timeout = findings.keep(value, path, duration(value, DEADLINE));
                times.readable &= timeout.is_some();
                times.timeout = Some(value);
                set(&mut check.timeout, timeout);
            }
            HEALTHY => set(
                &mut check.healthy_threshold,
                findings.keep(value, path, whole(value, THRESHOLDS)),
            ),
            UNHEALTHY => set(
                &mut check.unhealthy_threshold,
                findings.keep(value, path, whole(value, THRESHOLDS)),
            ),
            EXPECTED => set(
                &mut check.expected_status,
                expected_status(value, path, findings),
            ),
            HOST => set(
                &mut check.host,
                findings.keep(value, path, probe_host(value)),
            ),
            _ => {}
        }
    }
    (check, times)
}

/// The path and query of a request's target (RFC 9112, section 3.2.1).
fn probe_path(value: Raw<'_>) -> Result<String, String> {
    let path = value.string()?;
    if !path.starts_with('/') {
        return Err(format!(
            "path {} does not begin with a slash",
            Quoted(&path)
        ));
    }
    if path.len() > PATH_MAX {
        return Err(format!("path of {} bytes (at most {PATH_MAX})", path.len()));
    }
    if path.contains('#') {
        return Err(format!(
            "path {} has a fragment, which no request carries (cut it off)",
            Quoted(&path)
        ));
    }
    match path.chars().find(|character| !character.is_ascii_graphic()) {
        Some(character) => Err(format!(
            "path {} contains U+{:04X} (valid is visible ASCII; percent-encode the rest)",
            Quoted(&path),
            u32::from(character)
        )),
        None => Ok(path.into_owned()),
    }
}

/// One range of statuses, or an array of them. Those that cannot be read are
/// reported.
fn expected_status<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    findings: &mut Findings<'a>,
) -> Option<Vec<RangeInclusive<u16>>> {
    let Some(elements) = value.elements() else {
        return Some(vec![findings.keep(value, path, statuses(value))?]);
    };
    if elements.is_empty() || elements.len() > EXPECTED_MAX {
        findings.at(value, path, || {
            format!(
                "{} statuses (valid: 1 to {EXPECTED_MAX}, such as [200, \"300-399\"])",
                elements.len()
            )
        });
        return None;
    }
    let mut expected = Vec::with_capacity(elements.len());
    for (index, element) in elements.into_iter().enumerate() {
        expected.push(findings.keep(element, path.element(index), statuses(element)));
    }
    expected.into_iter().collect()
}

/// `200`, `"200-299"` or `"2xx"`.
fn statuses(value: Raw<'_>) -> Result<RangeInclusive<u16>, String> {
    let found = match (value.number(), value.string()) {
        (Some(_), _) => match whole(value, STATUSES) {
            Ok(status) => return Ok(status..=status),
            Err(_) => value.described(),
        },
        (None, Ok(text)) => match parse_statuses(&text) {
            Some(range) => return Ok(range),
            None => Quoted(&text).to_string(),
        },
        (None, Err(_)) => value.described(),
    };
    Err(format!(
        "expected a status from {} to {}, a range such as \"200-299\" or a class such as \"2xx\", \
         found {found}",
        STATUSES.start(),
        STATUSES.end()
    ))
}

fn parse_statuses(text: &str) -> Option<RangeInclusive<u16>> {
    if let [class @ b'1'..=b'5', b'x', b'x'] = text.as_bytes() {
        let first = u16::from(class - b'0') * 100;
        return Some(first..=first + 99);
    }
    let (from, to) = text.split_once('-')?;
    let (from, to) = (status(from)?, status(to)?);
    (from <= to).then_some(from..=to)
}

fn status(text: &str) -> Option<u16> {
    // `parse` would take a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|status| digits && STATUSES.contains(status))
}
