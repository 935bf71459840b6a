//! Reads a valid routing document in one pass of serde.
//!
//! A document may have millions of keys, so there is no intermediate tree: keys go straight
//! into the builder of the table's own structure, and the name of a placement is stored once
//! however many keys it has. `defaults` and the declarations of placements stay text;
//! `placements` reads them. Nobody sees the error texts of this file: `diagnose` writes those.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::num::TryFromIntError;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::digest::{self, Entries};
use super::findings::Findings;
use super::json::Raw;
use super::keys::{Builder, Keys, Seed};
use super::placements::{self, Section};
use super::routing_table::{Counts, Placement};
use super::values::{check_key, check_version};
use crate::pace;

pub(super) const VERSION: &str = "version";
pub(super) const ROUTING_TABLE: &str = "routingTable";
pub(super) const DEFAULTS: &str = "defaults";
pub(super) const PLACEMENTS: &str = "placements";
pub(super) const CELL_ENDPOINTS: &str = "cellEndpoints";
pub(super) const DEFAULT_PLACEMENT: &str = "defaultPlacement";

/// The fields of a document. All are required except `defaults`, and except one of
/// `placements` and `cellEndpoints`.
pub(super) const FIELDS: [&str; 6] = [
    VERSION,
    ROUTING_TABLE,
    DEFAULTS,
    PLACEMENTS,
    CELL_ENDPOINTS,
    DEFAULT_PLACEMENT,
];

/// The fields of a head, which is a document without its keys.
pub(super) const HEAD_FIELDS: [&str; 5] = [
    VERSION,
    DEFAULTS,
    PLACEMENTS,
    CELL_ENDPOINTS,
    DEFAULT_PLACEMENT,
];

/// A head whose values are valid, each by itself. Names of placements are not resolved yet.
pub(super) struct ParsedHead {
    pub version: String,
    pub placements: Vec<Placement>,
    pub default: String,
    /// The head in canonical form.
    pub json: String,
}

/// Reads a document; its keys are `None` if it has no `routingTable`.
///
/// # Errors
///
/// The first error that is found. The caller runs `diagnose` for a list of all problems.
pub(super) fn read(text: &str) -> Result<(ParsedHead, Option<Routing>), String> {
    // serde would also read the fields of a struct from an array.
    if !text.trim_start().starts_with('{') {
        return Err("expected an object".to_owned());
    }
    let document: Document<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    document.check(text)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Document<'a> {
    #[serde(borrow)]
    version: Raw<'a>,
    #[serde(default, deserialize_with = "present")]
    routing_table: Option<Routing>,
    #[serde(borrow, default, deserialize_with = "present")]
    defaults: Option<Raw<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    placements: Option<Raw<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    cell_endpoints: Option<Raw<'a>>,
    #[serde(borrow)]
    default_placement: Raw<'a>,
}

/// Reads an optional field. Unlike serde, it does not take null for a missing field.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

fn string(value: Raw<'_>) -> Result<String, String> {
    match value.string() {
        Ok(text) => Ok(text.into_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl Document<'_> {
    fn check(self, text: &str) -> Result<(ParsedHead, Option<Routing>), String> {
        let version = string(self.version)?;
        check_version(&version)?;
        let default = string(self.default_placement)?;

        let mut sections: Vec<_> = [
            (Section::Placements, self.placements),
            (Section::CellEndpoints, self.cell_endpoints),
        ]
        .into_iter()
        .filter_map(|(section, value)| Some((section, value?)))
        .collect();
        sections.sort_by_key(|(_, value)| value.offset_in(text));
        let mut findings = Findings::first(text);
        let placements = placements::read(self.defaults, sections, &mut findings);
        let Some(placements) = placements.filter(|_| findings.count() == 0) else {
            return Err("placements or defaults have problems".to_owned());
        };
        let head = ParsedHead {
            version,
            placements: placements.into_placements(),
            default,
            // After `placements::read`, which refuses values that nest too deeply for this.
            json: digest::canonical([
                (VERSION, Some(self.version)),
                (DEFAULTS, self.defaults),
                (PLACEMENTS, self.placements),
                (CELL_ENDPOINTS, self.cell_endpoints),
                (DEFAULT_PLACEMENT, Some(self.default_placement)),
            ])?,
        };
        Ok((head, self.routing_table))
    }
}

/// The content of `routingTable`: keys with the ids of their placements' names.
pub(super) struct Routing {
    pub keys: Keys,
    /// The names by id.
    pub names: Vec<Box<str>>,
    /// The number of keys of each name id.
    pub counts: Counts,
    pub entries: Entries,
}

impl<'de> Deserialize<'de> for Routing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RoutingVisitor)
    }
}

struct RoutingVisitor;

/// A string that is borrowed from the document unless it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for RoutingVisitor {
    type Value = Routing;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of routing keys and placements")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Routing, A::Error> {
        let mut keys = Builder::<Seed>::new();
        let mut names = Names::default();
        let mut entries = Entries::default();
        while let Some((Text(key), Text(name))) = map.next_entry()? {
            check_key(&key).map_err(Error::custom)?;
            let id = names.count(&name).map_err(Error::custom)?;
            keys.push(key.as_bytes(), id);
            entries.add(&key, &name);
            pace::step();
        }
        let mut counts = Counts::default();
        for (id, count) in names.counts.into_iter().enumerate() {
            *counts.at(id) = count;
        }
        Ok(Routing {
            keys: keys.finish().map_err(Error::custom)?,
            names: names.list,
            counts,
            entries,
        })
    }
}

/// Placement names in the order of their first use.
#[derive(Default)]
struct Names {
    list: Vec<Box<str>>,
    /// The number of uses of each.
    counts: Vec<usize>,
    ids: HashMap<Box<str>, u32>,
}

impl Names {
    /// Counts one use of `name`; returns its id.
    fn count(&mut self, name: &str) -> Result<u32, TryFromIntError> {
        if let Some(&id) = self.ids.get(name) {
            if let Some(count) = self.counts.get_mut(id as usize) {
                *count += 1;
            }
            return Ok(id);
        }
        let id = u32::try_from(self.list.len())?;
        self.list.push(name.into());
        self.counts.push(1);
        self.ids.insert(name.into(), id);
        Ok(id)
    }
}
