//! The compiled form of a document. It is immutable, and a lookup costs the same however many
//! keys there are.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use serde::Serialize;

use super::delta::read_head;
use super::digest::{Digest, Entries};
use super::document::{ParsedHead, Routing};
use super::endpoint::Endpoint;
use super::explain::RouteReason;
use super::head::{Head, UNKNOWN_PLACEMENT};
use super::keys::{self, Keys};
use super::policy::Policy;
use super::problem::Problem;
use super::values::{KeyError, check_key};

/// A compiled routing document. It never changes; a [`Delta`] makes another table, and the two
/// share what is the same. Clones share everything and cost nothing.
///
/// [`Delta`]: super::Delta
#[derive(Clone)]
pub struct RoutingTable {
    pub(super) head: Arc<Head>,
    /// Keys, as the bytes of header values, with the name ids of [`Head`].
    pub(super) keys: Keys,
    /// The number of keys of each name id.
    pub(super) counts: Counts,
    /// The part of the digest that depends on the keys.
    pub(super) entries: Entries,
}

/// A placement of one table. It must not be used with another table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlacementId(pub u32);

impl PlacementId {
    /// The index into a list with one entry for each placement.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A cell by name. Keys are assigned to placements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Printable ASCII without spaces, so that it fits a header value.
    pub name: String,
    /// In the order of the document; never empty.
    pub endpoints: Box<[WeightedEndpoint]>,
    /// Placements with the same policy share one.
    pub policy: Arc<Policy>,
    /// Where its requests go while none of its endpoints is usable. A chain of fallbacks never
    /// leads back to one of its placements.
    pub fallback: Option<PlacementId>,
}

/// An endpoint of a placement, and its share of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WeightedEndpoint {
    #[serde(rename = "url")]
    pub endpoint: Endpoint,
    /// Relative to the other endpoints of the placement, 1 to 1000.
    pub weight: u32,
}

impl From<Endpoint> for WeightedEndpoint {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            weight: 1,
        }
    }
}

/// The result of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub placement: PlacementId,
    pub reason: RouteReason,
}

impl RoutingTable {
    /// The field `version` of the document; never empty.
    pub fn version(&self) -> &str {
        &self.head.version
    }

    /// The number of keys.
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// All placements, in the order of the document; a [`PlacementId`] is an index.
    pub fn placements(&self) -> &[Placement] {
        &self.head.placements
    }

    /// The placement `id`.
    ///
    /// # Panics
    ///
    /// May panic if `id` is from another table.
    pub fn placement(&self, id: PlacementId) -> &Placement {
        &self.head.placements[id.index()]
    }

    /// The placement of keys that are not in the table.
    pub fn default_placement(&self) -> PlacementId {
        self.head.default
    }

    /// The number of keys of the placement `id`.
    ///
    /// # Panics
    ///
    /// May panic if `id` is from another table.
    pub fn keys_on(&self, id: PlacementId) -> usize {
        self.counts.get(self.head.name_id(id) as usize)
    }

    /// Looks up `key`, compared byte by byte. Every key has a route. Does not allocate.
    pub fn route(&self, key: &[u8]) -> Route {
        self.known(key).unwrap_or(Route {
            placement: self.head.default,
            reason: RouteReason::Default,
        })
    }

    fn known(&self, key: &[u8]) -> Option<Route> {
        let name = self.keys.get(key)?;
        let home = self.head.home(name);
        debug_assert!(home.is_some(), "a key has a placement that does not exist");
        let home = home?;
        let alone = || self.counts.get(name as usize) < 2;
        let reason = home.reason.unwrap_or_else(|| match alone() {
            true => RouteReason::Dedicated,
            false => RouteReason::Tier,
        });
        Some(Route {
            placement: home.placement,
            reason,
        })
    }

    /// All keys with their placements. The order is unspecified, but always the same for one
    /// table.
    pub fn keys(&self) -> impl Iterator<Item = (&str, PlacementId)> {
        self.keys
            .iter()
            .filter_map(|(key, name)| Some((text(key), self.head.home(name)?.placement)))
    }

    /// The document without `routingTable`, as canonical JSON (RFC 8785). It and
    /// [`keys`](Self::keys) are the whole content of the table.
    pub fn head_json(&self) -> &Arc<str> {
        &self.head.json
    }

