//! The reason of a route, as a code and in words.

use std::fmt;

use serde::Serialize;

use super::endpoint::Endpoint;
use super::problem::unknown;
use super::routing_table::{PlacementId, RoutingTable, WeightedEndpoint};

/// Why a request goes to its placement: the value of the header `X-Route-Reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteReason {
    /// The key has a placement of its own.
    Dedicated,
    /// The key is in the table, on a placement that is shared.
    Tier,
    /// The key is not in the table and goes to the default placement.
    Default,
}

impl RouteReason {
    /// All reasons; `self as usize` is the index.
    pub const ALL: [RouteReason; 3] = [Self::Dedicated, Self::Tier, Self::Default];

    /// `dedicated`, `tier` or `default`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dedicated => "dedicated",
            Self::Tier => "tier",
            Self::Default => "default",
        }
    }
}

impl fmt::Display for RouteReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether the name is `tier` and a number. The first routing documents, which had no
/// `tenancy`, named shared cells so.
pub(super) fn is_tier_name(name: &str) -> bool {
    name.strip_prefix("tier").is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Where a key goes, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub key: String,
    /// The name of the placement.
    pub placement: String,
    pub reason: RouteReason,
    /// The reason in words.
    pub why: String,
    /// The first of `endpoints`.
    pub endpoint: Endpoint,
    /// All endpoints of the placement, in the order of the document.
    pub endpoints: Vec<WeightedEndpoint>,
    /// The placement that gets the requests while none of the endpoints is usable.
    pub fallback: Option<String>,
    /// The version of the table.
    pub version: String,
}

impl RoutingTable {
    /// Where `key` goes, and why: [`RoutingTable::route`] with words.
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

    /// The placement called `name`.
    ///
    /// # Errors
    ///
    /// If there is none: a message with the names of others.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_are_named_tier_and_a_number() {
        for name in ["tier1", "tier2", "tier3", "tier0", "tier42"] {
            assert!(is_tier_name(name), "{name}");
        }
        for name in [
            "tier",
            "Tier1",
            "tier1a",
            "tier-1",
            "mytier1",
            "tier1 ",
            "tier\u{661}",
            "visa",
            "",
        ] {
            assert!(!is_tier_name(name), "{name}");
        }
    }

    #[test]
    fn words_and_json_are_the_same() {
        for (index, reason) in RouteReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert_eq!(reason.to_string(), reason.as_str());
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
