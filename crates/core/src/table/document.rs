//! The raw serde form of a routing document: one pass over valid JSON of the right shape.
//! `placements` and `defaults` stay text here; `placements` reads them for both paths.
//!
//! A document may have a million keys, so there is no intermediate tree: keys are handed to
//! the builder of the table's own structure, and the name of a placement is stored once
//! however many keys it has. Unknown fields, bad values and duplicate names are refused here;
//! serde's own maps keep the last of two. Duplicate routing keys are found when the builder
//! finishes. Nobody sees the error texts of this file: `diagnose` writes those.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::assigned::Routing;
use super::canonical;
use super::endpoint::Endpoint;
use super::findings::Findings;
use super::locate::Raw;
use super::placements::{self, Cell, Section};
use super::routing_table::Placement;
use super::rules::{check_placement_name, check_version};

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

pub(super) const VERSION: &str = "version";
pub(super) const ROUTING_TABLE: &str = "routingTable";
pub(super) const DEFAULTS: &str = "defaults";
pub(super) const PLACEMENTS: &str = "placements";
pub(super) const CELL_ENDPOINTS: &str = "cellEndpoints";
pub(super) const DEFAULT_PLACEMENT: &str = "defaultPlacement";

/// The fields of a document's head.
pub(super) const HEAD_FIELDS: [&str; 5] = [
    VERSION,
    DEFAULTS,
    PLACEMENTS,
    CELL_ENDPOINTS,
    DEFAULT_PLACEMENT,
];

/// A document whose values, as far as they have been read, are valid each by itself. Names
/// are resolved later, as they may come before what they refer to.
pub(super) struct Document<'a> {
    version: String,
    /// None in a head.
    pub routing: Option<Routing>,
    defaults: Option<Raw<'a>>,
    /// `cellEndpoints` and `placements`, at least one of them, in the order of the
    /// document.
    sections: Vec<Section<'a>>,
    default: String,
    /// The text of the head, by field.
    head: [(&'static str, Option<Raw<'a>>); HEAD_FIELDS.len()],
}

/// A document without its keys, before names are resolved.
pub(super) struct Linkable {
    pub version: String,
    pub placements: Vec<Placement>,
    pub default: String,
    /// The head in canonical form.
    pub json: String,
}

impl<'a> Document<'a> {
    /// Reads the placements. Returns them with the keys.
    pub fn into_parts(self, text: &'a str) -> Result<(Linkable, Option<Routing>), String> {
        let mut findings = Findings::first(text);
        let placements = placements::read(self.defaults, self.sections, &mut findings);
        let Some(placements) = placements.filter(|_| findings.count() == 0) else {
            return Err("placements or defaults have problems".to_owned());
        };
        let head = Linkable {
            version: self.version,
            placements: placements.into_placements(),
            default: self.default,
            // Only now is it known not to be too deep.
            json: canonical::object(self.head)?,
        };
        Ok((head, self.routing))
    }
}

impl<'de> Deserialize<'de> for Document<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a routing document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document<'de>, A::Error> {
        let (mut version, mut routing, mut default) = (None, None, None);
        let (mut defaults, mut placements, mut cells) = (None, None, None);
        let mut sections = Vec::new();
        while let Some(field) = map.next_key::<Field>()? {
            match field {
                Field::Version => once(&mut version, map.next_value::<&RawValue>()?)?,
                Field::RoutingTable => once(&mut routing, map.next_value()?)?,
                Field::Defaults => once(&mut defaults, map.next_value::<&RawValue>()?.into())?,
                Field::Placements => {
                    let value = map.next_value::<&RawValue>()?.into();
                    once(&mut placements, value)?;
                    sections.push(Section::Placements(value));
                }
                Field::CellEndpoints => {
                    let value = map.next_value::<&RawValue>()?;
                    once(&mut cells, value.into())?;
                    let Cells(read) = reread(value)?;
                    sections.push(Section::Cells(read));
                }
                Field::DefaultPlacement => once(&mut default, map.next_value::<&RawValue>()?)?,
            }
        }
        let version_value = required(version, VERSION)?;
        let version: String = reread(version_value)?;
        check_version(&version).map_err(Error::custom)?;
        if sections.is_empty() {
            return Err(Error::missing_field(PLACEMENTS));
        }
        let default = required(default, DEFAULT_PLACEMENT)?;
        let head = [
            (VERSION, Some(version_value.into())),
            (DEFAULTS, defaults),
            (PLACEMENTS, placements),
            (CELL_ENDPOINTS, cells),
            (DEFAULT_PLACEMENT, Some(default.into())),
        ];
        Ok(Document {
            version,
            routing,
            defaults,
            sections,
            default: reread(default)?,
            head,
        })
    }
}

/// Parses a field that was kept as text.
fn reread<'de, T: Deserialize<'de>, E: Error>(value: &'de RawValue) -> Result<T, E> {
    serde_json::from_str(value.get()).map_err(E::custom)
}

fn once<T, E: Error>(slot: &mut Option<T>, value: T) -> Result<(), E> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::custom("duplicate field")),
    }
}

fn required<T, E: Error>(slot: Option<T>, field: &'static str) -> Result<T, E> {
    slot.ok_or_else(|| E::missing_field(field))
}

#[derive(Deserialize)]
#[serde(field_identifier)]
enum Field {
    #[serde(rename = "version")]
    Version,
    #[serde(rename = "routingTable")]
    RoutingTable,
    #[serde(rename = "defaults")]
    Defaults,
    #[serde(rename = "placements")]
    Placements,
    #[serde(rename = "cellEndpoints")]
    CellEndpoints,
    #[serde(rename = "defaultPlacement")]
    DefaultPlacement,
}

/// `cellEndpoints`, in order.
struct Cells<'a>(Vec<Cell<'a>>);

impl<'de> Deserialize<'de> for Cells<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(CellsVisitor)
    }
}

struct CellsVisitor;

impl<'de> Visitor<'de> for CellsVisitor {
    type Value = Cells<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of placements and endpoints")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cells<'de>, A::Error> {
        let mut cells = Vec::new();
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            check_placement_name(&name).map_err(Error::custom)?;
            let endpoint = map.next_value_seed(EndpointSeed)?;
            if !seen.insert(name.clone()) {
                return Err(Error::custom("duplicate placement"));
            }
            cells.push(Cell {
                name: name.into(),
                key: None,
                endpoint: Some(endpoint),
            });
        }
        Ok(Cells(cells))
    }
}

struct EndpointSeed;

impl<'de> DeserializeSeed<'de> for EndpointSeed {
    type Value = Endpoint;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Endpoint, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for EndpointSeed {
    type Value = Endpoint;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the URL of a cell")
    }

    fn visit_str<E: Error>(self, url: &str) -> Result<Endpoint, E> {
        url.parse().map_err(E::custom)
    }
}
