//! `health_check`.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use humantime::format_duration;

use super::fields::probe_host;
use super::fields::{duration, object, refuse_null, whole};
use super::policy::{DEADLINE, LONGEST, set};
use crate::table::findings::{Findings, Path};
use crate::table::locate::{NotText, Raw};
use crate::table::policy::HealthCheck;
use crate::table::wording::Quoted;

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

/// What a probe may be answered with: the statuses below are interim answers, or
/// switch to a protocol that no probe asks for (RFC 9110, section 15.2).
const STATUSES: RangeInclusive<u16> = 200..=599;

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
    let is_object = object(value, path, &FIELDS, findings, |entry, findings| {
        let (value, path) = (entry.value, path.child(&entry.name));
        if refuse_null(&entry, path, findings) {
            times.readable &= !matches!(&*entry.name, INTERVAL | TIMEOUT);
            return;
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
    });
    times.readable &= is_object;
    (check, times)
}

/// The path and query of a request's target (RFC 9112, section 3.2.1).
fn probe_path(value: Raw<'_>) -> Result<String, BadPath<'_>> {
    let path = value.string().map_err(BadPath::NotText)?;
    if !path.starts_with('/') {
        return Err(BadPath::NoSlash(path));
    }
    if path.len() > PATH_MAX {
        return Err(BadPath::TooLong(path.len()));
    }
    if path.contains('#') {
        return Err(BadPath::Fragment(path));
    }
    // RFC 3986, section 2 has none of these four. Of others that it has not,
    // such as the bar, servers take what is sent.
    let valid = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '`');
    match path.chars().find(|character| !valid(*character)) {
        Some(character) => Err(BadPath::Character(path, character)),
        None => Ok(path.into_owned()),
    }
}

/// Why a value is no path of a probe.
enum BadPath<'a> {
    NotText(NotText<'a>),
    NoSlash(Cow<'a, str>),
    TooLong(usize),
    Fragment(Cow<'a, str>),
    Character(Cow<'a, str>, char),
}

impl fmt::Display for BadPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotText(why) => why.fmt(f),
            Self::NoSlash(path) => write!(f, "path {} does not begin with a slash", Quoted(path)),
            Self::TooLong(bytes) => write!(f, "path of {bytes} bytes (at most {PATH_MAX})"),
            Self::Fragment(path) => write!(
                f,
                "path {} has a fragment, which no request carries (cut it off)",
                Quoted(path)
            ),
            Self::Character(path, character) => write!(
                f,
                "path {} contains U+{:04X} (valid is visible ASCII but for \" < > `; \
                 percent-encode the rest)",
                Quoted(path),
                u32::from(*character)
            ),
        }
    }
}

/// One range of statuses, or an array of them. Those that cannot be read are
/// reported.
fn expected_status<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    findings: &mut Findings<'a>,
) -> Option<Vec<RangeInclusive<u16>>> {
    let (elements, count) = match value.elements(EXPECTED_MAX) {
        None => return Some(vec![findings.keep(value, path, statuses(value))?]),
        Some(Ok(elements)) => {
            let count = elements.len();
            (elements, count)
        }
        Some(Err(count)) => (Vec::new(), count),
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

/// `200`, `"200-299"` or `"2xx"`.
fn statuses(value: Raw<'_>) -> Result<RangeInclusive<u16>, NotStatuses<'_>> {
    let read = match value.number() {
        Some(_) => whole(value, STATUSES).ok().map(|status| status..=status),
        None => value.string().ok().and_then(|text| parse_statuses(&text)),
    };
    read.ok_or(NotStatuses(value))
}

struct NotStatuses<'a>(Raw<'a>);

impl fmt::Display for NotStatuses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "expected a status from {} to {}, a range such as \"200-299\" or a class such as \
             \"2xx\", found ",
            STATUSES.start(),
            STATUSES.end()
        )?;
        match self.0.string() {
            Ok(text) => Quoted(&text).fmt(f),
            Err(_) => self.0.described().fmt(f),
        }
    }
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
    // `parse` would take a sign, and more zeros.
    let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|status| digits && STATUSES.contains(status))
}
