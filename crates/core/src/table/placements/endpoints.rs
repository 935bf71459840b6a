//! Reads where a placement's requests go: `url` or `endpoints`.

use std::collections::HashMap;

use super::policy;
use super::values::{refuse_null, whole};
use crate::table::endpoint::Endpoint;
use crate::table::findings::{Entry, Findings, Path, UnknownFields, fields};
use crate::table::json::Raw;
use crate::table::routing_table::WeightedEndpoint;

const URL: &str = "url";
const ENDPOINTS: &str = "endpoints";
const WEIGHT: &str = "weight";

/// Most endpoints of one placement.
const ENDPOINTS_MAX: usize = 1000;

/// The fields of a placement.
pub(super) const PLACEMENT_FIELDS: [&str; policy::FIELDS.len() + 2] = {
    let mut fields = [URL; policy::FIELDS.len() + 2];
    fields[1] = ENDPOINTS;
    let mut index = 0;
    while index < policy::FIELDS.len() {
        fields[index + 2] = policy::FIELDS[index];
        index += 1;
    }
    fields
};

/// Reads the endpoints of one placement.
#[derive(Default)]
pub(super) struct Endpoints<'a> {
    /// Empty if there is none or a problem with one.
    pub list: Box<[WeightedEndpoint]>,
    url: Option<Raw<'a>>,
    endpoints: Option<Raw<'a>>,
}

impl<'a> Endpoints<'a> {
    /// Reads `entry` if it is `url` or `endpoints`, and reports its problems. The caller
    /// reports null.
    pub fn field(&mut self, entry: &Entry<'a>, path: Path<'_>, findings: &mut Findings<'a>) {
        let value = entry.value;
        match &*entry.name {
            URL => {
                self.url = Some(value);
                if !value.is_null()
                    && let Some(endpoint) = url(value, path, findings)
                {
                    self.list = Box::new([endpoint.into()]);
                }
            }
            ENDPOINTS => {
                self.endpoints = Some(value);
                if !value.is_null() {
                    self.list = list(value, path, findings);
                }
            }
            _ => {}
        }
    }

    /// Reports a placement with neither `url` nor `endpoints`, or with both. A misspelling of
    /// one of them is among the `unknown` fields, which are reported already.
    pub fn check(
        &self,
        placement: Raw<'a>,
        unknown: &UnknownFields<'a>,
        path: Path<'_>,
        findings: &mut Findings<'a>,
    ) {
        match (self.url, self.endpoints) {
            (None, None) if unknown.look_like(&[URL, ENDPOINTS], &PLACEMENT_FIELDS) => {}
            (None, None) => findings.at(
                placement,
                path,
                || "missing field \"url\" (or \"endpoints\" for several)",
            ),
            // The message about null says to leave the field out.
            (Some(url), Some(list)) if !url.is_null() && !list.is_null() => findings.at(
                list,
                path.child(ENDPOINTS),
                || "endpoints beside a url (keep one of them)",
            ),
            _ => {}
        }
    }
}

/// Reads the URL of an endpoint.
pub(super) fn url<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    findings: &mut Findings<'a>,
) -> Option<Endpoint> {
    let text = findings.keep(value, path, value.string())?;
    findings.keep(value, path, text.parse())
}

fn list<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    findings: &mut Findings<'a>,
) -> Box<[WeightedEndpoint]> {
    let Some((elements, count)) = value.elements(ENDPOINTS_MAX) else {
        findings.at(value, path, || {
            let found = value.described();
            format!("expected an array such as [{{\"url\": \"http://host:port\"}}], found {found}")
        });
        return Box::default();
    };
    if elements.is_empty() {
        findings.at(value, path, || {
            format!("{count} endpoints (valid: 1 to {ENDPOINTS_MAX})")
        });
    }
    let mut endpoints = Vec::with_capacity(elements.len());
    let mut seen: HashMap<Endpoint, Raw<'a>> = HashMap::with_capacity(elements.len());
    for (index, element) in elements.into_iter().enumerate() {
        let path = path.element(index);
        let Some((endpoint, place)) = weighted(element, path, findings) else {
            continue;
        };
        match seen.get(&endpoint.endpoint) {
            Some(&first) => findings.duplicate(place, first, path.child(URL), || {
                format!("duplicate endpoint {}", endpoint.endpoint)
            }),
            None => drop(seen.insert(endpoint.endpoint.clone(), place)),
        }
        endpoints.push(endpoint);
    }
    endpoints.into()
}

/// Reads `{"url": …, "weight": …}`; also returns the place of the URL.
fn weighted<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    findings: &mut Findings<'a>,
) -> Option<(WeightedEndpoint, Raw<'a>)> {
    const FIELDS: [&str; 2] = [URL, WEIGHT];
    let (mut target, mut weight) = (None, 1);
    let unknown = fields(value, path, &FIELDS, findings, |entry, findings| {
        let (value, path) = (entry.value, path.child(&entry.name));
        let is_null = refuse_null(&entry, path, findings);
        match &*entry.name {
            URL if is_null => target = Some((None, value)),
            URL => target = Some((url(value, path, findings), value)),
            WEIGHT if !is_null => {
                findings.set(&mut weight, value, path, whole(value, 1..=1000_u32));
            }
            _ => {}
        }
    });
    let Some(unknown) = unknown else {
        findings.at(value, path, || {
            let found = value.described();
            format!("expected an object such as {{\"url\": \"http://host:port\"}}, found {found}")
        });
        return None;
    };
    let Some((endpoint, place)) = target else {
        if !unknown.look_like(&[URL], &FIELDS) {
            findings.at(value, path, || "missing field \"url\"");
        }
        return None;
    };
    let endpoint = endpoint?;
    Some((WeightedEndpoint { endpoint, weight }, place))
}
