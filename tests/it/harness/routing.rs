//! Routing documents for tests.

use serde_json::{Map, Value, json};

use super::cell::Cell;

/// A routing document of version `version`.
pub fn document(version: &str, table: Value, endpoints: Value, default: &str) -> Value {
    json!({
        "version": version,
        "routingTable": table,
        "cellEndpoints": endpoints,
        "defaultPlacement": default,
    })
}

/// A routing document of the second format: `acme` lives in the placement `one`, and so does every
/// key that is not in the table.
pub fn guarded(version: &str, placements: Value) -> Value {
    json!({
        "version": version,
        "routingTable": {"acme": "one"},
        "placements": placements,
        "defaultPlacement": "one",
    })
}

/// `cellEndpoints` for these cells, each under its own name.
pub fn placements(cells: &[&Cell]) -> Value {
    let named = cells
        .iter()
        .map(|cell| (cell.name.clone(), Value::String(cell.url())));
    Value::Object(named.collect::<Map<_, _>>())
}

/// `routingTable` from pairs of a key and a placement.
pub fn table(pairs: &[(&str, &str)]) -> Value {
    let pairs = pairs
        .iter()
        .map(|(key, to)| ((*key).to_owned(), Value::String((*to).to_owned())));
    Value::Object(pairs.collect::<Map<_, _>>())
}

/// A routing document of the placements `tier1` and `tier2`, where nobody listens.
pub fn tiers(version: &str, table: Value) -> Value {
    let endpoints = json!({"tier1": "http://127.0.0.1:1", "tier2": "http://127.0.0.1:2"});
    document(version, table, endpoints, "tier1")
}

/// Two cells, and documents that send `acme` to either.
pub struct Two {
    pub one: Cell,
    pub two: Cell,
}

impl Two {
    pub async fn new() -> Two {
        Two {
            one: Cell::echo("one").await,
            two: Cell::echo("two").await,
        }
    }

    pub fn to(&self, version: &str, placement: &str) -> Value {
        let routes = table(&[("acme", placement)]);
        document(version, routes, placements(&[&self.one, &self.two]), "one")
    }
}
