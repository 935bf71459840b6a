//! What holds for all of the protocol.

mod batches;
mod bounds;
mod document;
mod golden;
mod hostile;
mod m3;
mod messages;
mod order;
mod snapshots;

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use crate::table::{RoutingTable, compile};

/// How many placements the tables have: p0, p1 and so on.
const PLACEMENTS: usize = 5;

/// A table of `keys`, each with the number of its placement.
fn table<'k>(version: &str, keys: impl IntoIterator<Item = (&'k str, usize)>) -> RoutingTable {
    let name = |index: usize| format!("p{index}");
    let placements: BTreeMap<_, _> = (0..PLACEMENTS)
        .map(|index| (name(index), json!({"url": format!("http://c{index}:80")})))
        .collect();
    let keys: BTreeMap<_, _> = keys
        .into_iter()
        .map(|(key, index)| (key, name(index)))
        .collect();
    let document = json!({
        "version": version, "routingTable": keys, "placements": placements,
        "defaultPlacement": "p0",
    });
    compile(document.to_string().as_bytes()).unwrap()
}

/// Few keys, so that tables share some.
fn key() -> impl Strategy<Value = String> {
    prop_oneof!["[a-f]", "[a-c\"\\\\é]{2,4}", "[a-z]{200,300}"]
}

fn any_table() -> impl Strategy<Value = RoutingTable> {
    let keys = prop::collection::btree_map(key(), 0..PLACEMENTS, 0..30);
    ("[1-3]", keys).prop_map(|(version, keys)| {
        table(&version, keys.iter().map(|(key, index)| (&**key, *index)))
    })
}

/// A table of very many keys.
fn large(keys: usize) -> RoutingTable {
    let names: Vec<_> = (0..keys)
        .map(|index| format!("tenant-{index:07}"))
        .collect();
    let homes = names
        .iter()
        .zip(0..)
        .map(|(key, index)| (&**key, index % PLACEMENTS));
    table("1", homes)
}

/// All of a table by names.
fn seen(table: &RoutingTable) -> (String, BTreeMap<String, String>) {
    let keys = table
        .keys()
        .map(|(key, id)| (key.to_owned(), table.placement(id).name.clone()));
    (table.head_json().to_string(), keys.collect())
}
