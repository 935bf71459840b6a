//! The edge's background services.

use std::sync::Arc;

use async_trait::async_trait;
use log::{error, info};
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::signal::unix::{SignalKind, signal};

use crate::http::{Accepting, Handover, Lifecycle};
use crate::source::ControlSource;
use crate::state::StateDir;
use crate::telemetry::{AccessLog, Metrics, logging};

/// Logs where the edge listens and that it is ready, and tells the process that it
/// replaces, if there is one.
pub(super) struct Ready {
    pub lifecycle: Arc<Lifecycle>,
    pub lines: Vec<String>,
    pub handover: Option<Handover>,
}

#[async_trait]
impl BackgroundService for Ready {
    async fn start(&self, _shutdown: ShutdownWatch) {
        self.lifecycle.started().await;
        for line in &self.lines {
            info!("{line}");
        }
        if let Some(handover) = &self.handover
            && let Err(error) = handover.announce()
        {
            error!("cannot tell the old process that this one is ready: {error}");
        }
        info!("ready");
    }
}

/// Moves the writing of log lines off the request threads, and reopens the access log
/// at SIGUSR1, for log rotation.
pub(super) struct Logs {
    pub lifecycle: Arc<Lifecycle>,
    pub access: AccessLog,
    pub metrics: Arc<Metrics>,
}

#[async_trait]
impl BackgroundService for Logs {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        logging::write_in_background(self.metrics.log_dropped.clone());
        self.access.start();
        let reopen = signal(SignalKind::user_defined1());
        self.lifecycle.set_reopening_logs();
        let mut reopen = match reopen {
            Ok(reopen) => reopen,
            Err(error) => {
                error!("cannot handle SIGUSR1, so the access log is never reopened: {error}");
                return;
            }
        };
        loop {
            tokio::select! {
                _ = shutdown.changed() => return,
                signal = reopen.recv() => match signal {
                    Some(()) => self.access.reopen(),
                    None => return,
                },
            }
        }
    }
}

/// Follows the control plane until the listeners close, so that requests are routed by
/// the newest table as long as any are accepted.
pub(super) struct Follower {
    pub control: ControlSource,
    pub lifecycle: Arc<Lifecycle>,
}

#[async_trait]
impl BackgroundService for Follower {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut accepting = self.lifecycle.watch_accepting();
        let closing = async move {
            // An error means that the sender is gone: nothing is accepted any more.
            let _ = accepting.wait_for(|it| *it != Accepting::Open).await;
        };
        let stop = async move {
            tokio::select! {
                () = closing => {}
                _ = shutdown.changed() => {}
            }
        };
        self.control.follow(stop).await;
    }
}

/// Keeps the served table on disk for a restart, until this process begins to stop: a
/// successor may write its own from then on.
pub(super) struct Keeper {
    pub state_dir: Arc<StateDir>,
    pub lifecycle: Arc<Lifecycle>,
}

#[async_trait]
impl BackgroundService for Keeper {
    async fn start(&self, shutdown: ShutdownWatch) {
        if let Some(stop) = until_draining(&self.lifecycle, shutdown) {
            Arc::clone(&self.state_dir).keep(stop).await;
        }
    }
}

/// Resolves when the process begins to stop. None: it has begun already.
fn until_draining(
    lifecycle: &Lifecycle,
    mut shutdown: ShutdownWatch,
) -> Option<impl Future<Output = ()>> {
    // Subscribed before the state is read, so that no change is missed.
    let draining = lifecycle.drain_begins();
    (!lifecycle.draining()).then_some(async move {
        tokio::select! {
            () = draining => {}
            _ = shutdown.changed() => {}
        }
    })
}
