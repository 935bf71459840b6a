//! Why a key lives where it does.

use std::fmt;

use serde::Serialize;

/// Why a request goes to its placement, as the header `X-Route-Reason` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteReason {
    /// The key has a placement of its own.
    Dedicated,
    /// The key is in the table, on a placement that is shared.
    Tier,
    /// The key is not in the table; the default placement takes it.
    Default,
}

impl RouteReason {
    /// Every reason, in the order of their declaration (`self as usize` is the
    /// index), so that metrics can hold one counter for each.
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

/// Whether a placement is called `tier` and a number, which the first routing
/// documents used for shared cells before a document could say so.
pub(super) fn is_tier_name(name: &str) -> bool {
    name.strip_prefix("tier").is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
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
