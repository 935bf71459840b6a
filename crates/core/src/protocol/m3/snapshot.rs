//! A whole document in one message: the fields of a routing document next to `type`.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::protocol::bounds::cut;
use crate::protocol::limits::VALUE_BYTES;
use crate::protocol::message::{Received, decode};
use crate::protocol::refusal::Refusal;
use crate::table::RoutingTable;

const TYPE: &str = "config_snapshot";
const ROUTING_TABLE: &str = "routingTable";
const CELL_ENDPOINTS: &str = "cellEndpoints";
const PLACEMENTS: &str = "placements";

/// The fields of a routing document. All others are ignored.
const FIELDS: [&str; 6] = [
    "version",
    ROUTING_TABLE,
    "defaults",
    PLACEMENTS,
    CELL_ENDPOINTS,
    "defaultPlacement",
];

/// A document from a control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSnapshot {
    /// The version to answer with; empty if it is not a string, which also makes the document invalid.
    pub version: String,
    /// The routing document as JSON.
    pub document: String,
}

impl ConfigSnapshot {
    /// Decodes a text frame of at most `most` bytes. The document is not validated.
    ///
    /// # Errors
    ///
    /// The frame is too large, or not JSON; the connection must be closed so.
    pub fn decode(frame: &[u8], most: usize) -> Result<Received<Self>, Refusal> {
        let read = |kind: &str, text: &str| {
            (kind == TYPE).then(|| {
                let Fields(fields) = serde_json::from_str(text)?;
                Ok(Self::from_fields(&fields))
            })
        };
        decode(frame, most, read, |_| Ok(()))
    }

    fn from_fields(fields: &[(String, &RawValue)]) -> Self {
        let value = |field: &str| fields.iter().find(|(name, _)| name == field);
        let mut version: String = value("version")
            .and_then(|(_, version)| serde_json::from_str(version.get()).ok())
            .unwrap_or_default();
        cut(&mut version, VALUE_BYTES);
        let placements: HashSet<String> = value(PLACEMENTS)
            .and_then(|(_, placements)| serde_json::from_str(placements.get()).ok())
            .map(|Fields(fields)| fields.into_iter().map(|(name, _)| name).collect())
            .unwrap_or_default();

        let mut document = String::from("{");
        for (name, value) in fields {
            // Programs in Go encode an empty map as null.
            if value.get() == "null" || !FIELDS.contains(&name.as_str()) {
                continue;
            }
            let others = others(name, value, &placements);
            if others.as_deref() == Some("{}") {
                continue;
            }
            if document.len() > 1 {
                document.push(',');
            }
            let value = others.as_deref().unwrap_or(value.get());
            document.push_str(&format!("\"{name}\":{value}"));
        }
        document.push('}');
        Self { version, document }
    }
}

/// `cellEndpoints` without the names in `placements`, which appear in both fields for edges that know
/// only one of them. None: the value is to be used as it is.
fn others(field: &str, value: &RawValue, placements: &HashSet<String>) -> Option<String> {
    if field != CELL_ENDPOINTS || placements.is_empty() {
        return None;
    }
    let Fields(endpoints) = serde_json::from_str(value.get()).ok()?;
    let others = endpoints
        .iter()
        .filter(|(name, _)| !placements.contains(name))
        .map(|(name, endpoint)| format!("{}:{}", Value::from(name.as_str()), endpoint.get()));
    Some(format!("{{{}}}", others.collect::<Vec<_>>().join(",")))
}

/// Encodes a table. Each placement in `placements` also has its first endpoint in `cellEndpoints`, for
/// edges that do not know `placements`.
pub fn encode_snapshot(table: &RoutingTable) -> String {
    let mut head: Map<String, Value> = serde_json::from_str(table.head_json()).unwrap_or_default();
    let endpoints = head
        .entry(CELL_ENDPOINTS)
        .or_insert_with(|| Map::new().into());
    if let Some(endpoints) = endpoints.as_object_mut() {
        for placement in table.placements() {
            if let Some(first) = placement.endpoints.first() {
                endpoints
                    .entry(&*placement.name)
                    .or_insert_with(|| first.endpoint.to_string().into());
            }
        }
    }
    let mut text = format!("{{\"type\":\"{TYPE}\"");
    for (field, value) in &head {
        text.push_str(&format!(",\"{field}\":{value}"));
    }
    text.push_str(&format!(",\"{ROUTING_TABLE}\":{{"));
    let names: Vec<String> = table
        .placements()
        .iter()
        .map(|placement| Value::from(&*placement.name).to_string())
        .collect();
    for (index, (key, placement)) in table.keys().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&Value::from(key).to_string());
        text.push(':');
        text.push_str(names.get(placement.index()).map_or("", String::as_str));
    }
    text.push_str("}}");
    text
}

/// The members of an object in their order, with their values as JSON text.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    fields.push((name, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}
