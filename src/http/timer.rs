//! One lazily armed timer for all the deadlines of a connection.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// Deadlines move with every byte, timers are dear to move: the timer stays
/// armed for the earliest deadline asked of it and is set again only when it
/// rings before the deadline of the moment. A busy connection so touches the
/// timer wheel once per timeout, not once per request.
#[derive(Debug, Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Whether `deadline` has passed; if not, the task is woken when it does.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>, deadline: Instant) -> bool {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            match sleep.as_mut().poll(cx) {
                Poll::Pending => return false,
                Poll::Ready(()) if Instant::now() >= deadline => return true,
                Poll::Ready(()) => sleep.as_mut().reset(deadline),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rings_at_the_deadline_of_the_moment() {
        let start = Instant::now();
        let mut timer = Timer::default();
        let mut deadline = start + Duration::from_secs(1);
        let mut moved = false;
        std::future::poll_fn(|cx| {
            if !moved && Instant::now() >= start + Duration::from_secs(1) {
                deadline = start + Duration::from_secs(5);
                moved = true;
            }
            if timer.poll_expired(cx, deadline) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        assert_eq!(start.elapsed().as_secs(), 5);

        let earlier = Instant::now() + Duration::from_secs(1);
        let later = Instant::now() + Duration::from_secs(60);
        std::future::poll_fn(|cx| {
            assert!(!timer.poll_expired(cx, later) || Instant::now() >= later);
            if timer.poll_expired(cx, earlier) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        assert_eq!(start.elapsed().as_secs(), 6);
    }
}
