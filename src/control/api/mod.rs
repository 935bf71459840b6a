//! The REST API under `/api/v1`, for operators, scripts and `cellgate ctl`.
//!
//! Handlers translate a request into a call of [`Truth`](super::core::Truth) and its result into
//! HTTP. Each handler carries its own OpenAPI description; [`router`] and the served document are
//! built from the same list of routes.
//!
//! - `document`, `keys`, `generations`, `diff` and `status` are the handlers.
//! - `request` and `body` read requests, `response` and `error` write answers.
//! - `limits` bounds how many expensive requests run at once.
//! - `openapi` holds what describes the API as a whole.

mod body;
mod diff;
mod document;
mod error;
mod generations;
mod keys;
mod limits;
mod openapi;
mod request;
mod response;
mod status;

#[cfg(test)]
mod tests;

pub use self::diff::{
    ComparedKey, ComparedKeys, ComparedPlacement, ComparedPlacements, Comparison, FromTo, Listed,
};
pub use self::keys::Batch;
pub use self::limits::RequestLimits;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::error::ApiError;
use super::Control;
use super::access::Role;

/// Every path and method, with its description.
fn routes() -> OpenApiRouter<Control> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(document::get, document::put))
        .routes(routes!(keys::list))
        .routes(routes!(keys::batch))
        .routes(routes!(keys::get, keys::put, keys::delete))
        .routes(routes!(generations::list))
        .routes(routes!(generations::get))
        .routes(routes!(generations::document))
        .routes(routes!(diff::get))
        .routes(routes!(generations::restore))
        .routes(routes!(status::edges))
        .routes(routes!(status::edge))
        .routes(routes!(status::status))
        .routes(routes!(openapi::get))
}

/// Serves everything under `/api/v1`, and nothing else. A change is recorded with the address of
/// the [`Peer`](super::Peer) among the request's extensions.
pub fn router(control: Control) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .method_not_allowed_fallback(ApiError::unknown_method)
        .route("/api/v1", any(ApiError::unknown_path))
        .route("/api/v1/", any(ApiError::unknown_path))
        .route("/api/v1/{*path}", any(ApiError::unknown_path))
        .layer(middleware::from_fn_with_state(control.clone(), authorize))
        .with_state(control)
}

/// Checks the token before anything else is looked at: GET and HEAD require the role `read`, every
/// other method `write`. Adds the [`Caller`](super::access::Caller) to the request's extensions.
async fn authorize(State(control): State<Control>, mut request: Request, next: Next) -> Response {
    let required = match *request.method() {
        Method::GET | Method::HEAD => Role::Read,
        _ => Role::Write,
    };
    let authorization = request.headers().get(AUTHORIZATION);
    match control.access.check(authorization, required) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(denied) => ApiError::from(denied).into_response(),
    }
}
