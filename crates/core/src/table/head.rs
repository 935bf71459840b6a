//! A document without its keys: placements and what they are called.
//!
//! Keys do not name their placement by its place in the document, which may
//! change while they do not, but by a *name id*: a small number that stays with
//! a name from one table to the next. A head knows what each stands for.

use std::fmt;
use std::sync::Arc;

use super::digest::HeadHash;
use super::document::Linkable;
use super::explain::{RouteReason, is_tier_name};
use super::policy::Tenancy;
use super::routing_table::{Placement, PlacementId};

/// What a table is without its keys. Tables of the same head share it.
pub(super) struct Head {
    pub version: String,
    /// In the order of the document; a [`PlacementId`] is an index.
    pub placements: Vec<Placement>,
    pub default: PlacementId,
    /// The document without `routingTable`, in canonical form.
    pub json: Arc<str>,
    /// Of `json`.
    pub hash: HeadHash,
    /// All placements by name.
    by_name: Vec<PlacementId>,
    /// By [`PlacementId`].
    names: Vec<u32>,
    /// By name id; none where it stands for nothing.
    homes: Vec<Option<Home>>,
}

/// Where the keys of a name live.
#[derive(Clone, Copy)]
pub(super) struct Home {
    pub placement: PlacementId,
    /// Why they live there, when it does not depend on how many they are.
    pub reason: Option<RouteReason>,
}

/// A name in the document stands for no placement of it.
#[derive(Debug)]
pub(super) struct Unlinked;

impl fmt::Display for Unlinked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a placement is named that has no endpoint")
    }
}

impl Head {
    /// Links a document whose values are each valid. `known` are the names that
    /// have an id already, which they keep; those that are no placement's any
    /// more are left out.
    pub fn link<'n>(
        document: Linkable,
        known: impl Iterator<Item = (&'n str, u32)> + Clone,
    ) -> Result<Self, Unlinked> {
        let Linkable {
            version,
            placements,
            default,
            json,
        } = document;
        let count = u32::try_from(placements.len()).map_err(|_| Unlinked)?;
        let mut by_name: Vec<_> = (0..count).map(PlacementId).collect();
        by_name.sort_unstable_by_key(|id| placements[id.index()].name.as_str());
        let find = |name: &str| find(&placements, &by_name, name);
        let default = find(&default).ok_or(Unlinked)?;

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
            .map(|name| name.or_else(|| free.next()).ok_or(Unlinked))
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

    /// What the keys of a placement name it by.
    pub fn name_id(&self, placement: PlacementId) -> u32 {
        self.names[placement.index()]
    }

    /// What the name id `name` stands for.
    pub fn home(&self, name: u32) -> Option<Home> {
        self.homes.get(name as usize).copied().flatten()
    }

    /// Every name with its id.
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
