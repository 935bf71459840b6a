//! The life of the process: whether it serves or drains, and what it still has to finish.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// What the accept loops are to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accepting {
    /// Accept connections.
    Open,
    /// Stop, and leave the listening sockets to the process that took them over.
    HandedOver,
    /// Serve the connections that the kernel has accepted already, then close.
    Closed,
}

/// Which parts of startup are done.
#[derive(Debug, Default)]
struct Started {
    listening: bool,
    handling_signals: bool,
    reopening_logs: bool,
}

/// Shared by the listeners, the proxy, the admin service and the signal loop.
#[derive(Debug)]
pub struct Lifecycle {
    /// When draining began.
    draining: OnceLock<Instant>,
    drain: Arc<Notify>,
    accepting: watch::Sender<Accepting>,
    started: watch::Sender<Started>,
    listeners: AtomicUsize,
    connections: AtomicUsize,
    in_flight: AtomicUsize,
    /// Notified when one of the counts falls to zero.
    zero: Notify,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// A process that serves.
    pub fn new() -> Self {
        Lifecycle {
            draining: OnceLock::new(),
            drain: Arc::new(Notify::new()),
            accepting: watch::Sender::new(Accepting::Open),
            started: watch::Sender::new(Started::default()),
            listeners: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            zero: Notify::new(),
        }
    }

    /// Whether the process drains before it ends: it is not ready, and every response asks
    /// the client to close its connection.
    pub fn draining(&self) -> bool {
        self.draining_since().is_some()
    }

    /// When draining began, if it did.
    pub fn draining_since(&self) -> Option<Instant> {
        self.draining.get().copied()
    }

    /// Starts draining, which cannot be undone.
    pub fn start_draining(&self) {
        // The first call counts.
        let _ = self.draining.set(Instant::now());
        self.drain.notify_waiters();
    }

    /// Completes when draining begins.
    pub fn drain_begins(&self) -> OwnedNotified {
        Arc::clone(&self.drain).notified_owned()
    }

    /// Tells the accept loops what to do.
    pub fn set_accepting(&self, accepting: Accepting) {
        self.accepting.send_replace(accepting);
    }

    /// What the accept loops are told.
    pub fn watch_accepting(&self) -> watch::Receiver<Accepting> {
        self.accepting.subscribe()
    }

    /// Counts one accept loop for as long as the guard lives.
    pub fn listener(self: &Arc<Self>) -> CountGuard {
        CountGuard::new(self, |lifecycle| &lifecycle.listeners)
    }

    /// Counts one client connection for as long as the guard lives.
    pub fn connection(self: &Arc<Self>) -> CountGuard {
        CountGuard::new(self, |lifecycle| &lifecycle.connections)
    }

    /// Counts one request for as long as the guard lives.
    pub fn request(self: &Arc<Self>) -> CountGuard {
        CountGuard::new(self, |lifecycle| &lifecycle.in_flight)
    }

    /// Open client connections.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Requests being served.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// All accept loops have been started.
    pub fn set_listening(&self) {
        self.started.send_modify(|started| started.listening = true);
    }

    /// Signals are handled from now on.
    pub fn set_handling_signals(&self) {
        self.started
            .send_modify(|started| started.handling_signals = true);
    }

    /// The signal that reopens logs is handled from now on, or cannot be handled.
    pub fn set_reopening_logs(&self) {
        self.started
            .send_modify(|started| started.reopening_logs = true);
    }

    /// Returns once all accept loops run and signals are handled, because a signal may follow
    /// as soon as the process is known to be ready.
    pub async fn started(&self) {
        let all = |started: &Started| {
            started.listening && started.handling_signals && started.reopening_logs
        };
        // The sender lives as long as this, so the wait cannot fail.
        let _ = self.started.subscribe().wait_for(all).await;
    }

    /// Returns when no accept loop runs any more.
    pub async fn listeners_closed(&self) {
        self.wait_for_zero(&self.listeners).await;
    }

    /// Returns when no client connection is open.
    pub async fn connections_closed(&self) {
        self.wait_for_zero(&self.connections).await;
    }

    async fn wait_for_zero(&self, count: &AtomicUsize) {
        loop {
            let notified = self.zero.notified();
            tokio::pin!(notified);
            // Registered before the count is read, so that no fall to zero is missed.
            notified.as_mut().enable();
            if count.load(Ordering::SeqCst) == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// Counts one thing in a [`Lifecycle`] until it is dropped, also by a panic.
#[derive(Debug)]
pub struct CountGuard {
    lifecycle: Arc<Lifecycle>,
    count: fn(&Lifecycle) -> &AtomicUsize,
}

impl CountGuard {
    fn new(lifecycle: &Arc<Lifecycle>, count: fn(&Lifecycle) -> &AtomicUsize) -> Self {
        count(lifecycle).fetch_add(1, Ordering::SeqCst);
        CountGuard {
            lifecycle: lifecycle.clone(),
            count,
        }
    }

    /// What the guard counts in.
    pub fn lifecycle(&self) -> &Arc<Lifecycle> {
        &self.lifecycle
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        if (self.count)(&self.lifecycle).fetch_sub(1, Ordering::SeqCst) == 1 {
            self.lifecycle.zero.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn is_done_when_the_last_guard_is_dropped() {
        let lifecycle = Arc::new(Lifecycle::new());
        lifecycle.connections_closed().await;
        let (first, second) = (lifecycle.connection(), lifecycle.connection());
        assert_eq!(lifecycle.connections(), 2);
        let waiting = tokio::time::timeout(Duration::from_secs(1), lifecycle.connections_closed());
        assert!(waiting.await.is_err());
        let waiter = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { lifecycle.connections_closed().await }
        });
        drop(first);
        drop(second);
        assert!(waiter.await.is_ok());
    }

    #[test]
    fn a_panic_gives_the_count_back() {
        let lifecycle = Arc::new(Lifecycle::new());
        let held = lifecycle.clone();
        let panicked = std::thread::spawn(move || {
            let _guard = held.request();
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(panicked.join().is_err());
        assert_eq!(lifecycle.in_flight(), 0);
    }
}
