//! A table without its keys: the placements and their names.
//!
//! The trie of keys is shared between tables whose placements may be in another order. So a
//! key is stored with a *name id*, a small number that a name keeps from one table to the
//! next, and the head maps name ids to placements.

use std::sync::Arc;

use super::digest::HeadHash;
use super::document::ParsedHead;
use super::explain::{RouteReason, is_tier_name};
use super::policy::Tenancy;
use super::routing_table::{Placement, PlacementId};

/// A table without its keys. Tables with the same head share it.
pub(super) struct Head {
    pub version: String,
    /// In the order of the document; a [`PlacementId`] is an index.
    pub placements: Vec<Placement>,
    pub default: PlacementId,
    /// The document without `routingTable`, in canonical form.
    pub json: Arc<str>,
    /// The hash of `json`.
    pub hash: HeadHash,
    /// All placements, sorted by name.
    by_name: Vec<PlacementId>,
    /// The name id of each placement.
    names: Vec<u32>,
    /// The placement of each name id; `None` if the head has no placement of that name.
    homes: Vec<Option<Home>>,
}

/// The placement of the keys with one name id.
#[derive(Clone, Copy)]
pub(super) struct Home {
    pub placement: PlacementId,
    /// The reason, unless it depends on the number of keys.
    pub reason: Option<RouteReason>,
}

/// The error of the fast path about a name that no placement has. `diagnose` finds the name.
pub(super) const UNKNOWN_PLACEMENT: &str = "unknown placement";

impl Head {
    /// Resolves the names in a head. The names in `known` keep their ids. An id whose name is
    /// no longer a placement is not used again.
    pub fn resolve<'n>(
        head: ParsedHead,
        known: impl Iterator<Item = (&'n str, u32)> + Clone,
    ) -> Result<Self, &'static str> {
        let ParsedHead {
            version,
            placements,
            default,
            json,
        } = head;
        let count = u32::try_from(placements.len()).map_err(|_| "too many placements")?;
        let mut by_name: Vec<_> = (0..count).map(PlacementId).collect();
        by_name.sort_unstable_by_key(|id| placements[id.index()].name.as_str());
        let find = |name: &str| find(&placements, &by_name, name);
        let default = find(&default).ok_or(UNKNOWN_PLACEMENT)?;

        let mut names = vec![None; placements.len()];
        let largest = known.clone().map(|(_, name)| name).max();
        let mut taken = vec![false; largest.map_or(0, |largest| largest as usize + 1)];
        for (name, id) in known {
            taken[id as usize] = true;
            if let Some(placement) = find(name) {
                names[placement.index()] = Some(id);
            }
        }
        let mut free = (0..).filter(|id| !taken.get(*id as usize).is_some_and(|taken| *taken));
        let names: Vec<u32> = names
            .into_iter()
            .map(|name| name.or_else(|| free.next()).ok_or("too many placements"))
            .collect::<Result<_, _>>()?;

        let mut homes = vec![None; names.iter().max().map_or(0, |last| *last as usize + 1)];
        for ((placement, id), name) in placements.iter().zip((0..).map(PlacementId)).zip(&names) {
            homes[*name as usize] = Some(Home {
                placement: id,
                reason: reason(placement, id == default),
            });
        }
        Ok(Self {
            version,
            placements,
            default,
            hash: HeadHash::of(&json),
            json: json.into(),
            by_name,
            names,
            homes,
        })
    }

    /// The placement called `name`.
    pub fn find(&self, name: &str) -> Option<PlacementId> {
        find(&self.placements, &self.by_name, name)
    }

    /// The name id of a placement.
    pub fn name_id(&self, placement: PlacementId) -> u32 {
        self.names[placement.index()]
    }

    /// The placement of the name id `name`.
    pub fn home(&self, name: u32) -> Option<Home> {
        self.homes.get(name as usize).copied().flatten()
    }

    /// All names with their ids.
    pub fn names(&self) -> impl Iterator<Item = (&str, u32)> + Clone {
        let names = self.placements.iter().map(|placement| &*placement.name);
        names.zip(self.names.iter().copied())
    }
}

fn find(placements: &[Placement], by_name: &[PlacementId], name: &str) -> Option<PlacementId> {
    by_name
        .binary_search_by(|id| placements[id.index()].name.as_str().cmp(name))
        .ok()
        .map(|at| by_name[at])
}

fn reason(placement: &Placement, default: bool) -> Option<RouteReason> {
    match placement.policy.tenancy {
        Some(Tenancy::Shared) => Some(RouteReason::Tier),
        Some(Tenancy::Dedicated) => Some(RouteReason::Dedicated),
        None if default || is_tier_name(&placement.name) => Some(RouteReason::Tier),
        None => None,
    }
}
