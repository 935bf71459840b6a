//! JSON helpers that serde does not have.

use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserializer, Serializer};

use super::limits::DELTA_KEYS;

/// The length of `text` as a JSON string, in bytes, as serde_json writes it.
pub(super) fn string_bytes(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    2 + text.bytes().map(escaped).sum::<usize>()
}

/// Pairs as an object, in their order. Duplicate names are kept, so that applying them can fail.
pub(super) mod pairs {
    use super::{DELTA_KEYS, Deserializer, Error, MapAccess, SerializeMap, Serializer};
    use super::{Visitor, fmt};

    type Pairs = Vec<(String, String)>;

    pub fn serialize<S: Serializer>(pairs: &Pairs, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(pairs.len()))?;
        for (name, value) in pairs {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Pairs, D::Error> {
        struct PairsVisitor;

        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of routing keys and placements")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    if pairs.len() >= DELTA_KEYS {
                        return Err(A::Error::custom(format!("more than {DELTA_KEYS} keys")));
                    }
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }

        deserializer.deserialize_map(PairsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::string_bytes;

    #[test]
    fn counts_what_serde_json_writes() {
        let all: String = (0..0x500).filter_map(char::from_u32).collect();
        for text in ["", "acme", &all, "\"", "\u{7f}", "…"] {
            assert_eq!(
                string_bytes(text),
                serde_json::to_string(text).unwrap().len(),
                "{text:?}"
            );
        }
    }
}
