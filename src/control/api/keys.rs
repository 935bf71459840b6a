//! Single keys, pages of keys, and batches of changes.

use std::collections::BinaryHeap;
use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::call::Call;
use super::refused::Refused;
use super::turns::holding;
use super::{answer, body};
use crate::control::core::{CommitError, Committed, Edit, Etag, Expected};
use crate::control::store::Generation;
use crate::table::{Delta, PlacementId, RoutingTable, check_key};

/// How often a change that is conditional on one key is tried while others change
/// other keys.
const ATTEMPTS: u32 = 50;

/// Most keys of a page.
const PAGE: usize = 10_000;

#[derive(Serialize)]
struct Entry<'a> {
    key: &'a str,
    placement: &'a str,
}

#[derive(Serialize)]
struct One<'a> {
    #[serde(flatten)]
    entry: Entry<'a>,
    generation: u64,
}

/// `GET keys/{key}`.
pub(super) async fn get(call: Call) -> Result<Response, Refused> {
    call.query(&[])?;
    let key = call.name()?;
    let newest = call.truth().newest().ok_or_else(Refused::nothing_yet)?;
    let Some(placement) = newest.table.placement_of(&key) else {
        return Err(unknown_key(&key, &newest));
    };
    let one = One {
        entry: Entry {
            key: &key,
            placement: &newest.table.placement(placement).name,
        },
        generation: newest.record.generation,
    };
    Ok(answer::tagged(&call, &Etag::of(newest.record.mark()), &one))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Placed {
    placement: String,
}

/// `PUT keys/{key}`.
pub(super) async fn put(call: Call, body: Body) -> Result<Response, Refused> {
    call.query(&[])?;
    let key = call.name()?;
    check_key(&key).map_err(|error| Refused::bad("invalid_key", format!("path: {error}")))?;
    let expected = call.expected()?;
    let (Placed { placement }, _) = body::json(&call, body).await?;
    let delta = Delta {
        set: vec![(key.clone(), placement)],
        ..Delta::default()
    };
    let committed = change(&call, &key, delta, expected, "put").await?;
    Ok(answer::written(&committed))
}

/// `DELETE keys/{key}`.
pub(super) async fn delete(call: Call, body: Body) -> Result<Response, Refused> {
    call.query(&[])?;
    let key = call.name()?;
    let expected = call.expected()?;
    body::none(&call, body).await?;
    let delta = Delta {
        remove: vec![key.clone()],
        ..Delta::default()
    };
    match change(&call, &key, delta, expected, "delete").await? {
        Committed::Unchanged(newest) => Err(unknown_key(&key, &newest)),
        changed => Ok(answer::written(&changed)),
    }
}

/// Changes one key. Where the condition is on whether there is the key, it holds at
/// the moment of the change.
async fn change(
    call: &Call,
    key: &str,
    delta: Delta,
    expected: Expected,
    verb: &str,
) -> Result<Committed, Refused> {
    let what = format!("{verb} key {}", shown(key));
    let wanted = match expected {
        Expected::Nothing => Some(false),
        Expected::Something => Some(true),
        Expected::Anything | Expected::OneOf(_) => None,
    };
    let truth = call.truth();
    let mut looked = false;
    for _ in 0..ATTEMPTS {
        let newest = match truth.newest() {
            Some(newest) => newest,
            // Another control plane may have made the first.
            None if !std::mem::replace(&mut looked, true) => {
                truth.refresh().await?;
                continue;
            }
            None if expected.holds(None) => return Err(Refused::no_base()),
            None => return Err(Refused::lost(None)),
        };
        if wanted.is_some_and(|wanted| newest.table.placement_of(key).is_some() != wanted) {
            if !std::mem::replace(&mut looked, true) {
                truth.refresh().await?;
                continue;
            }
            let why = match wanted {
                Some(true) => "no key",
                _ => "there is already a key",
            };
            let message = format!("{why} {:?}", shown(key));
            return Err(Refused::lost(Some(&newest)).saying(message));
        }
        let on_this = Expected::OneOf(vec![Etag::of(newest.record.mark())]);
        let condition = wanted.map_or(&expected, |_| &on_this);
        let edit = Edit::Delta(delta.clone());
        let author = call.author(what.clone());
        match truth.commit(edit, condition, author).await {
            Err(CommitError::Lost(_)) if wanted.is_some() => {}
            Err(CommitError::Invalid(mut problems)) => {
                // The key stands in the path, what is left is the placement.
                for problem in &mut problems {
                    problem.pointer = "/placement".to_owned();
                }
                return Err(Refused::invalid(problems));
            }
            result => return Ok(result?),
        }
    }
    let message = format!("overtaken by other changes {ATTEMPTS} times");
    Err(Refused::busy(message))
}

/// Changes of keys, as they are sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    #[serde(default)]
    set: Pairs,
    #[serde(default)]
    remove: Vec<String>,
}

