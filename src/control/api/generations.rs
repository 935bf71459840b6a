//! What there was, and back to it.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use serde::Serialize;

use super::call::Call;
use super::refused::Refused;
use super::turns::Turn;
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
    let generation = call.generation()?;
    let newest = call.truth().newest();
    let record = match &newest {
        Some(newest) if newest.record.generation == generation => newest.record.clone(),
        // Its record alone: its table may be large, and in many pieces.
        newest => {
            let above = generation.checked_add(1);
            let records = call.truth().store().records(above, 1).await?;
            let found = records.into_iter().next();
            found
                .filter(|found| found.generation == generation)
                .ok_or_else(|| unknown(generation, newest.as_deref()))?
        }
    };
    let etag = Etag::of(record.mark());
    Ok(answer::tagged(&call, &etag, &record))
}

/// `GET generations/{generation}/document`.
pub(super) async fn document(call: Call) -> Result<Response, Refused> {
    call.query(&[])?;
    let mut held = None;
    let found = find(&call, call.generation()?, &mut held).await?;
    answer::document(&call, &found, held).await
}

/// `POST generations/{generation}/restore`.
pub(super) async fn restore(call: Call, body: Body) -> Result<Response, Refused> {
    call.query(&[])?;
    let generation = call.generation()?;
    let expected = call.expected()?;
    body::none(&call, body).await?;
    let mut held = None;
    let found = find(&call, generation, &mut held).await?;
    let edit = Edit::Table(Arc::clone(&found.table));
    let what = format!("restore {generation}");
    answer::commit(&call, edit, &expected, what, held).await
}

/// A generation that is still kept. Unless that is the newest, it takes a turn, which
/// is put into `held` and is good for all that one request looks at.
pub(super) async fn find(
    call: &Call,
    generation: u64,
    held: &mut Option<Turn>,
) -> Result<Arc<Generation>, Refused> {
    let newest = call.truth().newest();
    if let Some(newest) = &newest
        && newest.record.generation == generation
    {
        return Ok(Arc::clone(newest));
    }
    if held.is_none() {
        *held = Some(call.control.turns.old().await?);
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
