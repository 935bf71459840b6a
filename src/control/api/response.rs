//! Successful responses.

use std::sync::Arc;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use super::error::ApiError;
use super::limits::Permit;
use super::request::ApiRequest;
use crate::control::core::{Committed, Edit, Etag, Expected};
use crate::control::store::Record;

pub(super) const JSON: &str = "application/json";

/// A value that must not be cached.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let mut body = match serde_json::to_vec(value) {
        Ok(body) => body,
        Err(error) => {
            log::error!(target: "cellgate::control", "cannot write a response: {error}");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    // For readers on a terminal.
    body.push(b'\n');
    let headers = [(CONTENT_TYPE, JSON), (CACHE_CONTROL, "no-store")];
    (status, headers, body).into_response()
}

/// A value that is valid while `etag` is the newest generation; 304 if the caller has it.
pub(super) fn tagged(request: &ApiRequest, etag: &Etag, value: &impl Serialize) -> Response {
    match request.has(etag) {
        true => not_modified(etag),
        false => with_etag(json(StatusCode::OK, value), etag),
    }
}

pub(super) fn not_modified(etag: &Etag) -> Response {
    with_etag(StatusCode::NOT_MODIFIED.into_response(), etag)
}

/// Adds an entity tag: caches must revalidate before they use the response.
pub(super) fn with_etag(mut response: Response, etag: &Etag) -> Response {
    if let Ok(etag) = HeaderValue::try_from(etag.to_string()) {
        let headers = response.headers_mut();
        headers.insert(ETAG, etag);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    response
}

/// The record of the generation that has the requested content.
#[derive(Serialize, ToSchema)]
pub(super) struct Written<'a> {
    #[serde(flatten)]
    record: &'a Record,
    /// False: nothing had to be changed, and this is the generation that was there before.
    changed: bool,
}

/// The record of the generation that has the requested content.
#[derive(IntoResponses)]
#[response(
    status = 200,
    headers(("ETag" = Etag, description = "The generation that the answer describes."))
)]
#[expect(dead_code, reason = "describes the response of `written`")]
pub(super) struct WrittenResponse(Written<'static>);

/// Makes a change. `held` is what the change needs until it is made.
///
/// # Errors
/// The reason why nothing was changed.
pub(super) async fn commit(
    request: &ApiRequest,
    edit: Edit,
    expected: &Expected,
    what: String,
    held: Option<Permit>,
) -> Result<Response, ApiError> {
    let (truth, expected) = (Arc::clone(request.truth()), expected.clone());
    let author = request.author(what);
    // A change that has begun is carried through even if the client leaves, and keeps its permit.
    let task = tokio::spawn(async move {
        let committed = truth.commit(edit, &expected, author).await;
        drop(held);
        committed
    });
    Ok(written(&task.await.map_err(ApiError::internal)??))
}

/// The response to a change; 201 for the first generation.
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
