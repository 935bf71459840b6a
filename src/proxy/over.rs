//! Answers of hooks that wait for nothing.
//!
//! The proxy library takes boxed futures. One without a state has no size, and boxing
//! it allocates nothing; what an `async fn` returns holds its arguments.

use std::future::{Future, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

/// What a hook returns.
pub(super) type Hook<'h, T> = Pin<Box<dyn Future<Output = T> + Send + 'h>>;

/// Nothing to say and nothing to wait for.
struct Nothing;

/// All is well.
struct Well;

/// This or that: the value is in the type.
struct Decided<const VALUE: bool>;

impl Future for Nothing {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

impl Future for Well {
    type Output = pingora::Result<()>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(()))
    }
}

impl<const VALUE: bool> Future for Decided<VALUE> {
    type Output = pingora::Result<bool>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(VALUE))
    }
}

pub(super) fn nothing<'h>() -> Hook<'h, ()> {
    Box::pin(Nothing)
}

/// Only a failure allocates.
pub(super) fn done<'h>(result: pingora::Result<()>) -> Hook<'h, pingora::Result<()>> {
    match result {
        Ok(()) => Box::pin(Well),
        Err(error) => Box::pin(ready(Err(error))),
    }
}

pub(super) fn decided<'h>(value: bool) -> Hook<'h, pingora::Result<bool>> {
    match value {
        true => Box::pin(Decided::<true>),
        false => Box::pin(Decided::<false>),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn success_has_no_size_and_failure_is_kept() {
        let sizes = [done(Ok(())), done(Err(pingora::Error::new_str("no")))]
            .map(|hook| std::mem::size_of_val(&*hook));
        assert_eq!(sizes[0], 0);
        assert!(sizes[1] > 0);
        assert_eq!(std::mem::size_of_val(&*nothing()), 0);
        assert!(done(Ok(())).await.is_ok());
        assert!(done(Err(pingora::Error::new_str("no"))).await.is_err());
        for value in [true, false] {
            assert_eq!(std::mem::size_of_val(&*decided(value)), 0);
            assert_eq!(decided(value).await.ok(), Some(value));
        }
    }
}
