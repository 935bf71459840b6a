//! What the process does when it is told to go.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use log::{error, info, warn};
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::handover::{Handover, NamedSockets};
use super::lifecycle::{Accepting, Lifecycle};

/// Follows the process's signals until one of them ends it:
///
/// - SIGTERM: not ready, stop accepting, finish what is in flight, leave.
/// - SIGQUIT: the same, once another process took over the listening sockets.
/// - SIGINT, or a second SIGTERM: leave at once.
pub struct Signals {
    /// Told to drain.
    pub lifecycle: Arc<Lifecycle>,
    /// Of the admin service, which serves to the end unless a successor does.
    pub admin: Arc<Lifecycle>,
    /// Where an upgrade takes place.
    pub handover: Handover,
    /// What is handed over.
    pub sockets: NamedSockets,
    /// How long SIGTERM leaves the listeners open while `/readyz` says no.
    pub drain_delay: Duration,
    /// Longest time for requests in flight.
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
        self.lifecycle.set_heeding_signals();
        let accepting = loop {
            tokio::select! {
                _ = interrupt.recv() => return ShutdownSignal::FastShutdown,
                _ = terminate.recv() => break self.farewell(),
                _ = quit.recv() => {}
            }
            tokio::select! {
                handed_over = self.hand_over() => match handed_over {
                    Ok(()) => break Accepting::HandedOver,
                    Err(error) => error!("upgrade failed, this process goes on serving: {error}"),
                },
                _ = interrupt.recv() => return ShutdownSignal::FastShutdown,
                // Whether the sockets arrive is open, so they are left alone.
                _ = terminate.recv() => break Accepting::HandedOver,
            }
        };
        tokio::select! {
            () = self.drain(accepting) => ShutdownSignal::GracefulTerminate,
            () = told_again(&mut terminate, &mut interrupt) => {
                warn!(
                    connections = self.lifecycle.connections();
                    "told to stop again, leaving at once"
                );
                ShutdownSignal::FastShutdown
            }
        }
    }
}

async fn told_again(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

impl Signals {
    /// How to stop accepting when nobody is to take over.
    fn farewell(&self) -> Accepting {
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
                "grace period is over, cutting what is left"
            ),
        }
    }
}
