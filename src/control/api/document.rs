//! The routing document: read and replaced as a whole, and written while it is sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use tokio::sync::Semaphore;

use super::body;
use super::error::ApiError;
use super::limits::{Permit, holding};
use super::openapi::{Cached, Conditions, Document, Fails, NotModified, ReadErrors, WriteErrors};
use super::request::ApiRequest;
use super::response::{self, JSON, Written, WrittenResponse};
use crate::control::core::{Edit, Etag};
use crate::control::document::Lines;
use crate::control::store::Generation;
use crate::table::RoutingTable;

/// Get the newest routing document, streamed
#[utoipa::path(
    get, path = "/api/v1/document", operation_id = "getDocument", tag = "document", params(Cached),
    responses(
        (status = 200, description = "The document.", body = Document,
            headers(("ETag" = Etag, description = "The generation that the answer describes."))),
        NotModified, ReadErrors, Fails<404>, Fails<503>
    )
)]
pub(super) async fn get(request: ApiRequest) -> Result<Response, ApiError> {
    request.query(&[])?;
    let newest = request.truth().newest().ok_or_else(ApiError::no_document)?;
    streamed(&request, &newest, None).await
}

/// Replace the routing document
#[utoipa::path(
    put, path = "/api/v1/document", operation_id = "putDocument", tag = "document",
    params(Conditions), request_body = Document,
    responses(
        WrittenResponse,
        (status = 201, description = "The first generation was made.", body = Written,
            headers(("ETag" = Etag, description = "The generation that the answer describes."))),
        WriteErrors
    )
)]
pub(super) async fn put(request: ApiRequest, body: Body) -> Result<Response, ApiError> {
    request.query(&[])?;
    let expected = request.expected()?;
    let max = usize::try_from(request.control.document_bytes).unwrap_or(usize::MAX);
    let (document, permit) = body::read(&request, body, max).await?;
    let edit = Edit::Document(document);
    response::commit(&request, edit, &expected, "put document".to_owned(), permit).await
}

/// Sends the document of `generation`; 304 if the client has it. `held` is kept until it is sent.
///
/// # Errors
/// Too many documents are being sent.
pub(super) async fn streamed(
    request: &ApiRequest,
    generation: &Generation,
    held: Option<Permit>,
) -> Result<Response, ApiError> {
    let etag = Etag::of(generation.record.mark());
    if request.has(&etag) {
        return Ok(response::not_modified(&etag));
    }
    let permit = request.control.request_limits.response().await?;
    let body = Body::new(DocumentBody::new(generation.table.clone()));
    let response = ([(CONTENT_TYPE, JSON)], body).into_response();
    Ok(holding(
        response::with_etag(response, &etag),
        (permit, held),
    ))
}

/// How many tables are sorted at once; each takes a processor for up to a second.
pub(super) const SORTERS: usize = 2;

pub(super) static SORTING: Semaphore = Semaphore::const_new(SORTERS);

/// A document as a response body. It holds a sorted list of the keys: their text and 16 bytes each,
/// however slowly the client reads.
pub(super) struct DocumentBody(State);

enum State {
    /// Starts with the first poll.
    Sorting(Pin<Box<dyn Future<Output = io::Result<Lines>> + Send>>),
    Writing(Lines),
    Done,
}

impl DocumentBody {
    pub fn new(table: Arc<RoutingTable>) -> Self {
        Self(State::Sorting(Box::pin(async move {
            let _permit = SORTING.acquire().await;
            let sorted = tokio::task::spawn_blocking(move || Lines::of(&table));
            sorted.await.map_err(io::Error::other)?
        })))
    }
}

impl http_body::Body for DocumentBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let State::Sorting(sorting) = &mut self.0 {
            match ready!(sorting.as_mut().poll(context)) {
                Ok(sorted) => self.0 = State::Writing(sorted),
                Err(error) => {
                    self.0 = State::Done;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        let State::Writing(sorted) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let piece = sorted.piece();
        if sorted.is_done() {
            self.0 = State::Done;
        }
        Poll::Ready(Some(piece.map(|piece| Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, State::Done)
    }
}
