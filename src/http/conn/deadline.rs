//! How long a connection waits, and for what.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::{ClientConn, Deadlines, Expiry, Fault, Stage};

/// How long a connection without a request is kept once draining began, so that
/// a client about to use it gets an answer with `Connection: close`, not a reset.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// The limits of every client connection of a listener.
#[derive(Clone, Debug)]
pub struct ConnConfig {
    /// From the first byte of a request (or the accept) to the end of its head.
    pub client_header: Duration,
    /// From one request to the first byte of the next.
    pub client_idle: Duration,
    /// Those of a request that has none of its own.
    pub deadlines: Deadlines,
    /// Largest request head, in bytes.
    pub header_bytes: usize,
}

impl ClientConn {
    /// The deadline in force while a head is awaited or incomplete.
    pub(super) fn head_deadline(&mut self, cx: &mut Context<'_>) -> Instant {
        let deadline = match self.head_began {
            Some(began) => began + self.config.client_header,
            None => self.active + self.config.client_idle,
        };
        let Some(slot) = self.slot.as_ref().filter(|_| self.start == self.end) else {
            return deadline;
        };
        if self.drain.is_none() {
            let mut drain = Box::pin(slot.lifecycle().drain_begins());
            // If it is ready, draining began a moment ago, which is looked at next anyway.
            let _ = drain.as_mut().poll(cx);
            self.drain = Some(drain);
        }
        match slot.lifecycle().draining_since() {
            Some(since) => deadline.min(self.active.max(since) + DRAIN_GRACE),
            None => deadline,
        }
    }

    /// The deadline in force once the head was handed out.
    fn deadline(&self) -> (Instant, Expiry) {
        let downstream = &self.downstream;
        let idle = self.active + downstream.stream_idle();
        let whole = matches!(self.stage, Stage::Whole) || downstream.is_tunnel();
        if !whole && !downstream.is_expecting() {
            // Also after the answer began: it may wait for the rest of the body.
            return (idle, Expiry::RequestBody);
        }
        if downstream.is_responding() {
            return (idle, Expiry::Stream);
        }
        let sent = downstream.whole_since().unwrap_or(self.active);
        let deadlines = downstream.deadlines();
        let response = downstream.attempt_since().max(sent) + deadlines.response_header;
        let request = sent + deadlines.request;
        if response <= request {
            (response, Expiry::ResponseHeader)
        } else {
            (request, Expiry::Request)
        }
    }

    /// Called when there is nothing to read: sends what waits to be sent, because the proxy
    /// library does not flush a body of known length before its end, and checks the deadline.
    pub(super) fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.output.is_empty()
            && let Poll::Ready(sent) = self.poll_drain(cx)
        {
            sent?;
        }
        let (deadline, expiry) = self.deadline();
        self.poll_expired(cx, deadline, expiry)
    }

    /// Called when the client takes no bytes.
    pub(super) fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let deadline = self.active + self.downstream.stream_idle();
        self.poll_expired(cx, deadline, Expiry::ClientStalled)
    }

    fn poll_expired(
        &mut self,
        cx: &mut Context<'_>,
        deadline: Instant,
        expiry: Expiry,
    ) -> Poll<io::Result<()>> {
        if !self.timer.poll_expired(cx, deadline) {
            return Poll::Pending;
        }
        self.downstream.set_fault(Fault::Expired(expiry));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "deadline passed",
        )))
    }
}

/// One timer for all the deadlines of a connection.
///
/// Deadlines move with every byte, and moving a timer is costly. So the timer stays armed
/// for the earliest deadline it was asked for, and is armed again only when it fires before
/// the deadline now in force: a busy connection touches the timer wheel once a timeout, not
/// once a request.
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
    async fn fires_at_the_deadline_in_force() {
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
