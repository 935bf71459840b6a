//! The difference between two generations.

use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::ApiError;
use super::generations::find;
use super::openapi::{Fails, ReadErrors};
use super::request::ApiRequest;
use super::response;
use crate::table::{Changes, Delta, Diff, Difference, Moved, Problem, RoutingTable, diff_naming};

/// Most changes of each kind that are listed.
const LISTED: usize = 10_000;

/// The query of [`get`].
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters that `get` reads")]
struct DiffQuery {
    /// Compare with this generation. If absent: compare the parent of the generation with it.
    #[param(nullable = false)]
    to: Option<u64>,
    /// Most changes of each kind that are listed.
    #[param(minimum = 0, maximum = 10_000, default = 100, nullable = false)]
    limit: Option<u64>,
}

/// Compare a generation with its parent, or with another generation
#[utoipa::path(
    get, path = "/api/v1/generations/{generation}/diff", operation_id = "diffGeneration",
    tag = "generations",
    params(
        ("generation" = u64, Path),
        DiffQuery
    ),
    responses(
        (status = 200, description = "The difference.", body = GenerationDiff),
        ReadErrors, Fails<404>, Fails<500>, Fails<503>
    )
)]
pub(super) async fn get(request: ApiRequest) -> Result<Response, ApiError> {
    let query = request.query(&["to", "limit"])?;
    let limit = query.number("limit", 0..=LISTED)?.unwrap_or(100);
    let generation = request.generation()?;
    let mut held = None;
    let (from, to) = match query.number("to", 0..=u64::MAX)? {
        Some(to) => {
            let from = find(&request, generation, &mut held).await?;
            (Some(from), find(&request, to, &mut held).await?)
        }
        None => {
            let to = find(&request, generation, &mut held).await?;
            let from = match to.record.parent {
                0 => None,
                parent => Some(find(&request, parent, &mut held).await?),
            };
            (from, to)
        }
    };
    let compared = tokio::task::spawn_blocking(move || {
        let old = from.as_deref().map(|from| &*from.table);
        let comparison = Comparison::of(old, &to.table, limit)?;
        drop(held);
        Ok::<_, Vec<Problem>>(GenerationDiff {
            from: from.map(|from| from.record.generation),
            to: to.record.generation,
            comparison,
        })
    });
    match compared.await.map_err(ApiError::internal)? {
        Ok(diff) => Ok(response::json(StatusCode::OK, &diff)),
        Err(problems) => Err(ApiError::internal(format!("{problems:?}"))),
    }
}

/// The difference between two generations.
#[derive(Serialize, ToSchema)]
struct GenerationDiff {
    /// Null: `to` is the first generation.
    #[schema(required)]
    from: Option<u64>,
    to: u64,
    #[serde(flatten)]
    comparison: Comparison,
}

/// The difference between two tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Comparison {
    /// The difference in one line.
    pub summary: String,
    #[schema(required)]
    pub version: Option<FromTo>,
    #[schema(required)]
    pub default_placement: Option<FromTo>,
    pub keys: ComparedKeys,
    pub placements: ComparedPlacements,
}

/// A value that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FromTo {
    pub from: String,
    pub to: String,
}

/// Changes of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComparedKeys {
    pub added: Listed<ComparedKey>,
    pub removed: Listed<ComparedKey>,
    pub moved: Listed<ComparedKey>,
}

/// Changes of placements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComparedPlacements {
    pub added: Listed<ComparedPlacement>,
    pub removed: Listed<ComparedPlacement>,
    pub changed: Listed<ComparedPlacement>,
}

/// Changes of one kind: how many there are, and the first of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Listed<T> {
    pub count: usize,
    /// Sorted by name; at most `limit`.
    pub items: Vec<T>,
}

/// A key, and its placement in both tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComparedKey {
    pub key: String,
    /// Null: the old table does not have the key.
    #[schema(required)]
    pub from: Option<String>,
    /// Null: the new table does not have the key.
    #[schema(required)]
    pub to: Option<String>,
}

/// A placement, and what changed in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComparedPlacement {
    pub name: String,
    /// The fields that differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// The endpoint before and after, if it is the only one and nothing else differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<FromTo>,
}

impl Comparison {
    /// Compares `old`, or an empty table, with `new`. Lists at most `limit` changes of each kind.
    ///
    /// # Errors
    /// The head of `new` is invalid, which cannot happen for a compiled table.
    pub fn of(
        old: Option<&RoutingTable>,
        new: &RoutingTable,
        limit: usize,
    ) -> Result<Self, Vec<Problem>> {
        let Some(old) = old else {
            return Self::of_first(new, limit);
        };
        Ok(Self::from_diff(diff_naming(old, new, limit), old, new))
    }

    fn of_first(new: &RoutingTable, limit: usize) -> Result<Self, Vec<Problem>> {
        // A table with the same head and no keys.
        let old = RoutingTable::founded_by(&Delta {
            head: Some(new.head_json().to_string()),
            ..Delta::default()
        })?;
        let mut diff = diff_naming(&old, new, limit);
        diff.placements_added.count = new.placements().len();
        let mut names: Vec<_> = new.placements().iter().map(|each| &each.name).collect();
        names.sort_unstable();
        let named = names.into_iter().take(limit);
        diff.placements_added.examples = named.map(|name| (name.clone(), None)).collect();
        Ok(Self::from_diff(diff, &old, new))
    }

    fn from_diff(diff: Diff, old: &RoutingTable, new: &RoutingTable) -> Self {
        Self {
            summary: diff.to_string(),
            keys: ComparedKeys {
                added: keys(&diff.keys_added, old, new),
                removed: keys(&diff.keys_removed, old, new),
                moved: keys(&diff.keys_moved, old, new),
            },
            placements: ComparedPlacements {
                added: placements(&diff.placements_added),
                removed: placements(&diff.placements_removed),
                changed: placements(&diff.placements_changed),
            },
            version: diff.version.map(FromTo::from),
            default_placement: diff.default.map(FromTo::from),
        }
    }
}

impl From<Moved> for FromTo {
    fn from(Moved { from, to }: Moved) -> Self {
        Self { from, to }
    }
}

fn keys(changes: &Changes, old: &RoutingTable, new: &RoutingTable) -> Listed<ComparedKey> {
    let home = |table: &RoutingTable, key: &str| {
        let placement = table.placement_of(key)?;
        Some(table.placement(placement).name.clone())
    };
    let named = changes.examples.iter().map(|(key, _)| ComparedKey {
        key: key.clone(),
        from: home(old, key),
        to: home(new, key),
    });
    Listed {
        count: changes.count,
        items: named.collect(),
    }
}

fn placements(changes: &Changes) -> Listed<ComparedPlacement> {
    let named = changes.examples.iter().map(|(name, difference)| {
        let (fields, endpoint) = match difference.clone() {
            Some(Difference::Moved(moved)) => (vec!["endpoints".to_owned()], Some(moved.into())),
            Some(Difference::Fields(fields)) => {
                (fields.into_iter().map(str::to_owned).collect(), None)
            }
            None => (Vec::new(), None),
        };
        ComparedPlacement {
            name: name.clone(),
            fields,
            endpoint,
        }
    });
    Listed {
        count: changes.count,
        items: named.collect(),
    }
}
