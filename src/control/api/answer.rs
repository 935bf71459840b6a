//! What goes back when all is well.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::call::Call;
use super::refused::Refused;
use super::stream::Document;
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

/// A whole document, piece by piece.
pub(super) fn document(call: &Call, generation: &Generation) -> Response {
    let etag = Etag::of(generation.record.mark());
    if call.has(&etag) {
        return not_modified(&etag);
    }
    let body = Body::new(Document::of(generation.table.clone()));
    with_etag(([(CONTENT_TYPE, JSON)], body).into_response(), &etag)
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

/// Makes a change, and answers with what came of it.
///
/// # Errors
/// Why nothing was changed.
pub(super) async fn commit(
    call: &Call,
    edit: Edit,
    expected: &Expected,
    what: String,
) -> Result<Response, Refused> {
    let committed = call.truth().commit(edit, expected, call.author(what)).await;
    Ok(written(&committed?))
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
