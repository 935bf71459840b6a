//! Turns for what takes much memory for as long as a client likes.
//!
//! So many requests of a kind are under way at a time; a few more wait a moment,
//! and the rest is told to come back. Whoever holds a turn holds it until nothing of
//! what it was for is left, also when the client does not wait for that.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::refused::Refused;

/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whole documents and long lists that are being sent.
pub(super) const ANSWERS: usize = 8;

/// Generations that are not the newest, each of which is a table of its own.
pub(super) const OLD: usize = 2;

/// Large bodies that are being read, or made into a generation.
pub(super) const BODIES: usize = 4;

/// All turns.
pub struct Turns {
    answers: Arc<Semaphore>,
    old: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
}

/// The right to do one of these things.
#[derive(Debug)]
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            answers: Arc::new(Semaphore::new(ANSWERS)),
            old: Arc::new(Semaphore::new(OLD)),
            bodies: Arc::new(Semaphore::new(BODIES)),
        }
    }
}

impl Turns {
    /// To send something large.
    ///
    /// # Errors
    /// Too many are.
    pub(super) async fn answer(&self) -> Result<Turn, Refused> {
        turn(&self.answers, "large answers").await
    }

    /// To look at a generation that is not the newest. One turn is for all that one
    /// request looks at.
    ///
    /// # Errors
    /// Too many do.
    pub(super) async fn old(&self) -> Result<Turn, Refused> {
        turn(
            &self.old,
            "requests for generations that are not the newest",
        )
        .await
    }

    /// To send a large body.
    ///
    /// # Errors
    /// Too many do.
    pub(super) async fn body(&self) -> Result<Turn, Refused> {
        turn(&self.bodies, "large bodies").await
    }
}

async fn turn(of: &Arc<Semaphore>, what: &str) -> Result<Turn, Refused> {
    let permit = tokio::time::timeout(PATIENCE, Arc::clone(of).acquire_owned()).await;
    match permit {
        Ok(Ok(permit)) => Ok(Turn { _permit: permit }),
        _ => Err(Refused::busy(format!("too many {what} at a time"))),
    }
}

/// `response`, which holds `turns` until it is sent.
pub(super) fn holding(response: Response, turns: impl Send + Unpin + 'static) -> Response {
    response.map(|body| {
        Body::new(Holding {
            body,
            _turns: turns,
        })
    })
}

struct Holding<T> {
    body: Body,
    _turns: T,
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
