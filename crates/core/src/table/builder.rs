//! Builds a table from keys that arrive one at a time.

use super::delta::read_head;
use super::digest::Entries;
use super::keys;
use super::problem::Problem;
use super::routing_table::{Counts, PlacementId, RoutingTable};
use super::rules::{KeyError, check_key};

/// Builds a table from a head and a stream of keys, without a document or a list of all
/// keys in between.
pub struct TableBuilder {
    /// The table of the head alone.
    empty: RoutingTable,
    keys: keys::Builder<keys::Seed>,
    counts: Counts,
    entries: Entries,
}

impl TableBuilder {
    /// Starts with no keys. `head` is a document without `routingTable`, as
    /// [`RoutingTable::head_json`] gives it.
    ///
    /// # Errors
    ///
    /// Every problem of the head, never an empty list; pointers start with
    /// `/head`.
    pub fn new(head: &str) -> Result<Self, Vec<Problem>> {
        Ok(Self {
            empty: RoutingTable::empty(read_head(head, None)?),
            keys: keys::Builder::new(),
            counts: Counts::default(),
            entries: Entries::default(),
        })
    }

    /// The placement called `name`.
    pub fn placement(&self, name: &str) -> Option<PlacementId> {
        self.empty.head.find(name)
    }

    /// Assigns `key` to `placement`, which must come from [`placement`](Self::placement) of
    /// this builder.
    ///
    /// # Errors
    ///
    /// No request can carry the key. It is not added.
    ///
    /// # Panics
    ///
    /// May panic when `placement` is another table's.
    pub fn push(&mut self, key: &str, placement: PlacementId) -> Result<(), KeyError> {
        check_key(key)?;
        let head = &self.empty.head;
        let name = head.name_id(placement);
        self.keys.push(key.as_bytes(), name);
        *self.counts.at(name as usize) += 1;
        self.entries.add(key, &self.empty.placement(placement).name);
        Ok(())
    }

    /// The table of all keys that were pushed. Takes time in proportion to their number.
    ///
    /// # Errors
    ///
    /// A key was pushed twice.
    pub fn finish(self) -> Result<RoutingTable, Problem> {
        let keys = self
            .keys
            .finish()
            .map_err(|again| Problem::without_place(again.to_string()))?;
        Ok(RoutingTable {
            keys,
            counts: self.counts,
            entries: self.entries,
            ..self.empty
        })
    }
}
