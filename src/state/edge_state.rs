//! The pointer that requests read, and what else is shared by all who use the running edge.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::connection::Connection;
use super::disk::StateDirStatus;
use super::explain::RouteExplanation;
use super::failure::Failures;
use super::generation::Generation;
use super::push::PushLimits;
use super::status::ConfigStatus;
use super::writer::Writer;
use crate::telemetry::metrics::Metrics;
use crate::upstream::{Placements, Registry};

/// The state of the running edge.
pub struct EdgeState {
    /// What requests read. Written only by [`EdgeState::transact`](super::writer).
    pub(super) current: ArcSwapOption<Generation>,
    /// Held while a change is applied, so that changes come one after the other. No request
    /// takes it.
    pub(super) writer: Mutex<Writer>,
    /// Held while the outcome of a change is written or shown, so that nobody is shown half
    /// of it. Of requests, only `/debug/config` takes it.
    pub(super) failures: Mutex<Failures>,
    /// What is shown of the state directory; none without one.
    pub(super) state_dir: Mutex<Option<StateDirStatus>>,
    /// What is shown of the connection to the control plane; none without one.
    pub(super) connection: Mutex<Option<Connection>>,
    /// When an earlier process last heard a control plane.
    pub(super) heard_before: Mutex<Option<SystemTime>>,
    /// The number of the current generation; 0 before the first.
    pub(super) number: watch::Sender<u64>,
    placements: watch::Receiver<Placements>,
    addresses: watch::Receiver<()>,
    pub(super) push_limits: PushLimits,
    pub(super) metrics: Arc<Metrics>,
}

/// What is fixed for the life of the process.
#[derive(Clone, Debug, Default)]
pub struct EdgeOptions {
    /// Addresses of hosts that are not to be looked up.
    pub hosts: HashMap<String, IpAddr>,
    /// The largest table that pushes may lead to.
    pub push_limits: PushLimits,
}

impl EdgeState {
    /// A state without a generation.
    pub fn new(options: EdgeOptions, metrics: Arc<Metrics>) -> Arc<Self> {
        let registry = Registry::new(options.hosts, Arc::clone(&metrics));
        Arc::new(Self {
            current: ArcSwapOption::empty(),
            placements: registry.watch(),
            addresses: registry.watch_addresses(),
            writer: Mutex::new(Writer::new(registry)),
            failures: Mutex::default(),
            state_dir: Mutex::default(),
            connection: Mutex::default(),
            heard_before: Mutex::default(),
            number: watch::Sender::new(0),
            push_limits: options.push_limits,
            metrics,
        })
    }

    /// The current generation; none before the first. Whoever keeps it keeps its keys in
    /// memory: requests use [`read`](Self::read).
    pub fn current(&self) -> Option<Arc<Generation>> {
        self.current.load_full()
    }

    /// What `read` takes from the current generation; none before the first.
    pub fn read<T>(&self, read: impl FnOnce(&Generation) -> T) -> Option<T> {
        self.current.load().as_deref().map(read)
    }

    /// The number of the current generation; 0 before the first.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.number.subscribe()
    }

    /// The placements of the current generation; none before the first. Not notified when
    /// only keys change.
    pub fn watch_placements(&self) -> watch::Receiver<Placements> {
        self.placements.clone()
    }

    /// Notified when the addresses of any endpoint change.
    pub fn watch_addresses(&self) -> watch::Receiver<()> {
        self.addresses.clone()
    }

    /// What is being served, and how the last attempt to change it went.
    pub fn status(&self) -> ConfigStatus {
        let failures = self.failures.lock();
        let last_error = failures.shown();
        let state_dir = self.state_dir.lock().clone();
        let current = self.current();
        let connection = self.connection.lock().clone();
        let connection = connection.map(|it| it.status(current.as_deref(), Instant::now()));
        ConfigStatus::new(current.as_deref(), last_error, state_dir, connection)
    }

    /// Where `key` goes now; none before the first generation.
    pub fn explain(&self, key: &str) -> Option<RouteExplanation> {
        self.current()
            .map(|generation| RouteExplanation::new(&generation, key, Instant::now()))
    }

    /// Brings the gauges of placements and of the control plane up to date, and forgets
    /// placements that nothing uses any more. Costs a few loads for each backend.
    pub fn show_gauges(&self) {
        self.gauge_connection();
        let Some(generation) = self.current() else {
            return;
        };
        let now = Instant::now();
        for placement in generation.placements.iter() {
            let (usable, unusable) = placement.count_usable(now);
            let state = &placement.state;
            state.metrics.show(state.in_flight(), usable, unusable);
        }
        // While a change is being applied, the next scrape will do.
        if let Some(mut writer) = self.writer.try_lock() {
            writer.registry.sweep();
            writer.registry.show_replaced();
        }
    }
}
