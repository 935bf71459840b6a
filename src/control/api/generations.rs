//! What there was, and back to it.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use serde::Serialize;

use super::call::Call;
use super::refused::Refused;
use super::{answer, body};
use crate::control::core::{Edit, Etag};
use crate::control::store::{Generation, Record};

/// Most records of a page.
const PAGE: usize = 1000;

#[derive(Serialize)]
struct Page {
    /// Newest first.
    generations: Vec<Record>,
    /// Where the next page begins: before this generation. None: there is no more.
    next: Option<u64>,
}

/// `GET generations`.
pub(super) async fn list(call: Call) -> Result<Response, Refused> {
    let query = call.query(&["before", "limit"])?;
    let limit = query.number("limit", 1..=PAGE)?.unwrap_or(100);
    let before = query.number("before", 0..=u64::MAX)?;
    let store = call.truth().store();
    let mut records = store.records(before, limit + 1).await?;
    let more = records.len() > limit;
    records.truncate(limit);
    let newest = records.first().filter(|_| before.is_none());
    let etag = newest.map(|newest| Etag::of(newest.mark()));
    let page = Page {
        next: records.last().filter(|_| more).map(|last| last.generation),
        generations: records,
    };
    Ok(match etag {
        Some(etag) => answer::tagged(&call, &etag, &page),
        None => answer::json(axum::http::StatusCode::OK, &page),
    })
}

/// `GET generations/{generation}`.
pub(super) async fn get(call: Call) -> Result<Response, Refused> {
    call.query(&[])?;
    let found = find(&call, call.generation()?).await?;
    let etag = Etag::of(found.record.mark());
    Ok(answer::tagged(&call, &etag, &found.record))
}

/// `GET generations/{generation}/document`.
pub(super) async fn document(call: Call) -> Result<Response, Refused> {
    call.query(&[])?;
    let found = find(&call, call.generation()?).await?;
    Ok(answer::document(&call, &found))
}

/// `POST generations/{generation}/restore`.
pub(super) async fn restore(call: Call, body: Body) -> Result<Response, Refused> {
    call.query(&[])?;
    let generation = call.generation()?;
    let expected = call.expected()?;
    body::none(&call, body).await?;
    let found = find(&call, generation).await?;
    let edit = Edit::Table(Arc::clone(&found.table));
    answer::commit(&call, edit, &expected, format!("restore {generation}")).await
}

/// A generation that is still kept.
pub(super) async fn find(call: &Call, generation: u64) -> Result<Arc<Generation>, Refused> {
    let newest = call.truth().newest();
    if let Some(newest) = &newest
        && newest.record.generation == generation
    {
        return Ok(Arc::clone(newest));
    }
    match call.truth().store().generation(generation).await? {
        Some(found) => Ok(Arc::new(found)),
        None => Err(unknown(generation, newest.as_deref())),
    }
}

fn unknown(generation: u64, newest: Option<&Generation>) -> Refused {
    let why = match newest {
        None => "there is none yet".to_owned(),
        Some(newest) if newest.record.generation < generation => {
            format!("the newest is {}", newest.record.generation)
        }
        Some(_) => "there never was, or it is not kept any more".to_owned(),
    };
    let message = format!("there is no generation {generation}: {why}");
    Refused::not_found("unknown_generation", message)
}
