//! Single keys, pages of keys, and batches of changes.

use std::collections::BinaryHeap;
use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::body;
use super::error::ApiError;
use super::limits::holding;
use super::openapi::{Cached, Conditions, Fails, NotModified, ReadErrors, WriteErrors};
use super::request::ApiRequest;
use super::response::{self, WrittenResponse};
use crate::control::core::{CommitError, Committed, Edit, Etag, Expected};
use crate::control::store::Generation;
use crate::table::{Delta, PlacementId, RoutingTable, check_key};

/// How often a change that is conditional on one key is retried while other keys change.
const ATTEMPTS: u32 = 50;

/// Most keys of a page.
const PAGE: usize = 10_000;

/// A key and its placement.
#[derive(Serialize, ToSchema)]
struct Entry<'a> {
    key: &'a str,
    placement: &'a str,
}

/// A key and its placement in the newest generation.
#[derive(Serialize, ToSchema)]
struct KeyView<'a> {
    #[serde(flatten)]
    entry: Entry<'a>,
    /// The newest generation.
    generation: u64,
}

/// Get the placement of a key
#[utoipa::path(
    get, path = "/api/v1/keys/{key}", operation_id = "getKey", tag = "keys",
    params(("key" = String, Path, description = "A routing key, percent-encoded."), Cached),
    responses(
        (status = 200, description = "The key.", body = KeyView,
            headers(("ETag" = Etag, description = "The generation that the answer describes."))),
        NotModified, ReadErrors, Fails<404>
    )
)]
pub(super) async fn get(request: ApiRequest) -> Result<Response, ApiError> {
    request.query(&[])?;
    let key = request.name()?;
    let newest = request.truth().newest().ok_or_else(ApiError::no_document)?;
    let Some(placement) = newest.table.placement_of(&key) else {
        return Err(unknown_key(&key, &newest));
    };
    let view = KeyView {
        entry: Entry {
            key: &key,
            placement: &newest.table.placement(placement).name,
        },
        generation: newest.record.generation,
    };
    let etag = Etag::of(newest.record.mark());
    Ok(response::tagged(&request, &etag, &view))
}

/// The placement that a key is assigned to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct KeyAssignment {
    placement: String,
}

/// Assign a key to a placement
#[utoipa::path(
    put, path = "/api/v1/keys/{key}", operation_id = "putKey", tag = "keys",
    params(("key" = String, Path, description = "A routing key, percent-encoded."), Conditions),
    request_body = KeyAssignment,
    responses(WrittenResponse, WriteErrors, Fails<409>)
)]
pub(super) async fn put(request: ApiRequest, body: Body) -> Result<Response, ApiError> {
    request.query(&[])?;
    let key = request.name()?;
    check_key(&key).map_err(|error| ApiError::bad("invalid_key", format!("path: {error}")))?;
    let expected = request.expected()?;
    let (KeyAssignment { placement }, _) = body::json(&request, body).await?;
    let delta = Delta {
        set: vec![(key.clone(), placement)],
        ..Delta::default()
    };
    let committed = change(&request, &key, delta, expected, "put").await?;
    Ok(response::written(&committed))
}

/// Remove a key
#[utoipa::path(
    delete, path = "/api/v1/keys/{key}", operation_id = "deleteKey", tag = "keys",
    params(("key" = String, Path, description = "A routing key, percent-encoded."), Conditions),
    responses(WrittenResponse, WriteErrors, Fails<404>, Fails<409>)
)]
pub(super) async fn delete(request: ApiRequest, body: Body) -> Result<Response, ApiError> {
    request.query(&[])?;
    let key = request.name()?;
    let expected = request.expected()?;
    body::none(&request, body).await?;
    let delta = Delta {
        remove: vec![key.clone()],
        ..Delta::default()
    };
    match change(&request, &key, delta, expected, "delete").await? {
        Committed::Unchanged(newest) => Err(unknown_key(&key, &newest)),
        changed => Ok(response::written(&changed)),
    }
}

/// Changes one key. A condition on whether the key exists holds at the moment of the change.
async fn change(
    request: &ApiRequest,
    key: &str,
    delta: Delta,
    expected: Expected,
    verb: &str,
) -> Result<Committed, ApiError> {
    let what = format!("{verb} key {}", shown(key));
    let wanted = match expected {
        Expected::Nothing => Some(false),
        Expected::Something => Some(true),
        Expected::Anything | Expected::OneOf(_) => None,
    };
    let truth = request.truth();
    let mut looked = false;
    for _ in 0..ATTEMPTS {
        let newest = match truth.newest() {
            Some(newest) => newest,
            // Another control plane may have made the first generation.
            None if !std::mem::replace(&mut looked, true) => {
                truth.refresh().await?;
                continue;
            }
            None if expected.holds(None) => return Err(ApiError::no_placements()),
            None => return Err(ApiError::precondition(None)),
        };
        if wanted.is_some_and(|wanted| newest.table.placement_of(key).is_some() != wanted) {
            if !std::mem::replace(&mut looked, true) {
                truth.refresh().await?;
                continue;
            }
            let message = match wanted {
                Some(true) => format!("no key {:?}", shown(key)),
                _ => format!("there is already a key {:?}", shown(key)),
            };
            return Err(ApiError::precondition(Some(&newest)).with_message(message));
        }
        let on_this = Expected::OneOf(vec![Etag::of(newest.record.mark())]);
        let condition = wanted.map_or(&expected, |_| &on_this);
        let edit = Edit::Delta(delta.clone());
        let author = request.author(what.clone());
        match truth.commit(edit, condition, author).await {
            Err(CommitError::Lost(_)) if wanted.is_some() => {}
            Err(CommitError::Invalid(mut problems)) => {
                // The key is in the path, so the problem is the placement in the body.
                for problem in &mut problems {
                    problem.pointer = "/placement".to_owned();
                }
                return Err(ApiError::invalid(problems));
            }
            result => return Ok(result?),
        }
    }
    let message = format!("gave up after {ATTEMPTS} attempts: other changes came first each time");
    Err(ApiError::busy(message))
}

