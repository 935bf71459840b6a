//! The history: records and documents of generations, and restoring one.

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::error::ApiError;
use super::limits::Permit;
use super::openapi::{Cached, Conditions, Document, Fails, NotModified, ReadErrors, WriteErrors};
use super::request::ApiRequest;
use super::response::{self, WrittenResponse};
use super::{body, document};
use crate::control::core::{Edit, Etag};
use crate::control::store::{Generation, Record};

/// Most records of a page.
const PAGE: usize = 1000;

/// A page of the history.
#[derive(Serialize, ToSchema)]
struct GenerationPage {
    /// Newest first.
    generations: Vec<Record>,
    /// The value of `before` for the next page; null: this is the last page.
    #[schema(required)]
    next: Option<u64>,
}

/// The query of [`list`].
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters that `list` reads")]
struct PageQuery {
    /// Only generations below this one.
    #[param(nullable = false)]
    before: Option<u64>,
    /// The size of the page.
    #[param(minimum = 1, maximum = 1000, default = 100, nullable = false)]
    limit: Option<u64>,
}

/// List generations, newest first, in pages
#[utoipa::path(
    get, path = "/api/v1/generations", operation_id = "listGenerations", tag = "generations",
    params(
        PageQuery, Cached
    ),
    responses(
        (status = 200, description = "A page. It has an ETag if it starts with the newest generation.",
            body = GenerationPage,
            headers(("ETag" = Etag, description = "The generation that the answer describes."))),
        NotModified, ReadErrors, Fails<503>
    )
)]
pub(super) async fn list(request: ApiRequest) -> Result<Response, ApiError> {
    let query = request.query(&["before", "limit"])?;
    let limit = query.number("limit", 1..=PAGE)?.unwrap_or(100);
    let before = query.number("before", 0..=u64::MAX)?;
    let store = request.truth().store();
    let mut records = store.records(before, limit + 1).await?;
    let more = records.len() > limit;
    records.truncate(limit);
    let newest = records.first().filter(|_| before.is_none());
    let etag = newest.map(|newest| Etag::of(newest.mark()));
    let page = GenerationPage {
        next: records.last().filter(|_| more).map(|last| last.generation),
        generations: records,
    };
    Ok(match etag {
        Some(etag) => response::tagged(&request, &etag, &page),
        None => response::json(StatusCode::OK, &page),
    })
}

/// Get the record of a generation
#[utoipa::path(
    get, path = "/api/v1/generations/{generation}", operation_id = "getGeneration",
    tag = "generations", params(("generation" = u64, Path), Cached),
    responses(
        (status = 200, description = "The record.", body = Record,
            headers(("ETag" = Etag, description = "The generation that the answer describes."))),
        NotModified, ReadErrors, Fails<404>, Fails<503>
    )
)]
pub(super) async fn get(request: ApiRequest) -> Result<Response, ApiError> {
    request.query(&[])?;
    let generation = request.generation()?;
    let newest = request.truth().newest();
    let record = match &newest {
        Some(newest) if newest.record.generation == generation => newest.record.clone(),
        // Only the record: loading the table may be expensive.
        newest => {
            let above = generation.checked_add(1);
            let records = request.truth().store().records(above, 1).await?;
            let found = records.into_iter().next();
            found
                .filter(|found| found.generation == generation)
                .ok_or_else(|| unknown(generation, newest.as_deref()))?
        }
    };
    let etag = Etag::of(record.mark());
    Ok(response::tagged(&request, &etag, &record))
}

/// Get the document of a generation, streamed
#[utoipa::path(
    get, path = "/api/v1/generations/{generation}/document",
    operation_id = "getGenerationDocument", tag = "generations",
    params(("generation" = u64, Path), Cached),
    responses(
        (status = 200, description = "The document.", body = Document,
            headers(("ETag" = Etag, description = "The generation that the answer describes."))),
        NotModified, ReadErrors, Fails<404>, Fails<503>
    )
)]
pub(super) async fn document(request: ApiRequest) -> Result<Response, ApiError> {
    request.query(&[])?;
    let mut held = None;
    let found = find(&request, request.generation()?, &mut held).await?;
    document::streamed(&request, &found, held).await
}

/// Make the content of a generation the newest generation
#[utoipa::path(
    post, path = "/api/v1/generations/{generation}/restore", operation_id = "restoreGeneration",
    tag = "generations", params(("generation" = u64, Path), Conditions),
    responses(WrittenResponse, WriteErrors, Fails<404>)
)]
pub(super) async fn restore(request: ApiRequest, body: Body) -> Result<Response, ApiError> {
    request.query(&[])?;
    let generation = request.generation()?;
    let expected = request.expected()?;
    body::none(&request, body).await?;
    let mut held = None;
    let found = find(&request, generation, &mut held).await?;
    let edit = Edit::Table(Arc::clone(&found.table));
    let what = format!("restore {generation}");
    response::commit(&request, edit, &expected, what, held).await
}

/// A generation that is still kept. Loading one other than the newest requires a permit, which is
/// put into `held` and covers all that one request loads.
pub(super) async fn find(
    request: &ApiRequest,
    generation: u64,
    held: &mut Option<Permit>,
) -> Result<Arc<Generation>, ApiError> {
    let newest = request.truth().newest();
    if let Some(newest) = &newest
        && newest.record.generation == generation
    {
        return Ok(Arc::clone(newest));
    }
    if held.is_none() {
        *held = Some(request.control.request_limits.past_generation().await?);
    }
    match request.truth().store().generation(generation).await? {
        Some(found) => Ok(Arc::new(found)),
        None => Err(unknown(generation, newest.as_deref())),
    }
}

fn unknown(generation: u64, newest: Option<&Generation>) -> ApiError {
    let why = match newest {
        None => "there is none yet".to_owned(),
        Some(newest) if newest.record.generation < generation => {
            format!("the newest is {}", newest.record.generation)
        }
        Some(_) => "it never existed, or is no longer kept".to_owned(),
    };
    let message = format!("there is no generation {generation}: {why}");
    ApiError::not_found("unknown_generation", message)
}
