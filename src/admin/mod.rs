//! The separate HTTP service that tells an operator, or a machine of theirs,
//! what the edge is doing.
//!
//! It is read-only: nothing here changes what is served. `cli` sets it up; it
//! imports `state`, `http` and `telemetry`.

mod respond;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use http::Response;
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;

use crate::http::{ClientConn, Lifecycle};
use crate::state::EdgeState;
use crate::telemetry::metrics::Metrics;

/// The admin service's application.
pub struct AdminApp {
    state: Arc<EdgeState>,
    metrics: Arc<Metrics>,
    lifecycle: Arc<Lifecycle>,
}

impl AdminApp {
    pub fn new(state: Arc<EdgeState>, metrics: Arc<Metrics>, lifecycle: Arc<Lifecycle>) -> Self {
        Self {
            state,
            metrics,
            lifecycle,
        }
    }
}

#[async_trait]
impl ServeHttp for AdminApp {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let refused = session
            .stream()
            .and_then(|stream| stream.as_any().downcast_ref::<ClientConn>())
            .is_some_and(|conn| conn.downstream().refusal().is_some());
        if refused {
            session.set_keepalive(None);
            return respond::refused();
        }
        if !session.is_body_empty() {
            // Nothing here takes a body. Closing spares us from reading it.
            session.set_keepalive(None);
        }
        let head = session.req_header();
        // The path as it was sent: what is percent-encoded is not one of ours.
        self.respond(&head.method, head.uri.path(), head.uri.query())
    }
}
