//! Error responses.

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::response;
use crate::control::access::Denied;
use crate::control::core::{CommitError, Etag};
use crate::control::store::{Generation, Record, StoreError};
use crate::table::Problem;

const BUSY: &str = "busy";

/// Why a request failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct ApiError {
    #[serde(skip)]
    status: StatusCode,
    /// A stable code for programs.
    error: &'static str,
    /// For people.
    message: String,
    /// What is wrong with the content that was sent, as `cellgate check --json` reports it.
    problems: Vec<Problem>,
    /// With 412: the newest generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    newest: Option<Box<Record>>,
    #[serde(skip)]
    etag: Option<Etag>,
}

impl ApiError {
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

    /// Temporarily refused; the client should retry.
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

    /// A read before the first generation.
    pub fn no_document() -> Self {
        Self::not_found("no_document", "there is no routing document yet")
    }

    /// A change of keys before the first generation.
    pub fn no_placements() -> Self {
        let message = "there is no routing document yet, and so no placement to assign keys to \
                       (PUT /api/v1/document creates one)";
        Self::new(StatusCode::CONFLICT, "no_document", message)
    }

    /// `newest` is not the expected generation.
    pub fn precondition(newest: Option<&Generation>) -> Self {
        let message = match newest {
            Some(newest) => format!(
                "the newest generation is {}, which is not the expected one",
                newest.record.generation
            ),
            None => "there is no generation yet".to_owned(),
        };
        let status = StatusCode::PRECONDITION_FAILED;
        Self {
            newest: newest.map(|newest| Box::new(newest.record.clone())),
            ..Self::new(status, "precondition_failed", message).with_etag(newest)
        }
    }

    /// The resulting document would be invalid.
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

    /// Adds the entity tag of the generation that the answer describes.
    pub fn with_etag(mut self, generation: Option<&Generation>) -> Self {
        self.etag = generation.map(|generation| Etag::of(generation.record.mark()));
        self
    }

    pub fn with_message(mut self, message: String) -> Self {
        self.message = message;
        self
    }

    /// A defect, such as a task that panicked. Details go to the log only.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        log::error!(target: "cellgate::control", "a request failed: {error}");
        let message = "see the log of the control plane";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    /// The handler of unknown paths.
    pub async fn unknown_path(uri: Uri) -> Self {
        let path: String = uri.path().chars().take(80).collect();
        let message = format!("no such path: {path:?} (GET /api/v1/openapi.json lists all paths)");
        Self::not_found("not_found", message)
    }

    /// The handler of methods that a path does not have. The router adds `Allow`.
    pub async fn unknown_method(method: Method) -> Self {
        let message = format!("{method} is not allowed here (the header Allow lists what is)");
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(status, "method_not_allowed", message)
    }
}

impl From<Denied> for ApiError {
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

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let message = format!("the store cannot be read: {error}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_failed", message)
    }
}

impl From<CommitError> for ApiError {
    fn from(error: CommitError) -> Self {
        let message = error.to_string();
        match error {
            CommitError::Lost(newest) => Self::precondition(newest.as_deref()),
            CommitError::Invalid(problems) => Self::invalid(problems),
            CommitError::Store(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_failed", message)
            }
            CommitError::Unknown(_) => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", message)
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = response::json(self.status, &self);
        if let Some(etag) = &self.etag {
            response = response::with_etag(response, etag);
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
