//! What goes back when all is well.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::call::Call;
use super::refused::Refused;
use super::stream::Document;
use super::turns::{Turn, holding};
use crate::control::core::{CommitError, Committed, Edit, Etag, Expected};
use crate::control::store::{Generation, Record};

pub(super) const JSON: &str = "application/json";

/// A value that is true for a moment.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let mut body = match serde_json::to_vec(value) {
        Ok(body) => body,
        Err(error) => {
            log::error!(target: "cellgate::control", "an answer could not be written: {error}");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    // For those who read it in a terminal.
    body.push(b'\n');
    let headers = [(CONTENT_TYPE, JSON), (CACHE_CONTROL, "no-store")];
    (status, headers, body).into_response()
}

/// A value that is true for as long as `etag` is the newest.
pub(super) fn tagged(call: &Call, etag: &Etag, value: &impl Serialize) -> Response {
    if call.has(etag) {
        return not_modified(etag);
    }
    with_etag(json(StatusCode::OK, value), etag)
}

/// A whole document, piece by piece. `held` is what the generation needs.
///
/// # Errors
/// Too many are being sent.
pub(super) async fn document(
    call: &Call,
    generation: &Generation,
    held: Option<Turn>,
) -> Result<Response, Refused> {
    let etag = Etag::of(generation.record.mark());
    if call.has(&etag) {
        return Ok(not_modified(&etag));
    }
    let turn = call.control.turns.answer().await?;
    let body = Body::new(Document::of(generation.table.clone()));
    let response = with_etag(([(CONTENT_TYPE, JSON)], body).into_response(), &etag);
    Ok(holding(response, (turn, held)))
}

fn not_modified(etag: &Etag) -> Response {
    with_etag(StatusCode::NOT_MODIFIED.into_response(), etag)
}

/// What anyone keeps of it they ask about before they use it.
pub(super) fn with_etag(mut response: Response, etag: &Etag) -> Response {
    if let Ok(etag) = HeaderValue::try_from(etag.to_string()) {
        let headers = response.headers_mut();
        headers.insert(ETAG, etag);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    response
}

/// The record of the generation that has what was asked for.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    record: &'a Record,
    /// False: all was so already, and this is the generation that was there.
    changed: bool,
}

/// Makes a change, and answers with what came of it. `held` is what it needs.
///
/// # Errors
/// Why nothing was changed.
pub(super) async fn commit(
    call: &Call,
    edit: Edit,
    expected: &Expected,
    what: String,
    held: Option<Turn>,
) -> Result<Response, Refused> {
    let (truth, expected) = (Arc::clone(call.truth()), expected.clone());
    let author = call.author(what);
    // Once begun, it is carried through, and needs its turn until then.
    let task = tokio::spawn(async move {
        let committed = truth.commit(edit, &expected, author).await;
        drop(held);
        committed
    });
    Ok(written(&task.await.map_err(Refused::given_up)??))
}

pub(super) fn written(committed: &Committed) -> Response {
    let record = &committed.generation().record;
    let changed = matches!(committed, Committed::Changed(_));
    let status = match changed && record.parent == 0 {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    let response = json(status, &Written { record, changed });
    with_etag(response, &Etag::of(record.mark()))
}

impl From<CommitError> for Refused {
    fn from(error: CommitError) -> Self {
        let message = error.to_string();
        match error {
            CommitError::Lost(newest) => Self::lost(newest.as_deref()),
            CommitError::Invalid(problems) => Self::invalid(problems),
            CommitError::Store(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_failed", message)
            }
            CommitError::Unknown(_) => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", message)
            }
        }
    }
}