    /// The digest of the content. Documents that differ only in form have the same digest.
    /// Costs nothing: it is stored.
    pub fn digest(&self) -> Digest {
        self.entries.with_head(self.head.hash)
    }

    /// The length of all keys and the head in bytes, less than that of any document with this
    /// content. Costs nothing: it is stored.
    pub fn content_bytes(&self) -> u64 {
        self.entries.key_bytes() + self.head.json.len() as u64
    }

    /// Writes the document of this table as JSON on one line. The order of the keys is
    /// unspecified.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        // Each name is serialized once, not once per key.
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
        // The head is an object with at least one field.
        let fields = self.head_json().get(1..).unwrap_or_default();
        write!(out, "}},{fields}")
    }

    /// A table without keys.
    pub(super) fn empty(head: Arc<Head>) -> Self {
        Self {
            head,
            keys: Keys::default(),
            counts: Counts::default(),
            entries: Entries::default(),
        }
    }

    /// Makes a table of the parts of a document, each of which is valid.
    pub(super) fn new(head: ParsedHead, routing: Routing) -> Result<Self, &'static str> {
        let names = routing.names.iter().map(|name| &**name).zip(0..);
        let head = Head::resolve(head, names.clone())?;
        if names.clone().any(|(_, id)| head.home(id).is_none()) {
            return Err(UNKNOWN_PLACEMENT);
        }
        Ok(Self {
            head: Arc::new(head),
            keys: routing.keys,
            counts: routing.counts,
            entries: routing.entries,
        })
    }

    /// The placement of `key`, if it is in the table.
    pub fn placement_of(&self, key: &str) -> Option<PlacementId> {
        Some(self.head.home(self.keys.get(key.as_bytes())?)?.placement)
    }
}

/// A key as text. All keys are valid UTF-8.
pub(super) fn text(key: &[u8]) -> &str {
    std::str::from_utf8(key).unwrap_or_default()
}

impl fmt::Debug for RoutingTable {
    // Without the keys: there may be millions, and they are names of tenants.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoutingTable")
            .field("version", &self.head.version)
            .field("keys", &self.keys.len())
            .field("placements", &self.head.placements.len())
            .finish_non_exhaustive()
    }
}

/// Numbers in one chunk of [`Counts`], which is copied by a change.
const CHUNK: usize = 512;

/// Numbers by index, initially 0. Cloning is free, and changing one number is cheap.
#[derive(Clone, Default)]
pub(super) struct Counts(Arc<Vec<Arc<[usize; CHUNK]>>>);

impl Counts {
    pub(super) fn get(&self, index: usize) -> usize {
        self.0
            .get(index / CHUNK)
            .map_or(0, |chunk| chunk[index % CHUNK])
    }

    pub(super) fn at(&mut self, index: usize) -> &mut usize {
        let chunks = Arc::make_mut(&mut self.0);
        while chunks.len() <= index / CHUNK {
            chunks.push(Arc::new([0; CHUNK]));
        }
        &mut Arc::make_mut(&mut chunks[index / CHUNK])[index % CHUNK]
    }
}

/// Builds a table from a head and a stream of keys, without a document or a list of all keys.
pub struct TableBuilder {
    /// The table without keys.
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
    /// If no request can carry the key. It is not added.
    ///
    /// # Panics
    ///
    /// May panic if `placement` is from another table.
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
    /// If a key was pushed twice.
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
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changing_a_clone_keeps_the_original() {
        let mut counts = Counts::default();
        for index in [0, 511, 512, 5000] {
            assert_eq!(counts.get(index), 0);
            *counts.at(index) += index + 1;
        }
        let before = counts.clone();
        *counts.at(512) = 7;
        *counts.at(9000) = 8;
        let seen = |counts: &Counts| [0, 1, 511, 512, 5000, 9000, 90_000].map(|at| counts.get(at));
        assert_eq!(seen(&before), [1, 0, 512, 513, 5001, 0, 0]);
        assert_eq!(seen(&counts), [1, 0, 512, 7, 5001, 8, 0]);
        assert!(
            Arc::ptr_eq(&before.0[0], &counts.0[0]),
            "what did not change is shared"
        );
    }
}
