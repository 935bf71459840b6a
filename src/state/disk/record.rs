//! What is stored of one generation beside a snapshot: its metadata, and the delta that makes
//! its table from that of an earlier generation.

use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize};

use super::journal::time;
use crate::files::Sha256;
use crate::state::generation::{Generation, Head, Source};
use crate::table::{Delta, Digest, RoutingTable};

/// In the database as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub generation: u64,
    /// Of the table; a table that is read back is compared with it.
    digest: Digest,
    source: Source,
    /// Of the document as it was applied; none when the table was pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<Sha256>,
    /// The control plane's number, if the table came from a control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    control_generation: Option<u64>,
    #[serde(with = "time")]
    applied_at: SystemTime,
    /// None: the table is in a snapshot only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delta: Option<StoredDelta>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredDelta {
    /// The number of the earlier generation.
    parent: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    set: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    remove: Vec<String>,
}

impl Record {
    /// `delta` is the number of an earlier generation, and what makes this table from its.
    pub fn new(generation: &Generation, delta: Option<(u64, Delta)>) -> Self {
        Self {
            generation: generation.number,
            digest: generation.table.digest(),
            source: generation.source,
            sha256: generation.sha256,
            control_generation: generation.control_generation,
            applied_at: generation.applied_at,
            delta: delta.map(|(parent, delta)| StoredDelta {
                parent,
                head: delta.head,
                set: delta.set,
                remove: delta.remove,
            }),
        }
    }

    /// # Errors
    ///
    /// `json` is not a record of the generation `number`.
    pub fn parse(json: &str, number: u64) -> Result<Self, String> {
        let record: Self = serde_json::from_str(json)
            .map_err(|error| format!("its record cannot be read: {error}"))?;
        match &record.delta {
            _ if record.generation != number => {
                Err(format!("its record is of generation {}", record.generation))
            }
            Some(delta) if delta.parent >= number => {
                Err(format!("its delta is of generation {}", delta.parent))
            }
            _ => Ok(record),
        }
    }

    /// The generation that the delta is of; none if there is no delta.
    pub fn parent(&self) -> Option<u64> {
        self.delta.as_ref().map(|delta| delta.parent)
    }

    pub fn head(&self) -> Head {
        Head {
            number: self.generation,
            sha256: self.sha256,
            source: self.source,
            control_generation: self.control_generation,
            applied_at: self.applied_at,
        }
    }

    /// Returns `table` if it is the one that was stored.
    ///
    /// # Errors
    ///
    /// It has another digest.
    pub fn check(&self, table: RoutingTable) -> Result<RoutingTable, String> {
        match table.digest() {
            digest if digest == self.digest => Ok(table),
            digest => Err(format!(
                "its table has the digest {digest}, not {}",
                self.digest
            )),
        }
    }

    /// The table of this generation, made by the delta from that of the parent.
    ///
    /// # Errors
    ///
    /// The delta does not lead to the table that was stored.
    pub fn apply(&self, parent: &RoutingTable) -> Result<RoutingTable, String> {
        let delta = self.delta.as_ref().ok_or("it has no delta")?;
        let delta = Delta {
            head: delta.head.clone(),
            set: delta.set.clone(),
            remove: delta.remove.clone(),
        };
        let table = parent.apply(&delta).map_err(|problems| {
            let first = problems.first().map(ToString::to_string);
            format!("its delta is not valid: {}", first.unwrap_or_default())
        })?;
        self.check(table)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let parsed = (text.len() == 64).then(|| {
            let digits = |nth| text.get(2 * nth..2 * nth + 2);
            let mut bytes = [0; 32];
            for (nth, byte) in bytes.iter_mut().enumerate() {
                *byte = u8::from_str_radix(digits(nth)?, 16).ok()?;
            }
            Some(Self(bytes))
        });
        let error = || serde::de::Error::custom(format!("the sha256 {text:?} is not valid"));
        parsed.flatten().ok_or_else(error)
    }
}
