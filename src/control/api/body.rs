//! Request bodies: JSON, bounded in size and time.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::error::ApiError;
use super::limits::Permit;
use super::request::ApiRequest;

/// Largest body other than a routing document, in bytes.
const MAX_BYTES: usize = 16 << 20;

/// How long a client may take for each [`MIN_PROGRESS`] bytes.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);

/// In bytes; about 2 KB a second.
const MIN_PROGRESS: usize = 64 * 1024;

/// Most bytes that are allocated for an announced length, so that only a client that sends much
/// costs much. A larger body requires a permit.
const PREALLOCATED: usize = 1 << 20;

/// A body, and the permit to keep it and what is made of it in memory.
pub(super) type Held<T> = (T, Option<Permit>);

/// Reads a body of at most `max` bytes.
///
/// # Errors
/// The body is larger, is declared as something other than JSON, stalls or breaks off; or it is
/// large, and too many other large bodies are being read.
pub(super) async fn read(
    request: &ApiRequest,
    mut body: Body,
    max: usize,
) -> Result<Held<Bytes>, ApiError> {
    check_type(request, body.is_end_stream())?;
    let too_large = || {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("the body has more than {max} bytes"),
        )
    };
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > max) {
        return Err(too_large());
    }
    let limits = &request.control.request_limits;
    let mut permit = None;
    if length.is_some_and(|length| length > PREALLOCATED) {
        permit = Some(limits.body().await?);
    }
    let mut bytes = Vec::with_capacity(length.unwrap_or_default().min(PREALLOCATED));
    let (mut deadline, mut enough) = (Instant::now() + PROGRESS_TIMEOUT, MIN_PROGRESS);
    loop {
        let frame = tokio::time::timeout_at(deadline, body.frame()).await;
        let frame = frame.map_err(|_| {
            let message = format!(
                "less than {MIN_PROGRESS} bytes of the body arrived in {} s",
                PROGRESS_TIMEOUT.as_secs()
            );
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
        })?;
        match frame {
            None => return Ok((bytes.into(), permit)),
            Some(Err(error)) => {
                let message = format!("the body broke off: {error}");
                return Err(ApiError::bad("invalid_body", message));
            }
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                if data.len() > max - bytes.len() {
                    return Err(too_large());
                }
                if permit.is_none() && bytes.len() + data.len() > PREALLOCATED {
                    permit = Some(limits.body().await?);
                    deadline = Instant::now() + PROGRESS_TIMEOUT;
                }
                bytes.extend_from_slice(&data);
                if bytes.len() >= enough {
                    deadline = Instant::now() + PROGRESS_TIMEOUT;
                    enough = bytes.len() + MIN_PROGRESS;
                }
            }
        }
    }
}

/// Reads a body that is a `T` in JSON.
///
/// # Errors
/// As [`read`]; and when the body is not a `T`.
pub(super) async fn json<T: DeserializeOwned>(
    request: &ApiRequest,
    body: Body,
) -> Result<Held<T>, ApiError> {
    let (bytes, permit) = read(request, body, MAX_BYTES).await?;
    let value = serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::bad("invalid_body", format!("body: {error}")))?;
    Ok((value, permit))
}

/// Reads the body of a request that must have none.
///
/// # Errors
/// There is one.
pub(super) async fn none(request: &ApiRequest, body: Body) -> Result<(), ApiError> {
    match read(request, body, MAX_BYTES).await?.0.is_empty() {
        true => Ok(()),
        false => Err(ApiError::bad("invalid_body", "this request takes no body")),
    }
}

/// Without tokens, a body must be declared as JSON: a browser sends such a body across sites only
/// if the target allows it. With tokens, an undeclared body is read as JSON.
fn check_type(request: &ApiRequest, empty: bool) -> Result<(), ApiError> {
    let unsupported = |code, message| {
        Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            code,
            message,
        ))
    };
    let shown = |value: &HeaderValue| {
        String::from_utf8_lossy(value.as_bytes())
            .escape_debug()
            .to_string()
    };
    match request.headers().get(CONTENT_TYPE) {
        Some(kind) => {
            let essence = kind.to_str().unwrap_or_default().split(';').next();
            let essence = essence.unwrap_or_default().trim().to_ascii_lowercase();
            let json = essence == "application/json"
                || (essence.starts_with("application/") && essence.ends_with("+json"));
            if !json {
                let message = format!("Content-Type: {} (valid: application/json)", shown(kind));
                return unsupported("unsupported_media_type", message);
            }
        }
        None if !empty && !request.control.access.has_tokens() => {
            let message = "no Content-Type (valid: application/json)".to_owned();
            return unsupported("unsupported_media_type", message);
        }
        None => {}
    }
    match request.headers().get(CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => unsupported(
            "unsupported_content_coding",
            format!("Content-Encoding: {} (valid: none)", shown(coding)),
        ),
        _ => Ok(()),
    }
}
