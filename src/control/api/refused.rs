//! What goes back when something is wrong.

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::answer;
use crate::control::access::Denied;
use crate::control::core::Etag;
use crate::control::store::{Generation, Record, StoreError};
use crate::table::Problem;

const BUSY: &str = "busy";

/// Why something was not done.
#[derive(Debug, Serialize)]
pub(super) struct Refused {
    #[serde(skip)]
    status: StatusCode,
    /// One word that stays the same.
    error: &'static str,
    /// For people.
    message: String,
    /// What is wrong with what was sent.
    problems: Vec<Problem>,
    /// The newest generation, where that is not the expected one.
    #[serde(skip_serializing_if = "Option::is_none")]
    newest: Option<Box<Record>>,
    #[serde(skip)]
    etag: Option<Etag>,
}

impl Refused {
    pub fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            error,
            message: message.into(),
            problems: Vec::new(),
            newest: None,
            etag: None,
        }
    }

    /// Not now.
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, BUSY, message)
    }

    /// A request that cannot be read.
    pub fn bad(error: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, message)
    }

    pub fn not_found(error: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error, message)
    }

    /// There is nothing yet to read.
    pub fn nothing_yet() -> Self {
        Self::not_found("no_document", "there is no routing document yet")
    }

    /// There is nothing yet to change.
    pub fn no_base() -> Self {
        let message = "there is no routing document yet that has placements for keys to live on \
                       (PUT /api/v1/document makes one)";
        Self::new(StatusCode::CONFLICT, "no_document", message)
    }

    /// `newest` is not what was expected.
    pub fn lost(newest: Option<&Generation>) -> Self {
        let message = match newest {
            Some(newest) => format!(
                "the newest generation is {}, which is not the expected one",
                newest.record.generation
            ),
            None => "there is no generation yet".to_owned(),
        };
        Self {
            newest: newest.map(|newest| Box::new(newest.record.clone())),
            ..Self::new(
                StatusCode::PRECONDITION_FAILED,
                "precondition_failed",
                message,
            )
            .with_etag(newest)
        }
    }

    /// What would come of it is not valid.
    pub fn invalid(problems: Vec<Problem>) -> Self {
        let message = match problems.as_slice() {
            [one] => one.to_string(),
            more => format!("{} problems", more.len()),
        };
        Self {
            problems,
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message)
        }
    }

    /// It is true of `generation`.
    pub fn with_etag(mut self, generation: Option<&Generation>) -> Self {
        self.etag = generation.map(|generation| Etag::of(generation.record.mark()));
        self
    }

    pub fn saying(mut self, message: String) -> Self {
        self.message = message;
        self
    }

    /// Work that panicked.
    pub fn given_up(error: impl std::fmt::Display) -> Self {
        log::error!(target: "cellgate::control", "a request was given up: {error}");
        let message = "see the log of the control plane";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    /// The answer to a path that there is not.
    pub async fn path(uri: Uri) -> Self {
        let path: String = uri.path().chars().take(80).collect();
        let message = format!("there is no {path:?} here (GET /api/v1/openapi.json has all paths)");
        Self::not_found("not_found", message)
    }

    /// The answer to a method that a path does not have. The router adds those it
    /// has.
    pub async fn method(method: Method) -> Self {
        let message = format!("{method} is not allowed here (the header Allow has what is)");
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            message,
        )
    }
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Self {
        let (status, error) = match denied {
            Denied::Unknown => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Denied::Forbidden { .. } | Denied::NoTokens { .. } => {
                (StatusCode::FORBIDDEN, "forbidden")
            }
        };
        Self::new(status, error, denied.to_string())
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        let message = format!("the store cannot be read: {error}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_failed", message)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = answer::json(self.status, &self);
        if let Some(etag) = &self.etag {
            response = answer::with_etag(response, etag);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"cellgate\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        if self.error == BUSY {
            let seconds = HeaderValue::from_static("5");
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}
