//! Where a placement's requests go: `url`, or `endpoints`.

use std::collections::HashMap;

use super::fields::{refuse_null, whole};
use super::policy;
use crate::table::endpoint::Endpoint;
use crate::table::findings::{Findings, Path};
use crate::table::locate::Raw;
use crate::table::object::{Entry, Strays, fields};
use crate::table::routing_table::WeightedEndpoint;

const URL: &str = "url";
const ENDPOINTS: &str = "endpoints";
const WEIGHT: &str = "weight";

/// Most endpoints of one placement.
const ENDPOINTS_MAX: usize = 1000;

/// What a placement may say.
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

/// The endpoints of one placement while they are being read.
#[derive(Default)]
pub(super) struct Targets<'a> {
    /// Empty while there is none, or a problem with one.
    pub endpoints: Box<[WeightedEndpoint]>,
    url: Option<Raw<'a>>,
    list: Option<Raw<'a>>,
}

impl<'a> Targets<'a> {
    /// Reads `entry` when it is `url` or `endpoints`. What cannot be read is
    /// reported; null, which no field can be, is left to the caller.
    pub fn field(&mut self, entry: &Entry<'a>, path: Path<'_>, findings: &mut Findings<'a>) {
        let value = entry.value;
        match &*entry.name {
            URL => {
                self.url = Some(value);
                if !value.is_null()
                    && let Some(endpoint) = url(value, path, findings)
                {
                    self.endpoints = Box::new([WeightedEndpoint {
                        endpoint,
                        weight: 1,
                    }]);
                }
            }
            ENDPOINTS => {
                self.list = Some(value);
                if !value.is_null() {
                    self.endpoints = list(value, path, findings);
                }
            }
            _ => {}
        }
    }

    /// Reports that the placement has neither `url` nor `endpoints`, or both.
    /// One that was misspelt is among the `strays`, which are reported already.
    pub fn check(
        &self,
        placement: Raw<'a>,
        strays: &Strays<'a>,
        path: Path<'_>,
        findings: &mut Findings<'a>,
    ) {
        match (self.url, self.list) {
            (None, None) if strays.look_like(&[URL, ENDPOINTS], &PLACEMENT_FIELDS) => {}
            (None, None) => findings.at(
                placement,
                path,
                || "missing field \"url\" (or \"endpoints\" for several)",
            ),
            // Null is a problem of its own, and its words say to leave it out.
            (Some(url), Some(list)) if !url.is_null() && !list.is_null() => findings.at(
                list,
                path.child(ENDPOINTS),
                || "endpoints beside a url (keep one of them)",
            ),
            _ => {}
        }
    }
}

fn url<'a>(value: Raw<'a>, path: Path<'_>, findings: &mut Findings<'a>) -> Option<Endpoint> {
    let text = findings.keep(value, path, value.string())?;
    findings.keep(value, path, text.parse())
}

fn list<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    findings: &mut Findings<'a>,
) -> Box<[WeightedEndpoint]> {
    let (elements, count) = match value.elements(ENDPOINTS_MAX) {
        None => {
            findings.at(value, path, || {
                format!(
                    "expected an array such as [{{\"url\": \"http://host:port\"}}], found {}",
                    value.described()
                )
            });
            return Box::default();
        }
        Some(Ok(elements)) => {
            let count = elements.len();
            (elements, count)
        }
        Some(Err(count)) => (Vec::new(), count),
    };
    if elements.is_empty() {
        findings.at(value, path, || {
            format!("{count} endpoints (valid: 1 to {ENDPOINTS_MAX})")
        });
        return Box::default();
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

/// `{"url": …, "weight": …}`, with the place of its URL.
fn weighted<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    findings: &mut Findings<'a>,
) -> Option<(WeightedEndpoint, Raw<'a>)> {
    const FIELDS: [&str; 2] = [URL, WEIGHT];
    let (mut target, mut weight) = (None, 1);
    let strays = fields(value, path, &FIELDS, findings, |entry, findings| {
        let (value, path) = (entry.value, path.child(&entry.name));
        if entry.name == URL {
            target = Some((None, value));
        }
        if refuse_null(&entry, path, findings) {
            return;
        }
        match &*entry.name {
            URL => target = Some((url(value, path, findings), value)),
            WEIGHT => policy::set(
                &mut weight,
                findings.keep(value, path, whole(value, 1..=1000)),
            ),
            _ => {}
        }
    });
    let Some(strays) = strays else {
        findings.at(value, path, || {
            let found = value.described();
            format!("expected an object such as {{\"url\": \"http://host:port\"}}, found {found}")
        });
        return None;
    };
    let Some((endpoint, place)) = target else {
        if !strays.look_like(&[URL], &FIELDS) {
            findings.at(value, path, || "missing field \"url\"");
        }
        return None;
    };
    Some((
        WeightedEndpoint {
            endpoint: endpoint?,
            weight,
        },
        place,
    ))
}
