//! The edge's small chores beside the request path.

use std::sync::Arc;

use async_trait::async_trait;
use log::{error, info};
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::signal::unix::{SignalKind, signal};

use crate::http::{Accepting, Handover, Lifecycle};
use crate::source::ControlSource;
use crate::state::Memory;
use crate::telemetry::{AccessLog, Metrics, logging};

/// Says where the edge listens and that it is ready; tells the process that it
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
            error!("the old process cannot be told that this one serves: {error}");
        }
        info!("ready");
    }
}

/// Takes the log off the threads of requests, and reopens the access log at
/// SIGUSR1, so that it can be rotated.
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
                error!("SIGUSR1 cannot be handled, the access log will not be reopened: {error}");
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

/// Follows the control plane until the listeners close: as long as requests come
/// in, they go where they should.
pub(super) struct Follower {
    pub control: ControlSource,
    pub lifecycle: Arc<Lifecycle>,
}

#[async_trait]
impl BackgroundService for Follower {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut accepting = self.lifecycle.watch_accepting();
        let closing = async move {
            // No sender: nothing will be accepted any more.
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

/// Keeps what is served for a restart, until this process is on its way out: by
/// then a successor may be keeping its own.
pub(super) struct Keeper {
    pub memory: Arc<Memory>,
    pub lifecycle: Arc<Lifecycle>,
}

#[async_trait]
impl BackgroundService for Keeper {
    async fn start(&self, shutdown: ShutdownWatch) {
        if let Some(stop) = on_the_way_out(&self.lifecycle, shutdown) {
            Arc::clone(&self.memory).keep(stop).await;
        }
    }
}

/// Returns when the process begins to end. None: it has begun already.
fn on_the_way_out(
    lifecycle: &Lifecycle,
    mut shutdown: ShutdownWatch,
) -> Option<impl Future<Output = ()>> {
    // Listening comes before looking.
    let draining = lifecycle.drain_begins();
    (!lifecycle.draining()).then_some(async move {
        tokio::select! {
            () = draining => {}
            _ = shutdown.changed() => {}
        }
    })
}
