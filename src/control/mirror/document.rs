//! A table as people like to read it: one key a line, in order.

use std::io::{self, Write};

use serde_json::{Map, Value};

use crate::routing::RoutingTable;

/// Writes the document of `table`. It is the same for tables of the same content.
///
/// # Errors
/// Those of `out`.
pub(super) fn write(table: &RoutingTable, out: &mut dyn Write) -> io::Result<()> {
    let mut head: Map<String, Value> = serde_json::from_str(table.head_json())?;
    out.write_all(b"{\n")?;
    if let Some(version) = head.remove("version") {
        field(out, "version", &version)?;
    }
    for (name, value) in &head {
        field(out, name, value)?;
    }
    // Last, for it is the longest.
    out.write_all(b"  \"routingTable\": {")?;
    let mut keys: Vec<_> = table.keys().collect();
    keys.sort_unstable_by_key(|(key, _)| *key);
    for (nth, (key, placement)) in keys.iter().enumerate() {
        out.write_all(if nth > 0 { b",\n    " } else { b"\n    " })?;
        serde_json::to_writer(&mut *out, key)?;
        out.write_all(b": ")?;
        serde_json::to_writer(&mut *out, &table.placement(*placement).name)?;
    }
    out.write_all(if keys.is_empty() {
        b"}\n}\n"
    } else {
        b"\n  }\n}\n"
    })
}

fn field(out: &mut dyn Write, name: &str, value: &Value) -> io::Result<()> {
    let text = serde_json::to_string_pretty(value)?.replace('\n', "\n  ");
    out.write_all(b"  ")?;
    serde_json::to_writer(&mut *out, name)?;
    writeln!(out, ": {text},")
}
