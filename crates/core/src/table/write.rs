//! A table as a document again.

use std::io::{self, Write};

use super::routing_table::RoutingTable;

impl RoutingTable {
    /// Writes the document that says what this table does, as JSON on one line. Keys
    /// are in no particular order.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        // Once each, and not for every key that lives there.
        let names: Vec<String> = self
            .placements()
            .iter()
            .map(|placement| serde_json::to_string(&placement.name))
            .collect::<Result<_, _>>()?;
        out.write_all(b"{\"routingTable\":{")?;
        for (nth, (key, placement)) in self.keys().enumerate() {
            if nth > 0 {
                out.write_all(b",")?;
            }
            serde_json::to_writer(&mut *out, key)?;
            out.write_all(b":")?;
            let name = names.get(placement.index()).map_or("", String::as_str);
            out.write_all(name.as_bytes())?;
        }
        // The head is an object with fields, in one line.
        let fields = self.head_json().get(1..).unwrap_or_default();
        write!(out, "}},{fields}")
    }
}
