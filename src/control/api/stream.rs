//! A whole document as the body of an answer, made while it is being sent.
//!
//! What is held for it is a sorted list of its keys: about their text once more
//! and 16 bytes each, however slowly it is read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use http_body::{Body, Frame};
use tokio::sync::Semaphore;

use crate::control::document::Lines;
use crate::table::RoutingTable;

/// How many tables are sorted at a time, each of which takes a processor for up to a
/// second.
pub(super) const AT_ONCE: usize = 2;

pub(super) static SORTING: Semaphore = Semaphore::const_new(AT_ONCE);

/// The document of a table, as [`Lines`] are it.
pub(super) struct Document(State);

enum State {
    /// Nothing is done until someone wants the first piece.
    Sorting(Pin<Box<dyn Future<Output = io::Result<Lines>> + Send>>),
    Writing(Lines),
    Done,
}

impl Document {
    pub fn of(table: Arc<RoutingTable>) -> Self {
        Self(State::Sorting(Box::pin(async move {
            let _turn = SORTING.acquire().await;
            let sorted = tokio::task::spawn_blocking(move || Lines::of(&table));
            sorted.await.map_err(io::Error::other)?
        })))
    }
}

impl Body for Document {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let State::Sorting(sorting) = &mut self.0 {
            match ready!(sorting.as_mut().poll(context)) {
                Ok(sorted) => self.0 = State::Writing(sorted),
                Err(error) => {
                    self.0 = State::Done;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        let State::Writing(sorted) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let piece = sorted.piece();
        if sorted.is_done() {
            self.0 = State::Done;
        }
        Poll::Ready(Some(piece.map(|piece| Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, State::Done)
    }
}
