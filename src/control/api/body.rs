//! Bodies of requests: bounded in size and time, and JSON.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::call::Call;
use super::refused::Refused;

/// Largest body that is not a document, in bytes.
const MOST: usize = 16 << 20;

/// For how long nothing may come.
const STALLED: Duration = Duration::from_secs(30);

/// What is set aside for a body that announces its length, at most: whoever
/// announces much must send much before it costs much.
const AHEAD: usize = 1 << 20;

/// Reads a body of at most `most` bytes.
///
/// # Errors
/// It is larger, says that it is something else than JSON, stalls or breaks off.
pub(super) async fn read(call: &Call, mut body: Body, most: usize) -> Result<Bytes, Refused> {
    check_type(call)?;
    let too_large = || {
        Refused::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("a body of more than {most} bytes"),
        )
    };
    let length = call.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > most) {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(length.unwrap_or_default().min(AHEAD));
    loop {
        let frame = tokio::time::timeout(STALLED, body.frame()).await;
        let frame = frame.map_err(|_| {
            let message = format!("nothing more of the body for {} s", STALLED.as_secs());
            Refused::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
        })?;
        match frame {
            None => return Ok(bytes.into()),
            Some(Err(error)) => {
                let message = format!("the body broke off: {error}");
                return Err(Refused::bad("invalid_body", message));
            }
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                if data.len() > most - bytes.len() {
                    return Err(too_large());
                }
                bytes.extend_from_slice(&data);
            }
        }
    }
}

/// Reads a body that is a `T` in JSON.
///
/// # Errors
/// As [`read`], and if it is anything else.
pub(super) async fn json<T: DeserializeOwned>(call: &Call, body: Body) -> Result<T, Refused> {
    let bytes = read(call, body, MOST).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Refused::bad("invalid_body", format!("body: {error}")))
}

/// Reads a body that has nothing to say.
///
/// # Errors
/// It says something.
pub(super) async fn none(call: &Call, body: Body) -> Result<(), Refused> {
    match read(call, body, MOST).await?.is_empty() {
        true => Ok(()),
        false => Err(Refused::bad("invalid_body", "a body where none is wanted")),
    }
}

/// Whoever sends a file without a word on what it is may mean JSON; whoever says
/// something else means that.
fn check_type(call: &Call) -> Result<(), Refused> {
    let refused = |code, message: String| {
        Err(Refused::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            code,
            message,
        ))
    };
    let shown = |value: &axum::http::HeaderValue| {
        String::from_utf8_lossy(value.as_bytes())
            .escape_debug()
            .to_string()
    };
    if let Some(kind) = call.headers().get(CONTENT_TYPE) {
        let essence = kind.to_str().unwrap_or_default().split(';').next();
        let essence = essence.unwrap_or_default().trim().to_ascii_lowercase();
        let json = essence == "application/json"
            || (essence.starts_with("application/") && essence.ends_with("+json"));
        if !json {
            let message = format!("Content-Type: {} (valid: application/json)", shown(kind));
            return refused("unsupported_media_type", message);
        }
    }
    match call.headers().get(CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => refused(
            "unsupported_content_coding",
            format!("Content-Encoding: {} (valid: none)", shown(coding)),
        ),
        _ => Ok(()),
    }
}
