//! What the process does at SIGTERM, SIGQUIT and SIGINT.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use log::{error, info, warn};
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::handover::{Handover, NamedSockets};
use super::lifecycle::{Accepting, Lifecycle};

/// Handles the process's signals until one of them ends it:
///
/// - SIGTERM: not ready, stop accepting, finish the requests in flight, exit.
/// - SIGQUIT: the same, once another process took over the listening sockets.
/// - SIGINT, or a second SIGTERM: exit at once.
pub struct Signals {
    /// Of the proxy.
    pub lifecycle: Arc<Lifecycle>,
    /// Of the admin service, which serves to the end unless a successor takes over.
    pub admin: Arc<Lifecycle>,
    pub handover: Handover,
    /// The sockets that are handed over.
    pub sockets: NamedSockets,
    /// How long the listeners stay open after SIGTERM while `/readyz` answers 503.
    pub drain_delay: Duration,
    /// Longest time for requests in flight to end.
    pub grace: Duration,
}

/// Ignores the signals that are handled later, so that one which arrives while
/// the process starts does not kill it.
pub fn ignore_until_handled() {
    for number in [libc::SIGHUP, libc::SIGUSR1, libc::SIGQUIT] {
        // SAFETY: SIG_IGN is a valid disposition for these signals.
        unsafe { libc::signal(number, libc::SIG_IGN) };
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    /// Returns when the process has nothing left to do.
    async fn recv(&self) -> ShutdownSignal {
        let streams = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
            signal(SignalKind::quit()),
        );
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut quit)) = streams else {
            error!("cannot listen for signals; the process can only be killed");
            return std::future::pending().await;
        };
        self.lifecycle.set_handling_signals();
        let accepting = loop {
            tokio::select! {
                _ = interrupt.recv() => return ShutdownSignal::FastShutdown,
                _ = terminate.recv() => break self.accepting_at_exit(),
                _ = quit.recv() => {}
            }
            tokio::select! {
                handed_over = self.hand_over() => match handed_over {
                    Ok(()) => break Accepting::HandedOver,
                    Err(error) => error!("upgrade failed, this process goes on serving: {error}"),
                },
                _ = interrupt.recv() => return ShutdownSignal::FastShutdown,
                // The sockets may have been taken over, so they are left alone.
                _ = terminate.recv() => break Accepting::HandedOver,
            }
        };
        tokio::select! {
            () = self.drain(accepting) => ShutdownSignal::GracefulTerminate,
            () = second_signal(&mut terminate, &mut interrupt) => {
                warn!(
                    connections = self.lifecycle.connections();
                    "second signal to stop, exiting at once"
                );
                ShutdownSignal::FastShutdown
            }
        }
    }
}

async fn second_signal(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

impl Signals {
    /// How to stop accepting when no process takes over.
    fn accepting_at_exit(&self) -> Accepting {
        match self.handover.shared() {
            true => Accepting::HandedOver,
            false => Accepting::Closed,
        }
    }

    async fn hand_over(&self) -> std::io::Result<()> {
        info!("upgrade: handing the listening sockets over");
        let (handover, sockets) = (self.handover.clone(), self.sockets.clone());
        tokio::task::spawn_blocking(move || handover.hand_over(&sockets)).await?
    }

    async fn drain(&self, accepting: Accepting) {
        let lifecycle = &self.lifecycle;
        lifecycle.start_draining();
        info!(
            in_flight = lifecycle.in_flight(), connections = lifecycle.connections();
            "draining"
        );
        if accepting == Accepting::Closed {
            tokio::time::sleep(self.drain_delay).await;
        }
        lifecycle.set_accepting(accepting);
        if accepting == Accepting::HandedOver {
            // Two processes must not answer on one admin socket.
            self.admin.set_accepting(accepting);
            self.admin.start_draining();
        }
        let drained = async {
            lifecycle.listeners_closed().await;
            lifecycle.connections_closed().await;
        };
        match tokio::time::timeout(self.grace, drained).await {
            Ok(()) => info!("drained"),
            Err(_) => warn!(
                in_flight = lifecycle.in_flight(), connections = lifecycle.connections();
                "grace period is over, closing the remaining connections"
            ),
        }
    }
}
