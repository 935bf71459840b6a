//! How many requests that need much memory run at once.
//!
//! A few more wait for a moment; the rest are refused and told to retry. A request keeps its permit
//! until everything that it needed the memory for is gone, even if its client has left.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// How long a request waits for a permit.
const WAIT: Duration = Duration::from_secs(2);

/// Whole documents and long lists that are being sent.
pub(super) const RESPONSES: usize = 8;

/// Generations other than the newest, each of which is a table of its own.
pub(super) const PAST_GENERATIONS: usize = 2;

/// Large bodies that are being read, or made into a generation.
pub(super) const BODIES: usize = 4;

/// A semaphore for each kind of expensive request.
pub struct RequestLimits {
    responses: Arc<Semaphore>,
    past_generations: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
}

/// Held while an expensive request runs.
#[derive(Debug)]
pub(super) struct Permit {
    _permit: OwnedSemaphorePermit,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            responses: Arc::new(Semaphore::new(RESPONSES)),
            past_generations: Arc::new(Semaphore::new(PAST_GENERATIONS)),
            bodies: Arc::new(Semaphore::new(BODIES)),
        }
    }
}

impl RequestLimits {
    /// A permit to send a large response.
    ///
    /// # Errors
    /// Too many are being sent.
    pub(super) async fn response(&self) -> Result<Permit, ApiError> {
        acquire(&self.responses, "large responses").await
    }

    /// A permit to load generations other than the newest: one for all that a request loads.
    ///
    /// # Errors
    /// Too many requests do.
    pub(super) async fn past_generation(&self) -> Result<Permit, ApiError> {
        let what = "requests for generations other than the newest";
        acquire(&self.past_generations, what).await
    }

    /// A permit to read a large body.
    ///
    /// # Errors
    /// Too many are being read.
    pub(super) async fn body(&self) -> Result<Permit, ApiError> {
        acquire(&self.bodies, "large bodies").await
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, what: &str) -> Result<Permit, ApiError> {
    let permit = tokio::time::timeout(WAIT, Arc::clone(semaphore).acquire_owned()).await;
    match permit {
        Ok(Ok(permit)) => Ok(Permit { _permit: permit }),
        _ => Err(ApiError::busy(format!("too many {what} in progress"))),
    }
}

/// `response`, which holds `permits` until it is sent.
pub(super) fn holding(response: Response, permits: impl Send + Unpin + 'static) -> Response {
    response.map(|body| {
        Body::new(Holding {
            body,
            _permits: permits,
        })
    })
}

struct Holding<T> {
    body: Body,
    _permits: T,
}

impl<T: Unpin> http_body::Body for Holding<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
