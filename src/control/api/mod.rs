//! REST under `/api/v1`, for people, scripts and `cellgate ctl`.
//!
//! Handlers say what was asked for in the words of [`Truth`](super::core::Truth)
//! and put its answer into HTTP; they decide nothing. `openapi.json` describes
//! every one of them, is served, and is held against them by the tests.
//!
//! - `routes` lists every path and method once.
//! - `gate` lets in who may.
//! - `call`, `query` and `body` read requests, whatever is in them.
//! - `answer` and `refused` are what goes back, and `stream` a document that does.
//! - `turns` bounds what takes much memory.
//! - `document`, `keys`, `generations`, `diff` and `status` are the handlers.

mod answer;
mod body;
mod call;
mod diff;
mod document;
mod gate;
mod generations;
mod keys;
mod query;
mod refused;
mod routes;
mod status;
mod stream;
mod turns;

#[cfg(test)]
mod tests;

pub use self::diff::{
    ComparedKey, ComparedKeys, ComparedPlacement, ComparedPlacements, Comparison, FromTo, Listed,
};

pub use self::keys::Batch;
pub use self::turns::Turns;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::any;

use self::refused::Refused;
use super::Control;

/// The description of this API, OpenAPI 3.1.
const OPENAPI: &str = include_str!("openapi.json");

/// Everything under `/api/v1`, and nothing else. Each request needs a
/// [`Peer`](super::Peer) among its extensions to be recorded with an address.
pub fn router(control: Control) -> Router {
    routes::all()
        .into_router()
        .method_not_allowed_fallback(Refused::method)
        .route("/api/v1", any(Refused::path))
        .route("/api/v1/", any(Refused::path))
        .route("/api/v1/{*path}", any(Refused::path))
        .layer(middleware::from_fn_with_state(control.clone(), gate::gate))
        .with_state(control)
}

async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, answer::JSON)], OPENAPI)
}
