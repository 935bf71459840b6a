//! What an operator is shown of the memory.

use serde::Serialize;

/// As JSON, the field `state` of `GET /debug/config`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MemoryStatus {
    /// Where it is.
    pub dir: String,
    /// The newest generation that a restart would find.
    pub stored_generation: Option<u64>,
    /// Whether that one has served for long enough to count as good.
    pub promoted: bool,
    /// The newest one that has: what a crash loop leads back to.
    pub promoted_generation: Option<u64>,
    /// Set while an older table is served because the newest made the edge
    /// crash.
    pub fallback: Option<Fallback>,
    /// Why nothing can be kept.
    pub error: Option<String>,
}

/// Which generation serves instead of which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fallback {
    pub from: u64,
    pub to: u64,
    pub why: String,
}
