//! Reads the field `routingTable`: each key with the name of its placement, streamed into
//! the table's own structures.

use std::collections::HashMap;
use std::fmt;
use std::num::TryFromIntError;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};

use super::digest::Entries;
use super::keys::{Builder, Keys, Seed};
use super::routing_table::Counts;
use super::rules::check_key;
use crate::pace;

/// `routingTable`: keys with the ids of their placements' names.
pub(super) struct Routing {
    pub keys: Keys,
    /// By id.
    pub names: Vec<Box<str>>,
    /// How many keys there are, by id.
    pub counts: Counts,
    pub entries: Entries,
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
        let mut reading = Reading {
            keys: Builder::<Seed>::new(),
            key: String::new(),
            names: Names::default(),
            entries: Entries::default(),
        };
        while map.next_key_seed(KeySeed(&mut reading.key))?.is_some() {
            check_key(&reading.key).map_err(Error::custom)?;
            map.next_value_seed(&mut reading)?;
        }
        let Names { list, counts, .. } = reading.names;
        let mut by_id = Counts::default();
        for (id, count) in counts.into_iter().enumerate() {
            *by_id.at(id) = count;
        }
        Ok(Routing {
            keys: reading.keys.finish().map_err(Error::custom)?,
            names: list,
            counts: by_id,
            entries: reading.entries,
        })
    }
}

/// Keys while they are being read.
struct Reading {
    keys: Builder<Seed>,
    /// The key whose placement is read next. Reused, so that reading a key does not
    /// allocate.
    key: String,
    names: Names,
    entries: Entries,
}

struct KeySeed<'k>(&'k mut String);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a routing key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        self.0.clear();
        self.0.push_str(key);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for &mut Reading {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for &mut Reading {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a placement")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<(), E> {
        let id = self.names.count(name).map_err(E::custom)?;
        self.keys.push(self.key.as_bytes(), id);
        self.entries.add(&self.key, name);
        pace::step();
        Ok(())
    }
}

/// Placement names in the order of their first use.
#[derive(Default)]
struct Names {
    list: Vec<Box<str>>,
    /// How often each was used.
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
