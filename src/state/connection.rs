//! What an operator is shown of the connection to the control plane. Nothing depends on it.

use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::edge_state::EdgeState;
use super::generation::Generation;
use crate::table::Digest;
use crate::telemetry::metrics::ControlMetrics;
use crate::telemetry::time::{self, wall};

/// Whether a control plane is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// A connection is being made.
    Connecting,
    Connected,
    /// Not connected; the next attempt is not due yet.
    Disconnected,
}

/// The connection to the control plane.
#[derive(Clone, Debug)]
pub struct Connection {
    pub state: ConnectionState,
    /// The control plane that is connected, or was or will be tried.
    pub url: String,
    /// `cellgate.v1` or `m3`; none before the first connection.
    pub dialect: Option<&'static str>,
    /// The control plane's own id, if it has one.
    pub control_id: Option<String>,
    /// When the connection began, or ended.
    pub since: SystemTime,
    /// When a message from a control plane was last received, by this process or an earlier
    /// one; the start of the process if that is not known.
    pub heard: Instant,
    /// The newest generation that the control plane has named.
    pub newest: Option<u64>,
    /// Failed attempts since the last connection.
    pub retries: u64,
    /// Why the last connection ended, or the last attempt failed.
    pub last_error: Option<ConnectionError>,
}

/// Why there is no connection, or was none before this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectionError {
    #[serde(serialize_with = "time::serialize")]
    pub at: SystemTime,
    pub message: String,
}

/// As JSON, the field `control_plane` of `GET /debug/config`, in this order of fields.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConnectionStatus {
    pub state: ConnectionState,
    pub url: String,
    pub dialect: Option<&'static str>,
    pub control_id: Option<String>,
    /// When the connection began, or ended.
    #[serde(serialize_with = "time::serialize")]
    pub since: SystemTime,
    /// The control plane's number of the current generation; none if that is not from a
    /// control plane.
    pub generation: Option<u64>,
    /// The newest one that the control plane has named.
    pub newest_generation: Option<u64>,
    /// Of the current generation, wherever it is from.
    pub digest: Option<Digest>,
    /// For how long no control plane has been heard; 0 while one is connected.
    pub stale_seconds: u64,
    pub retries: u64,
    pub last_error: Option<ConnectionError>,
}

impl Connection {
    /// For how long no control plane has been heard; zero while one is connected.
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
    /// Sets what is shown.
    pub fn show_connection(&self, connection: Connection) {
        *self.connection.lock() = Some(connection);
    }

    /// Sets when an earlier process last heard a control plane.
    pub(crate) fn heard_before(&self, then: Option<SystemTime>) {
        *self.heard_before.lock() = then;
    }

    /// [`Connection::heard`] before this process has heard a control plane.
    pub fn first_heard(&self) -> Instant {
        let now = Instant::now();
        let then = *self.heard_before.lock();
        // None if the clock was set back; then it counts as now.
        let ago = then.and_then(|then| SystemTime::now().duration_since(then).ok());
        ago.and_then(|ago| now.checked_sub(ago)).unwrap_or(now)
    }

    /// When a control plane was last heard; none if that is not known.
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

    /// The metrics of the control plane, which are shown from the first call on.
    pub fn control_metrics(&self) -> &ControlMetrics {
        self.metrics.control()
    }

    /// Brings the metrics of the control plane up to date, if one is configured.
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
