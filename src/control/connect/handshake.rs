//! The HTTP request to connect: authorization, limits, dialect, and the WebSocket upgrade.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{
    AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL, UPGRADE, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::{self};

use super::metrics::Refused;
use super::websocket::EdgeSocket;
use super::{Hub, m3, v1};
use crate::control::Peer;
use crate::control::access::{Denied, Role};
use crate::control::core::Dialect;
use crate::control::server::ConnectionSlot;
use crate::protocol::SUBPROTOCOL;

/// `/connect`.
pub(super) async fn connect(
    State(hub): State<Arc<Hub>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    let permit = match admit(&hub, &request) {
        Ok(permit) => permit,
        Err(refusal) => {
            let (why, response) = *refusal;
            hub.metrics.refused(why);
            return response;
        }
    };
    let mut response = match create_response_with_body(&request, Body::empty) {
        Ok(response) => response,
        Err(error) => {
            hub.metrics.refused(Refused::Malformed);
            return malformed(&error);
        }
    };
    let dialect = dialect(request.headers());
    if dialect == Dialect::V1 {
        response.headers_mut().insert(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(SUBPROTOCOL),
        );
    }
    // Absent in tests without a server.
    let slot = request.extensions().get::<Arc<ConnectionSlot>>().cloned();
    if let Some(slot) = &slot {
        slot.become_edge();
    }
    tokio::spawn(async move {
        serve(hub, peer, dialect, permit, request).await;
        drop(slot);
    });
    response
}

async fn serve(
    hub: Arc<Hub>,
    peer: Peer,
    dialect: Dialect,
    permit: OwnedSemaphorePermit,
    request: Request,
) {
    let Ok(upgraded) = hyper::upgrade::on(request).await else {
        return;
    };
    let rate = match dialect {
        Dialect::V1 => hub.times.min_rate,
        Dialect::M3 => hub.times.min_rate_m3,
    };
    let socket = EdgeSocket::new(upgraded, &hub, rate).await;
    match dialect {
        Dialect::V1 => v1::serve(&hub, &peer, socket).await,
        Dialect::M3 => m3::serve(&hub, &peer, socket).await,
    }
    drop(permit);
}

/// Checks the token and the limit of connected edges.
fn admit(hub: &Hub, request: &Request) -> Result<OwnedSemaphorePermit, Box<(Refused, Response)>> {
    let authorization = request.headers().get(AUTHORIZATION);
    if let Err(denied) = hub.control.access.check(authorization, Role::Edge) {
        let (why, status) = match denied {
            Denied::Unknown => (Refused::Unauthorized, StatusCode::UNAUTHORIZED),
            Denied::Forbidden { .. } | Denied::NoTokens { .. } => {
                (Refused::Forbidden, StatusCode::FORBIDDEN)
            }
        };
        let mut response = error(status, &denied.to_string());
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"cellgate\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        return Err(Box::new((why, response)));
    }
    let later = |why, text: &str| {
        let mut response = error(StatusCode::SERVICE_UNAVAILABLE, text);
        let seconds = HeaderValue::from_static("5");
        response.headers_mut().insert(RETRY_AFTER, seconds);
        Box::new((why, response))
    };
    if *hub.ending.borrow() {
        return Err(later(Refused::Ending, "this control plane shuts down"));
    }
    Arc::clone(&hub.edge_permits)
        .try_acquire_owned()
        .map_err(|_| {
            let text = format!(
                "{} edges are already connected",
                hub.control.limits.max_edges
            );
            later(Refused::Full, &text)
        })
}

/// The dialect: `cellgate.v1` if the client offers it, otherwise M3.
fn dialect(headers: &HeaderMap) -> Dialect {
    let offered = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|protocol| protocol.trim() == SUBPROTOCOL);
    match offered {
        true => Dialect::V1,
        false => Dialect::M3,
    }
}

fn malformed(why: &tungstenite::Error) -> Response {
    let status = match why {
        tungstenite::Error::Protocol(ProtocolError::WrongHttpMethod) => {
            StatusCode::METHOD_NOT_ALLOWED
        }
        tungstenite::Error::Protocol(
            ProtocolError::MissingConnectionUpgradeHeader
            | ProtocolError::MissingUpgradeWebSocketHeader
            | ProtocolError::MissingSecWebSocketVersionHeader,
        ) => StatusCode::UPGRADE_REQUIRED,
        _ => StatusCode::BAD_REQUEST,
    };
    let mut response = error(status, &format!("not a WebSocket handshake: {why}"));
    let fields: &[(HeaderName, &str)] = match status {
        StatusCode::METHOD_NOT_ALLOWED => &[(http::header::ALLOW, "GET")],
        StatusCode::UPGRADE_REQUIRED => &[
            (UPGRADE, "websocket"),
            (http::header::CONNECTION, "upgrade"),
            (http::header::SEC_WEBSOCKET_VERSION, "13"),
        ],
        _ => &[],
    };
    for (name, value) in fields {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

fn error(status: StatusCode, text: &str) -> Response {
    let body = json!({"error": text}).to_string();
    let json = HeaderValue::from_static("application/json");
    (status, [(CONTENT_TYPE, json)], body).into_response()
}
