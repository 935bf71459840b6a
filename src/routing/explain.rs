//! One lookup, spelled out for a person.

use serde::Serialize;

use super::endpoint::Endpoint;
use super::reason::{RouteReason, is_tier_name};
use super::table::RoutingTable;

/// Where a key goes, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub key: String,
    /// The placement's name.
    pub placement: String,
    pub reason: RouteReason,
    /// The reason in words that name what it rests on.
    pub why: String,
    pub endpoint: Endpoint,
    /// The version of the table that answered.
    pub version: String,
}

impl RoutingTable {
    /// Where `key` goes, and why: what [`RoutingTable::route`] does, for a person.
    pub fn explain(&self, key: &str) -> Explanation {
        let route = self.route(key.as_bytes());
        let placement = self.placement(route.placement);
        let name = &placement.name;
        let why = match route.reason {
            RouteReason::Default => {
                format!("the key is not in the table, and {name} is the default placement")
            }
            RouteReason::Dedicated => format!("{name} serves this key alone"),
            RouteReason::Tier if placement.keys >= 2 => {
                format!("{name} serves {} keys", placement.keys)
            }
            RouteReason::Tier if route.placement == self.default_placement() => {
                format!("{name} is the default placement")
            }
            RouteReason::Tier => {
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
            version: self.version().to_owned(),
        }
    }
}
