//! One lookup, spelled out for a person.

use serde::Serialize;

use super::endpoint::Endpoint;
use super::reason::{RouteReason, is_tier_name};
use super::routing_table::{PlacementId, RoutingTable, WeightedEndpoint};
use super::wording::unknown;

/// Where a key goes, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub key: String,
    /// The placement's name.
    pub placement: String,
    pub reason: RouteReason,
    /// The reason in words that name what it rests on.
    pub why: String,
    /// The first of `endpoints`.
    pub endpoint: Endpoint,
    /// All endpoints of the placement, in the order of the document.
    pub endpoints: Vec<WeightedEndpoint>,
    /// The placement that takes over while none of the endpoints can.
    pub fallback: Option<String>,
    /// The version of the table that answered.
    pub version: String,
}

impl RoutingTable {
    /// Where `key` goes, and why: what [`RoutingTable::route`] does, for a person.
    pub fn explain(&self, key: &str) -> Explanation {
        let route = self.route(key.as_bytes());
        let placement = self.placement(route.placement);
        let name = &placement.name;
        let keys = self.keys_on(route.placement);
        let why = match (route.reason, placement.policy.tenancy) {
            (RouteReason::Default, _) => {
                format!("the key is not in the table, and {name} is the default placement")
            }
            (_, Some(tenancy)) => format!("{name} is declared {}", tenancy.as_str()),
            (RouteReason::Dedicated, None) => format!("{name} serves this key alone"),
            (RouteReason::Tier, None) if keys >= 2 => {
                format!("{name} serves {keys} keys")
            }
            (RouteReason::Tier, None) if route.placement == self.default_placement() => {
                format!("{name} is the default placement")
            }
            (RouteReason::Tier, None) => {
                debug_assert!(is_tier_name(name));
                format!("{name} is named as a shared tier")
            }
        };
        Explanation {
            key: key.to_owned(),
            placement: name.clone(),
            reason: route.reason,
            why,
            endpoint: placement.endpoints[0].endpoint.clone(),
            endpoints: placement.endpoints.to_vec(),
            fallback: placement
                .fallback
                .map(|fallback| self.placement(fallback).name.clone()),
            version: self.version().to_owned(),
        }
    }

    /// The placement that is called `name`. Goes through all of them.
    ///
    /// # Errors
    ///
    /// What is known instead, in words, when there is none.
    pub fn placement_named(&self, name: &str) -> Result<PlacementId, String> {
        let names = self
            .placements()
            .iter()
            .map(|placement| placement.name.as_str());
        let index = names.clone().position(|known| known == name);
        index
            .and_then(|index| u32::try_from(index).ok())
            .map(PlacementId)
            .ok_or_else(|| unknown("placement", name, names))
    }
}