impl From<Batch> for Delta {
    /// With every key as often as it was given.
    fn from(batch: Batch) -> Self {
        let Pairs(set) = batch.set;
        Self {
            head: None,
            set,
            remove: batch.remove,
        }
    }
}

/// `POST keys:batch`.
pub(super) async fn batch(call: Call, body: Body) -> Result<Response, Refused> {
    call.query(&[])?;
    let expected = call.expected()?;
    let (batch, turn) = body::json::<Batch>(&call, body).await?;
    if call.truth().newest().is_none() {
        // Another control plane may have made the first.
        call.truth().refresh().await?;
        if call.truth().newest().is_none() && expected.holds(None) {
            return Err(Refused::no_base());
        }
    }
    let delta = Delta::from(batch);
    let (set, removed) = (delta.set.len(), delta.remove.len());
    let what = format!("batch: {set} set, {removed} removed");
    answer::commit(&call, Edit::Delta(delta), &expected, what, turn).await
}

/// The members of an object, also those that have the same name.
#[derive(Default)]
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of keys and placements")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}

#[derive(Serialize)]
struct Page<'a> {
    generation: u64,
    keys: Vec<Entry<'a>>,
    /// Where the next page begins: after this key. None: there is no more.
    next: Option<&'a str>,
    /// How many more there are.
    remaining: usize,
}

/// `GET keys`.
pub(super) async fn list(call: Call) -> Result<Response, Refused> {
    let query = call.query(&["after", "limit", "placement", "prefix"])?;
    let limit = query.number("limit", 1..=PAGE)?.unwrap_or(1000);
    let newest = call.truth().newest().ok_or_else(Refused::nothing_yet)?;
    let etag = Etag::of(newest.record.mark());
    let placement = match query.text("placement") {
        None => None,
        Some(name) => Some(newest.table.placement_named(name).map_err(|unknown| {
            Refused::not_found("unknown_placement", unknown).with_etag(Some(&newest))
        })?),
    };
    let turn = call.control.turns.answer().await?;
    // It looks at every key.
    let page = move || {
        let wanted = Wanted {
            after: query.text("after"),
            prefix: query.text("prefix").unwrap_or_default(),
            placement,
        };
        answer::tagged(&call, &etag, &page(&newest, &wanted, limit))
    };
    let page = move || holding(page(), turn);
    tokio::task::spawn_blocking(page)
        .await
        .map_err(Refused::given_up)
}

/// Which keys are asked for.
struct Wanted<'a> {
    after: Option<&'a str>,
    prefix: &'a str,
    placement: Option<PlacementId>,
}

fn page<'a>(newest: &'a Arc<Generation>, wanted: &Wanted<'_>, limit: usize) -> Page<'a> {
    let table: &RoutingTable = &newest.table;
    // The smallest so far, the largest of them on top.
    let mut first = BinaryHeap::with_capacity(limit);
    let mut found = 0;
    for entry in table.keys() {
        let (key, placement) = entry;
        if wanted.after.is_some_and(|after| key <= after)
            || !key.starts_with(wanted.prefix)
            || wanted.placement.is_some_and(|wanted| placement != wanted)
        {
            continue;
        }
        found += 1;
        if first.len() < limit {
            first.push(entry);
        } else if let Some(mut largest) = first.peek_mut()
            && key < largest.0
        {
            *largest = entry;
        }
    }
    let keys: Vec<_> = first
        .into_sorted_vec()
        .into_iter()
        .map(|(key, placement)| Entry {
            key,
            placement: &table.placement(placement).name,
        })
        .collect();
    let remaining = found - keys.len();
    Page {
        generation: newest.record.generation,
        next: keys.last().filter(|_| remaining > 0).map(|last| last.key),
        keys,
        remaining,
    }
}

fn unknown_key(key: &str, newest: &Generation) -> Refused {
    let default = newest.table.placement(newest.table.default_placement());
    let message = format!(
        "no key {:?} in generation {} (requests with it go to the default placement {:?})",
        shown(key),
        newest.record.generation,
        default.name
    );
    Refused::not_found("unknown_key", message).with_etag(Some(newest))
}

/// No longer than a glance.
fn shown(key: &str) -> String {
    match key.char_indices().nth(64) {
        Some((end, _)) => format!("{}…", key.get(..end).unwrap_or_default()),
        None => key.to_owned(),
    }
}