/// Changes of several keys.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Keys with their new placements.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    set: Pairs,
    /// Keys to remove. It is no error if one does not exist.
    #[serde(default)]
    remove: Vec<String>,
}

impl From<Batch> for Delta {
    /// Keeps duplicate keys, so that applying the delta can refuse them.
    fn from(batch: Batch) -> Self {
        let Pairs(set) = batch.set;
        Self {
            head: None,
            set,
            remove: batch.remove,
        }
    }
}

/// Set and remove keys atomically, as one generation
#[utoipa::path(
    post, path = "/api/v1/keys:batch", operation_id = "changeKeys", tag = "keys",
    params(Conditions), request_body = Batch,
    responses(WrittenResponse, WriteErrors, Fails<409>)
)]
pub(super) async fn batch(request: ApiRequest, body: Body) -> Result<Response, ApiError> {
    request.query(&[])?;
    let expected = request.expected()?;
    let (batch, permit) = body::json::<Batch>(&request, body).await?;
    if request.truth().newest().is_none() {
        // Another control plane may have made the first generation.
        request.truth().refresh().await?;
        if request.truth().newest().is_none() && expected.holds(None) {
            return Err(ApiError::no_placements());
        }
    }
    let delta = Delta::from(batch);
    let (set, removed) = (delta.set.len(), delta.remove.len());
    let what = format!("batch: {set} set, {removed} removed");
    response::commit(&request, Edit::Delta(delta), &expected, what, permit).await
}

/// The members of an object, duplicates included.
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

/// A page of keys.
#[derive(Serialize, ToSchema)]
struct KeyPage<'a> {
    /// The newest generation.
    generation: u64,
    /// Sorted by their bytes.
    keys: Vec<Entry<'a>>,
    /// The value of `after` for the next page; null: this is the last page.
    #[schema(required)]
    next: Option<&'a str>,
    /// How many matching keys follow this page.
    remaining: usize,
}

/// List keys, sorted by their bytes, in pages
#[utoipa::path(
    get, path = "/api/v1/keys", operation_id = "listKeys", tag = "keys",
    params(
        KeyFilter,
        Cached
    ),
    responses(
        (status = 200, description = "A page.", body = KeyPage,
            headers(("ETag" = Etag, description = "The generation that the answer describes."))),
        NotModified, ReadErrors, Fails<404>, Fails<500>, Fails<503>
    )
)]
pub(super) async fn list(request: ApiRequest) -> Result<Response, ApiError> {
    let query = request.query(&["after", "limit", "placement", "prefix"])?;
    let limit = query.number("limit", 1..=PAGE)?.unwrap_or(1000);
    let newest = request.truth().newest().ok_or_else(ApiError::no_document)?;
    let etag = Etag::of(newest.record.mark());
    let placement = match query.text("placement") {
        None => None,
        Some(name) => Some(newest.table.placement_named(name).map_err(|unknown| {
            ApiError::not_found("unknown_placement", unknown).with_etag(Some(&newest))
        })?),
    };
    let permit = request.control.request_limits.response().await?;
    // This scans all keys.
    let page = move || {
        let filter = Filter {
            after: query.text("after"),
            prefix: query.text("prefix").unwrap_or_default(),
            placement,
        };
        response::tagged(&request, &etag, &page(&newest, &filter, limit))
    };
    let page = move || holding(page(), permit);
    tokio::task::spawn_blocking(page)
        .await
        .map_err(ApiError::internal)
}

/// The query of [`list`].
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters that `list` reads")]
struct KeyFilter {
    /// Only keys after this one.
    #[param(nullable = false)]
    after: Option<String>,
    /// The size of the page.
    #[param(minimum = 1, maximum = 10_000, default = 1000, nullable = false)]
    limit: Option<u64>,
    /// Only keys of this placement.
    #[param(nullable = false)]
    placement: Option<String>,
    /// Only keys with this prefix.
    #[param(nullable = false)]
    prefix: Option<String>,
}

/// The filters of a page.
struct Filter<'a> {
    after: Option<&'a str>,
    prefix: &'a str,
    placement: Option<PlacementId>,
}

fn page<'a>(newest: &'a Arc<Generation>, filter: &Filter<'_>, limit: usize) -> KeyPage<'a> {
    let table: &RoutingTable = &newest.table;
    // A heap of the smallest keys so far, the largest of them on top.
    let mut first = BinaryHeap::with_capacity(limit);
    let mut found = 0;
    for entry in table.keys() {
        let (key, placement) = entry;
        if filter.after.is_some_and(|after| key <= after)
            || !key.starts_with(filter.prefix)
            || filter.placement.is_some_and(|wanted| placement != wanted)
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
    KeyPage {
        generation: newest.record.generation,
        next: keys.last().filter(|_| remaining > 0).map(|last| last.key),
        keys,
        remaining,
    }
}

fn unknown_key(key: &str, newest: &Generation) -> ApiError {
    let default = newest.table.placement(newest.table.default_placement());
    let message = format!(
        "no key {:?} in generation {} (requests with it go to the default placement {:?})",
        shown(key),
        newest.record.generation,
        default.name
    );
    ApiError::not_found("unknown_key", message).with_etag(Some(newest))
}

/// At most 64 characters of a key, for a message.
fn shown(key: &str) -> String {
    match key.char_indices().nth(64) {
        Some((end, _)) => format!("{}…", key.get(..end).unwrap_or_default()),
        None => key.to_owned(),
    }
}
