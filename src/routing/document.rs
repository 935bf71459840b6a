//! The serde twin of a routing document: what valid JSON of the right shape
//! becomes in one pass. `placements` and `defaults` stay text here; they are
//! read by `placements`, which both paths share.
//!
//! A document may hold a million keys, so nothing is read into an intermediate
//! tree: keys go straight into the map that the table keeps, and the name of a
//! placement is stored once however many keys live there. Duplicate keys,
//! unknown fields and bad values are refused here and now, which takes maps
//! that know what they have seen; serde's own keep the last of two and say
//! nothing. The words of these errors reach nobody: see `diagnose` for those.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::endpoint::Endpoint;
use super::locate::Raw;
use super::placements::{Cell, Section};
use super::rules::{check_key, check_placement_name, check_version};
use super::table::{Key, PlacementId};

/// The fields of a document. All are required but `defaults`, and one of
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

/// A document whose values are each valid, as far as they have been read; that
/// its names stand for something is for the table to find out, since they may
/// come before what they name.
pub(super) struct Document<'a> {
    pub version: String,
    pub routing: Routing,
    pub defaults: Option<Raw<'a>>,
    /// `cellEndpoints` and `placements`, one of them at least, in the order of
    /// the document.
    pub sections: Vec<Section<'a>>,
    pub default: String,
}

/// `routingTable`: keys with the names of their placements, each name kept once.
#[derive(Default)]
pub(super) struct Routing {
    keys: HashMap<Key, PlacementId>,
    names: Names,
}

impl Routing {
    /// The keys, and the names that their ids are indices into.
    pub fn into_parts(self) -> (HashMap<Key, PlacementId>, Vec<Box<str>>) {
        (self.keys, self.names.list)
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
        let (mut defaults, mut placements, mut endpoints) = (None, None, None);
        let mut sections = Vec::new();
        while let Some(field) = map.next_key::<Field>()? {
            match field {
                Field::Version => once(&mut version, map.next_value()?)?,
                Field::RoutingTable => once(&mut routing, map.next_value()?)?,
                Field::Defaults => once(&mut defaults, map.next_value::<&RawValue>()?.into())?,
                Field::Placements => {
                    once(&mut placements, ())?;
                    sections.push(Section::Placements(map.next_value::<&RawValue>()?.into()));
                }
                Field::CellEndpoints => {
                    once(&mut endpoints, ())?;
                    sections.push(Section::Cells(map.next_value::<Cells<'de>>()?.0));
                }
                Field::DefaultPlacement => once(&mut default, map.next_value()?)?,
            }
        }
        let version: String = required(version, VERSION)?;
        check_version(&version).map_err(Error::custom)?;
        if sections.is_empty() {
            return Err(Error::missing_field(PLACEMENTS));
        }
        Ok(Document {
            version,
            routing: required(routing, ROUTING_TABLE)?,
            defaults,
            sections,
            default: required(default, DEFAULT_PLACEMENT)?,
        })
    }
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

impl<'de> Deserialize<'de> for Routing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RoutingVisitor)
    }
}

struct RoutingVisitor;

impl<'de> Visitor<'de> for RoutingVisitor {
    type Value = Routing;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of routing keys and placements")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Routing, A::Error> {
        let mut routing = Routing::default();
        while let Some(key) = map.next_key::<Box<str>>()? {
            check_key(&key).map_err(Error::custom)?;
            let id = map.next_value_seed(&mut routing.names)?;
            match routing.keys.entry(Key(key)) {
                Entry::Vacant(entry) => entry.insert(id),
                Entry::Occupied(_) => return Err(Error::custom("duplicate routing key")),
            };
        }
        Ok(routing)
    }
}

/// Placement names in the order of their first mention.
#[derive(Default)]
struct Names {
    list: Vec<Box<str>>,
    ids: HashMap<Box<str>, PlacementId>,
}

impl<'de> DeserializeSeed<'de> for &mut Names {
    type Value = PlacementId;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<PlacementId, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for &mut Names {
    type Value = PlacementId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a placement")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<PlacementId, E> {
        if let Some(&id) = self.ids.get(name) {
            return Ok(id);
        }
        let id = PlacementId(u32::try_from(self.list.len()).map_err(E::custom)?);
        self.list.push(name.into());
        self.ids.insert(name.into(), id);
        Ok(id)
    }
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
