//! Logs, shows and counts the state of the connection. Each change of state is one
//! log line; failed attempts are counted, and logged every few minutes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use url::Url;

use super::link::Ended;
use super::session::held;
use super::upgrade::Dialect;
use crate::protocol::Welcome;
use crate::state::{Connection, ConnectionError, ConnectionState, EdgeState};
use crate::telemetry::metrics::{ControlMetrics, Direction};
use crate::telemetry::once_per::OncePer;

/// The interval of the log lines that say that there is still no control plane.
const REMINDER: Duration = Duration::from_secs(300);

/// The connection, as operators see it.
pub(super) struct Report {
    edge: Arc<EdgeState>,
    state: Mutex<State>,
}

struct State {
    shown: Connection,
    /// When the present connection began.
    connected: Option<Instant>,
    /// Limits the log lines about failed attempts.
    reminders: OncePer,
}

impl Report {
    /// Shows the edge as disconnected from `url`.
    pub fn new(edge: Arc<EdgeState>, url: Option<&Url>) -> Self {
        // Registers them, so that they are exported from the start.
        edge.control_metrics();
        let shown = Connection {
            state: ConnectionState::Disconnected,
            url: url.map(Url::to_string).unwrap_or_default(),
            dialect: None,
            control_id: None,
            since: SystemTime::now(),
            heard: edge.first_heard(),
            newest: None,
            retries: 0,
            last_error: None,
        };
        edge.show_connection(shown.clone());
        Self {
            edge,
            state: Mutex::new(State {
                shown,
                connected: None,
                reminders: OncePer::new(REMINDER),
            }),
        }
    }

    fn metrics(&self) -> &ControlMetrics {
        self.edge.control_metrics()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, state: &State) {
        self.edge.show_connection(state.shown.clone());
    }

    /// The edge connects to `url`.
    pub fn connecting(&self, url: &Url) {
        let mut state = self.state();
        state.shown.state = ConnectionState::Connecting;
        state.shown.url = url.to_string();
        self.show(&state);
    }

    /// The edge is connected. Returns for how long it was not.
    pub fn connected(&self, url: &Url, dialect: Dialect, welcome: Option<&Welcome>) -> Duration {
        self.metrics().connect(true);
        let now = Instant::now();
        let mut state = self.state();
        let stale = state.shown.stale(now);
        let retries = std::mem::take(&mut state.shown.retries);
        state.connected = Some(now);
        state.reminders = OncePer::new(REMINDER);
        let shown = &mut state.shown;
        shown.state = ConnectionState::Connected;
        shown.since = SystemTime::now();
        shown.heard = now;
        shown.dialect = Some(dialect.as_str());
        shown.control_id = welcome.map(|welcome| welcome.control_id.clone());
        shown.newest = welcome.map(|welcome| welcome.generation);
        self.show(&state);
        let control_id = welcome.map_or("", |welcome| welcome.control_id.as_str());
        let theirs = welcome.map_or(0, |welcome| welcome.generation);
        let ours = held(&self.edge).map_or(0, |held| held.generation);
        log::info!(
            target: "cellgate::source",
            url = url.as_str(),
            dialect = dialect.as_str(),
            control_id,
            control_generation = theirs,
            serving_control_generation = ours,
            stale_seconds = stale.as_secs(),
            failed_attempts = retries;
            "control plane connected"
        );
        stale
    }

    /// The newest generation that the control plane has mentioned.
    pub fn newest(&self, generation: u64) {
        let mut state = self.state();
        if state.shown.newest != Some(generation) {
            state.shown.newest = Some(generation);
            self.show(&state);
        }
    }

    /// Counts a message.
    pub fn message(&self, direction: Direction, kind: &'static str) {
        self.metrics().message(direction, kind);
    }

    /// The connection ended, or could not be opened. Returns how long it lasted.
    pub fn ended(&self, url: &Url, ended: &Ended) -> Duration {
        let now = Instant::now();
        let why = ended.to_string();
        let mut state = self.state();
        let connected = state.connected.take();
        let shown = &mut state.shown;
        shown.state = ConnectionState::Disconnected;
        shown.last_error = Some(ConnectionError {
            at: SystemTime::now(),
            message: why.clone(),
        });
        let current = self.edge.current();
        let number = current.map_or(0, |current| current.number);
        if let Some(connected) = connected {
            shown.since = SystemTime::now();
            // The last word came that much earlier.
            let silent = match ended {
                Ended::Silent(silent) => *silent,
                _ => Duration::ZERO,
            };
            shown.heard = now.checked_sub(silent).unwrap_or(now);
            self.show(&state);
            log::warn!(
                target: "cellgate::source",
                url = url.as_str(),
                serving_generation = number;
                "control plane lost: {why}; serving the last known good table, and reconnecting"
            );
            return now.saturating_duration_since(connected);
        }
        self.metrics().connect(false);
        shown.retries += 1;
        let (retries, stale) = (shown.retries, shown.stale(now));
        self.show(&state);
        if state.reminders.allow(now).is_some() {
            log::warn!(
                target: "cellgate::source",
                url = url.as_str(),
                serving_generation = number,
                stale_seconds = stale.as_secs(),
                failed_attempts = retries;
                "no control plane: {why}; serving the last known good table, and reconnecting"
            );
        }
        Duration::ZERO
    }
}
