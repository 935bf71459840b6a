//! The whole routing document.

use axum::body::Body;
use axum::response::Response;

use super::call::Call;
use super::refused::Refused;
use super::{answer, body};
use crate::control::core::Edit;

/// `GET document`.
pub(super) async fn get(call: Call) -> Result<Response, Refused> {
    call.query(&[])?;
    let newest = call.truth().newest().ok_or_else(Refused::nothing_yet)?;
    answer::document(&call, &newest, None).await
}

/// `PUT document`.
pub(super) async fn put(call: Call, body: Body) -> Result<Response, Refused> {
    call.query(&[])?;
    let expected = call.expected()?;
    let most = usize::try_from(call.control.document_bytes).unwrap_or(usize::MAX);
    let (document, turn) = body::read(&call, body, most).await?;
    let edit = Edit::Document(document);
    answer::commit(&call, edit, &expected, "put document".to_owned(), turn).await
}
