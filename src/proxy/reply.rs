//! Answers that the edge gives itself.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use super::context::RequestContext;
use super::failure::Failure;
use super::response;

/// Answers with the failure's status and a small JSON body; the detail is for
/// the log. Whether the connection stays open is for the caller to decide.
pub(super) async fn failure(
    session: &mut Session,
    ctx: &RequestContext,
    failure: Failure,
) -> pingora::Result<()> {
    // Neither the codes, the messages nor the id can contain what JSON escapes,
    // except the id's quotes and backslashes.
    let body = serde_json::json!({
        "error": failure.code,
        "message": failure.message,
        "request_id": ctx.request_id(),
    });
    let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut header = ResponseHeader::build(status, Some(8))?;
    header.insert_header(CACHE_CONTROL, HeaderValue::from_static("no-store"))?;
    let again = matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    );
    if again {
        let rejected = ctx.target.as_ref().and_then(|target| target.rejected);
        let wait = rejected.map_or(Duration::ZERO, |rejected| rejected.retry_after);
        header.insert_header(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)))?;
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        header.insert_header(
            "Allow",
            "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE",
        )?;
    }
    json(session, ctx, header, body.to_string()).await
}

/// At least one, rounded up: `Retry-After` has no fractions (RFC 9110 §10.2.3).
fn whole_seconds(time: Duration) -> u64 {
    let fraction = u64::from(time.subsec_nanos() > 0);
    (time.as_secs() + fraction).max(1)
}

/// Sends a JSON answer.
pub(super) async fn json(
    session: &mut Session,
    ctx: &RequestContext,
    mut header: ResponseHeader,
    body: String,
) -> pingora::Result<()> {
    header.insert_header(CONTENT_TYPE, HeaderValue::from_static("application/json"))?;
    header.set_content_length(body.len())?;
    response::announce(session, ctx);
    let bodiless = session.req_header().method == http::Method::HEAD;
    session
        .write_response_header(Box::new(header), bodiless)
        .await?;
    if !bodiless {
        session
            .write_response_body(Some(Bytes::from(body)), true)
            .await?;
    }
    Ok(())
}
