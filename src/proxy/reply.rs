//! Answers that the edge gives itself.

use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::EdgeProxy;
use super::headers::{Change, Changes, routing};
use crate::exchange::{Destination, Exchange, Failure};

/// An answer of the edge's own, with a JSON body. The engine adds the framing, and decides
/// whether the connection stays open.
pub(super) struct Reply {
    pub status: StatusCode,
    pub fields: Changes,
    pub body: String,
}

/// The answer to a request that failed: its status and a small JSON body. Details are for
/// the log.
pub(super) fn failure(exchange: &Exchange, failure: Failure) -> Reply {
    let body = serde_json::json!({
        "error": failure.code,
        "message": failure.message,
        "request_id": exchange.id_str(),
    });
    let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = json(exchange, status, body.to_string());
    let mut set = |name, value| reply.fields.push(Change::Set(name, value));
    set("Cache-Control", HeaderValue::from_static("no-store"));
    match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            let destination = exchange.destination.as_ref();
            let rejected = destination.and_then(Destination::rejected);
            let wait = rejected.map_or(Duration::ZERO, |rejected| rejected.retry_after);
            set("Retry-After", HeaderValue::from(whole_seconds(wait)));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            let methods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE";
            set("Allow", HeaderValue::from_static(methods));
        }
        _ => {}
    }
    reply
}

/// At least one, rounded up: `Retry-After` has no fractions (RFC 9110 §10.2.3).
fn whole_seconds(time: Duration) -> u64 {
    let fraction = u64::from(time.subsec_nanos() > 0);
    (time.as_secs() + fraction).max(1)
}

fn json(exchange: &Exchange, status: StatusCode, body: String) -> Reply {
    let mut fields = routing(exchange);
    fields.push(Change::Set(
        "Content-Type",
        HeaderValue::from_static("application/json"),
    ));
    fields.push(Change::Set("Content-Length", HeaderValue::from(body.len())));
    Reply {
        status,
        fields,
        body,
    }
}

impl EdgeProxy {
    /// The answer to `/debug/config`.
    pub(super) fn config_reply(&self, exchange: &Exchange) -> Reply {
        let mut status = self.state.status();
        // A client must not learn where the control plane is.
        status.control_plane = None;
        let status = serde_json::to_string(&status).unwrap_or_default();
        json(exchange, StatusCode::OK, status)
    }
}
