//! Lets in who may, before anything else is looked at.

use axum::extract::{Request, State};
use axum::http::Method;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::refused::Refused;
use crate::control::Control;
use crate::control::access::Role;

/// Reading takes the role `read`, everything else `write`. Who passes is among the
/// extensions of the request from here on.
pub(super) async fn gate(
    State(control): State<Control>,
    mut request: Request,
    next: Next,
) -> Response {
    let wanted = match *request.method() {
        Method::GET | Method::HEAD => Role::Read,
        _ => Role::Write,
    };
    let authorization = request.headers().get(AUTHORIZATION);
    match control.access.check(authorization, wanted) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(denied) => Refused::from(denied).into_response(),
    }
}
