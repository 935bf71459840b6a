//! What is different between two generations.

use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::answer;
use super::call::Call;
use super::generations::find;
use super::refused::Refused;
use crate::table::{Changes, Delta, Diff, Difference, Moved, Problem, RoutingTable, diff_naming};

/// Most changes of each kind that are listed.
const LISTED: usize = 10_000;

/// `GET generations/{generation}/diff`.
pub(super) async fn get(call: Call) -> Result<Response, Refused> {
    let query = call.query(&["to", "limit"])?;
    let limit = query.number("limit", 0..=LISTED)?.unwrap_or(100);
    let generation = call.generation()?;
    let mut held = None;
    let (from, to) = match query.number("to", 0..=u64::MAX)? {
        Some(to) => {
            let from = find(&call, generation, &mut held).await?;
            (Some(from), find(&call, to, &mut held).await?)
        }
        None => {
            let to = find(&call, generation, &mut held).await?;
            let from = match to.record.parent {
                0 => None,
                parent => Some(find(&call, parent, &mut held).await?),
            };
            (from, to)
        }
    };
    let compared = tokio::task::spawn_blocking(move || {
        let old = from.as_deref().map(|from| &*from.table);
        let comparison = Comparison::of(old, &to.table, limit)?;
        drop(held);
        Ok::<_, Vec<Problem>>(Compared {
            from: from.map(|from| from.record.generation),
            to: to.record.generation,
            comparison,
        })
    });
    match compared.await.map_err(Refused::given_up)? {
        Ok(compared) => Ok(answer::json(StatusCode::OK, &compared)),
        Err(problems) => Err(Refused::given_up(format!("{problems:?}"))),
    }
}

#[derive(Serialize)]
struct Compared {
    /// None: there was nothing before.
    from: Option<u64>,
    to: u64,
    #[serde(flatten)]
    comparison: Comparison,
}

/// What is different in one table from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// In one line.
    pub summary: String,
    pub version: Option<FromTo>,
    pub default_placement: Option<FromTo>,
    pub keys: ComparedKeys,
    pub placements: ComparedPlacements,
}

/// What was one thing and is another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromTo {
    pub from: String,
    pub to: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparedKeys {
    pub added: Listed<ComparedKey>,
    pub removed: Listed<ComparedKey>,
    pub moved: Listed<ComparedKey>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparedPlacements {
    pub added: Listed<ComparedPlacement>,
    pub removed: Listed<ComparedPlacement>,
    pub changed: Listed<ComparedPlacement>,
}

/// All counted, the first by name listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed<T> {
    pub count: usize,
    pub items: Vec<T>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparedKey {
    pub key: String,
    /// None: it was not in the table.
    pub from: Option<String>,
    /// None: it is not in the table.
    pub to: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparedPlacement {
    pub name: String,
    /// What of it differs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// Its one endpoint before and after, where nothing else differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<FromTo>,
}

impl Comparison {
    /// What is different in `new` from `old`, or from nothing. At most `limit`
    /// changes of each kind are listed.
    ///
    /// # Errors
    /// The head of `new` is not valid, which it is for every table.
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
        // The same without keys.
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
