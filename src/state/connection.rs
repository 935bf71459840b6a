//! What an operator is shown of the connection to the control plane. Nothing of
//! the edge depends on it.

use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::edge_state::EdgeState;
use super::generation::Generation;
use crate::table::Digest;
use crate::telemetry::metrics::ControlMetrics;
use crate::telemetry::time::{self, wall};

/// Whether there is a control plane to hear from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// One is being dialled.
    Connecting,
    Connected,
    /// There is none, and the next attempt is not due yet.
    Disconnected,
}

/// How it stands with the control plane.
#[derive(Clone, Debug)]
pub struct Connection {
    pub state: ConnectionState,
    /// Of the control plane that is, was or is to be connected.
    pub url: String,
    /// `cellgate.v1` or `m3`; none before the first connection.
    pub dialect: Option<&'static str>,
    /// What the control plane calls itself, if it does.
    pub control_id: Option<String>,
    /// Since when there has been a connection, or none.
    pub since: SystemTime,
    /// When a control plane was last heard, by an earlier process if need be; when
    /// the edge started, if that is not known.
    pub heard: Instant,
    /// The newest generation that the control plane has spoken of.
    pub newest: Option<u64>,
    /// Attempts in vain since there was a connection.
    pub retries: u64,
    /// Why the last connection ended, or the last attempt failed.
    pub last_error: Option<ConnectionError>,
}

/// Why there is, or was, no connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectionError {
    #[serde(serialize_with = "time::serialize")]
    pub at: SystemTime,
    pub message: String,
}

/// As JSON, the field `control_plane` of `GET /debug/config`; the order of the
/// fields is part of that.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConnectionStatus {
    pub state: ConnectionState,
    pub url: String,
    pub dialect: Option<&'static str>,
    pub control_id: Option<String>,
    /// Since when there has been a connection, or none.
    #[serde(serialize_with = "time::serialize")]
    pub since: SystemTime,
    /// What the control plane calls the generation that is served; none: it is
    /// from elsewhere.
    pub generation: Option<u64>,
    /// The newest one that the control plane has spoken of.
    pub newest_generation: Option<u64>,
    /// Of what is served, wherever it is from.
    pub digest: Option<Digest>,
    /// For how long nothing was heard of a control plane; 0 while there is one.
    pub stale_seconds: u64,
    pub retries: u64,
    pub last_error: Option<ConnectionError>,
}

impl Connection {
    /// For how long nothing was heard of a control plane; zero while there is one.
    pub fn stale(&self, now: Instant) -> Duration {
        match self.state {
            ConnectionState::Connected => Duration::ZERO,
            _ => now.saturating_duration_since(self.heard),
        }
    }

    pub(crate) fn status(self, current: Option<&Generation>, now: Instant) -> ConnectionStatus {
        ConnectionStatus {
            stale_seconds: self.stale(now).as_secs(),
            state: self.state,
            url: self.url,
            dialect: self.dialect,
            control_id: self.control_id,
            since: self.since,
            generation: current.and_then(|current| current.control_generation),
            newest_generation: self.newest,
            digest: current.map(|current| current.table.digest()),
            retries: self.retries,
            last_error: self.last_error,
        }
    }
}

impl EdgeState {
    /// From now on, this is shown.
    pub fn show_connection(&self, connection: Connection) {
        *self.connection.lock() = Some(connection);
    }

    /// An earlier process last heard a control plane then.
    pub(crate) fn heard_before(&self, then: Option<SystemTime>) {
        *self.heard_before.lock() = then;
    }

    /// What [`Connection::heard`] is before this process has heard a control plane.
    pub fn first_heard(&self) -> Instant {
        let now = Instant::now();
        let then = *self.heard_before.lock();
        // Should the clock have been set back, it is as good as now.
        let ago = then.and_then(|then| SystemTime::now().duration_since(then).ok());
        ago.and_then(|ago| now.checked_sub(ago)).unwrap_or(now)
    }

    /// When a control plane was last heard; none: not that anyone knew.
    pub(crate) fn last_contact(&self) -> Option<SystemTime> {
        let connection = self.connection.lock();
        let here = connection.as_ref().and_then(|connection| {
            let heard = connection.dialect.map(|_| wall(connection.heard));
            match connection.state {
                ConnectionState::Connected => Some(SystemTime::now()),
                _ => heard,
            }
        });
        here.or(*self.heard_before.lock())
    }

    /// What is counted of the control plane; shown from the first call on.
    pub fn control_metrics(&self) -> &ControlMetrics {
        self.metrics.control()
    }

    /// Brings the metrics of the control plane up to date, if there is to be one.
    pub(crate) fn gauge_connection(&self) {
        let connection = self.connection.lock();
        if let Some(connection) = &*connection {
            let current = self.current();
            self.metrics.control().show(
                connection.state == ConnectionState::Connected,
                connection.stale(Instant::now()),
                current.and_then(|current| current.control_generation),
            );
        }
    }
}
