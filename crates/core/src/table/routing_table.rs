//! The compiled form that requests read: immutable, and the same cost for every
//! lookup however many keys there are.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use serde::Serialize;

use super::assigned::Routing;
use super::digest::{Digest, Entries};
use super::document::Linkable;
use super::endpoint::Endpoint;
use super::explain::RouteReason;
use super::head::{Head, Unlinked};
use super::keys::Keys;
use super::policy::Policy;

/// A compiled routing document. It never changes once made; a [`Delta`] makes
/// another, which shares with it all that stays the same.
///
/// A clone shares all of it, and costs nothing.
///
/// [`Delta`]: super::Delta
#[derive(Clone)]
pub struct RoutingTable {
    pub(super) head: Arc<Head>,
    /// By bytes, as header values are; with the name ids of [`Head`].
    pub(super) keys: Keys,
    /// How many keys have each name id.
    pub(super) counts: Counts,
    /// The part of the digest that the keys make.
    pub(super) entries: Entries,
}

/// A placement of one table. An id means nothing to any other table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlacementId(pub u32);

impl PlacementId {
    /// The index into anything that is kept by placement.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A cell by name: where keys live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Printable ASCII without spaces, so that it fits a header value.
    pub name: String,
    /// In the order of the document; never empty.
    pub endpoints: Box<[WeightedEndpoint]>,
    /// Shared by the placements that have the same one.
    pub policy: Arc<Policy>,
    /// Where its requests go while none of its endpoints takes any. Following
    /// fallbacks never leads back.
    pub fallback: Option<PlacementId>,
}

/// One of the places where a cell listens, and its share of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WeightedEndpoint {
    #[serde(rename = "url")]
    pub endpoint: Endpoint,
    /// Relative to the other endpoints of the placement, 1 to 1000.
    pub weight: u32,
}

/// The answer to one lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub placement: PlacementId,
    pub reason: RouteReason,
}

impl RoutingTable {
    /// The document's own name for its content; never empty.
    pub fn version(&self) -> &str {
        &self.head.version
    }

    /// How many keys are in the table.
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// All placements; the index of each is its [`PlacementId`].
    pub fn placements(&self) -> &[Placement] {
        &self.head.placements
    }

    /// The placement `id`.
    ///
    /// # Panics
    ///
    /// May panic when `id` is another table's.
    pub fn placement(&self, id: PlacementId) -> &Placement {
        &self.head.placements[id.index()]
    }

    /// Where keys go that are not in the table.
    pub fn default_placement(&self) -> PlacementId {
        self.head.default
    }

    /// How many keys live on the placement `id`.
    ///
    /// # Panics
    ///
    /// May panic when `id` is another table's.
    pub fn keys_on(&self, id: PlacementId) -> usize {
        self.counts.get(self.head.name_id(id) as usize)
    }

    /// Where `key` goes, byte for byte as the header carried it. Every key has
    /// an answer, and none costs an allocation.
    pub fn route(&self, key: &[u8]) -> Route {
        self.known(key).unwrap_or(Route {
            placement: self.head.default,
            reason: RouteReason::Default,
        })
    }

    fn known(&self, key: &[u8]) -> Option<Route> {
        let name = self.keys.get(key)?;
        let home = self.head.home(name);
        debug_assert!(
            home.is_some(),
            "a key lives on a placement that there is not"
        );
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

    /// Every key with its placement. The order is no particular one, but always
    /// the same for one table.
    pub fn keys(&self) -> impl Iterator<Item = (&str, PlacementId)> {
        self.keys
            .iter()
            .filter_map(|(key, name)| Some((text(key), self.head.home(name)?.placement)))
    }

    /// The document without `routingTable`, as JSON in the canonical form of RFC
    /// 8785. Together with [`keys`](Self::keys) it is all that the table is made
    /// of.
    pub fn head_json(&self) -> &Arc<str> {
        &self.head.json
    }

    /// One number for the whole content: the same for two tables when their
    /// documents say the same, however they are written. It is kept, not computed.
    pub fn digest(&self) -> Digest {
        self.entries.with_head(self.head.hash)
    }

    /// How long its keys and its head are together, in bytes: less than any
    /// document of the same content. It is kept, not computed.
    pub fn content_bytes(&self) -> u64 {
        self.entries.key_bytes() + self.head.json.len() as u64
    }

    /// Writes the document of this table, as JSON on one line. The keys are in no
    /// particular order.
    ///
    /// # Errors
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

    /// Links the parts of a document that are each valid.
    pub(super) fn new(head: Linkable, routing: Routing) -> Result<Self, Unlinked> {
        let names = routing.names.iter().map(|name| &**name).zip(0..);
        let head = Head::link(head, names.clone())?;
        if names.clone().any(|(_, id)| head.home(id).is_none()) {
            return Err(Unlinked);
        }
        Ok(Self {
            head: Arc::new(head),
            keys: routing.keys,
            counts: routing.counts,
            entries: routing.entries,
        })
    }

    /// The placement that `key` is in the table with, if it is.
    pub fn placement_of(&self, key: &str) -> Option<PlacementId> {
        Some(self.head.home(self.keys.get(key.as_bytes())?)?.placement)
    }
}

/// A key as it was before it became bytes. (Nothing but text ever becomes one.)
pub(super) fn text(key: &[u8]) -> &str {
    std::str::from_utf8(key).unwrap_or_default()
}

impl fmt::Debug for RoutingTable {
    // Not the keys: there may be millions, and they are tenants' names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoutingTable")
            .field("version", &self.head.version)
            .field("keys", &self.keys.len())
            .field("placements", &self.head.placements.len())
            .finish_non_exhaustive()
    }
}

/// Numbers in one chunk of [`Counts`]: what a change copies.
const CHUNK: usize = 512;

/// Numbers by index, zero at first. Cheap to clone, and cheap to change one at a time.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_keep_what_they_had() {
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
