//! Bodies of requests: bounded in size and time, and JSON.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::call::Call;
use super::refused::Refused;
use super::turns::Turn;

/// Largest body that is not a document, in bytes.
const MOST: usize = 16 << 20;

/// For how long less than [`LEAST`] bytes may come that are not the last.
const STALLED: Duration = Duration::from_secs(30);

/// In bytes; about 2 KB a second.
const LEAST: usize = 64 * 1024;

/// What is set aside for a body that announces its length, at most: whoever
/// announces much must send much before it costs much. A body that is larger takes
/// a turn.
const AHEAD: usize = 1 << 20;

/// A body, and what it needs for as long as it, or what is made of it, is there.
pub(super) type Held<T> = (T, Option<Turn>);

/// Reads a body of at most `most` bytes.
///
/// # Errors
/// It is larger, says that it is something else than JSON, stalls or breaks off; or
/// it is large, and so are too many others.
pub(super) async fn read(call: &Call, mut body: Body, most: usize) -> Result<Held<Bytes>, Refused> {
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
    if !body.is_end_stream() {
        check_said(call)?;
    }
    let mut turn = None;
    if length.is_some_and(|length| length > AHEAD) {
        turn = Some(call.control.turns.body().await?);
    }
    let mut bytes = Vec::with_capacity(length.unwrap_or_default().min(AHEAD));
    let (mut until, mut enough) = (Instant::now() + STALLED, LEAST);
    loop {
        let frame = tokio::time::timeout_at(until, body.frame()).await;
        let frame = frame.map_err(|_| {
            let message = format!(
                "less than {LEAST} bytes of the body in {} s",
                STALLED.as_secs()
            );
            Refused::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
        })?;
        match frame {
            None => return Ok((bytes.into(), turn)),
            Some(Err(error)) => {
                let message = format!("the body broke off: {error}");
                return Err(Refused::bad("invalid_body", message));
            }
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                if data.len() > most - bytes.len() {
                    return Err(too_large());
                }
                if turn.is_none() && bytes.len() + data.len() > AHEAD {
                    turn = Some(call.control.turns.body().await?);
                    until = Instant::now() + STALLED;
                }
                bytes.extend_from_slice(&data);
                if bytes.len() >= enough {
                    until = Instant::now() + STALLED;
                    enough = bytes.len() + LEAST;
                }
            }
        }
    }
}

/// Reads a body that is a `T` in JSON.
///
/// # Errors
/// As [`read`], and if it is anything else.
pub(super) async fn json<T: DeserializeOwned>(call: &Call, body: Body) -> Result<Held<T>, Refused> {
    let (bytes, turn) = read(call, body, MOST).await?;
    let read = serde_json::from_slice(&bytes)
        .map_err(|error| Refused::bad("invalid_body", format!("body: {error}")))?;
    Ok((read, turn))
}

/// Reads a body that has nothing to say.
///
/// # Errors
/// It says something.
pub(super) async fn none(call: &Call, body: Body) -> Result<(), Refused> {
    match read(call, body, MOST).await?.0.is_empty() {
        true => Ok(()),
        false => Err(Refused::bad("invalid_body", "a body where none is wanted")),
    }
}

/// Where no token is wanted, a body has to say that it is JSON: a web page cannot
/// have a browser send that without being asked whether the page may.
fn check_said(call: &Call) -> Result<(), Refused> {
    if call.control.access.has_tokens() || call.headers().contains_key(CONTENT_TYPE) {
        return Ok(());
    }
    Err(Refused::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "no Content-Type (valid: application/json)",
    ))
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
