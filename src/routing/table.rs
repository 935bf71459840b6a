//! The compiled form that requests read: immutable, and the same cost for every
//! lookup however many keys there are.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::Serialize;

use super::document::Routing;
use super::endpoint::Endpoint;
use super::policy::{Policy, Tenancy};
use super::reason::{RouteReason, is_tier_name};

/// A compiled routing document. It never changes once made.
pub struct RoutingTable {
    version: String,
    keys: HashMap<Key, PlacementId>,
    /// In the order of the document; a [`PlacementId`] is an index.
    placements: Vec<Placement>,
    /// Why a key of the table lives on a placement, by [`PlacementId`]. It
    /// depends on nothing but the table, so no request has to work it out.
    reasons: Vec<RouteReason>,
    default: PlacementId,
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
    /// How many keys of the table live here.
    pub keys: usize,
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
        &self.version
    }

    /// How many keys are in the table.
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// All placements; the index of each is its [`PlacementId`].
    pub fn placements(&self) -> &[Placement] {
        &self.placements
    }

    /// The placement `id`.
    ///
    /// # Panics
    ///
    /// May panic when `id` is another table's.
    pub fn placement(&self, id: PlacementId) -> &Placement {
        &self.placements[id.index()]
    }

    /// Where keys go that are not in the table.
    pub fn default_placement(&self) -> PlacementId {
        self.default
    }

    /// Where `key` goes, byte for byte as the header carried it. Every key has
    /// an answer, and none costs an allocation.
    pub fn route(&self, key: &[u8]) -> Route {
        match self.keys.get(key) {
            Some(&placement) => Route {
                placement,
                reason: self.reasons[placement.index()],
            },
            None => Route {
                placement: self.default,
                reason: RouteReason::Default,
            },
        }
    }

    /// Every key with its placement, in no particular order.
    pub fn keys(&self) -> impl Iterator<Item = (&str, PlacementId)> {
        self.keys
            .iter()
            .map(|(key, &placement)| (&*key.0, placement))
    }

    /// The placement that `key` is in the table with, if it is.
    pub(super) fn placement_of(&self, key: &str) -> Option<PlacementId> {
        self.keys.get(key.as_bytes()).copied()
    }

    /// Links the values of a document that are each valid: gives every name its
    /// id. `placements` have their fallbacks already, and no keys yet.
    pub(super) fn build(
        version: String,
        routing: Routing,
        mut placements: Vec<Placement>,
        default: &str,
    ) -> Result<Self, Unlinked> {
        let mut ids: HashMap<&str, PlacementId> = HashMap::with_capacity(placements.len());
        for (index, placement) in placements.iter().enumerate() {
            let id = PlacementId(u32::try_from(index).map_err(|_| Unlinked)?);
            ids.insert(&placement.name, id);
        }
        let default = *ids.get(default).ok_or(Unlinked)?;

        // The names that keys were read with, each looked up once.
        let (mut keys, names) = routing.into_parts();
        let linked: Vec<PlacementId> = names
            .iter()
            .map(|name| ids.get(&**name).copied().ok_or(Unlinked))
            .collect::<Result<_, _>>()?;
        for id in keys.values_mut() {
            *id = linked[id.index()];
            placements[id.index()].keys += 1;
        }

        let reasons = placements
            .iter()
            .enumerate()
            .map(|(index, placement)| {
                let shared = match placement.policy.tenancy {
                    Some(tenancy) => tenancy == Tenancy::Shared,
                    None => {
                        index == default.index()
                            || is_tier_name(&placement.name)
                            || placement.keys >= 2
                    }
                };
                if shared {
                    RouteReason::Tier
                } else {
                    RouteReason::Dedicated
                }
            })
            .collect();
        Ok(Self {
            version,
            keys,
            placements,
            reasons,
            default,
        })
    }
}

impl fmt::Debug for RoutingTable {
    // Not the keys: there may be millions, and they are tenants' names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoutingTable")
            .field("version", &self.version)
            .field("keys", &self.keys.len())
            .field("placements", &self.placements.len())
            .finish_non_exhaustive()
    }
}

/// A name in the document stands for no placement of it.
#[derive(Debug)]
pub(super) struct Unlinked;

impl fmt::Display for Unlinked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a placement is named that has no endpoint")
    }
}

/// A routing key, compared and hashed as bytes: header values are bytes, and
/// `str` hashes differently. The map's hasher is seeded per map (SipHash), so
/// that tenants cannot choose names that collide.
#[derive(PartialEq, Eq)]
pub(super) struct Key(pub(super) Box<str>);

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_bytes().hash(state);
    }
}
