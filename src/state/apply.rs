//! The one pointer that requests read, and the one writer that moves it.
//!
//! A change is all or nothing: a document is compiled and bound to its cells
//! whole, and then the pointer moves. Whatever else arrives leaves the last
//! known good generation where it is.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use tokio::sync::watch;

use super::connection::Connection;
use super::disk::MemoryStatus;
use super::explain::RouteExplanation;
use super::generation::{Generation, Head, Sha256, Source};
use super::push::PushLimits;
use super::restore::Barred;
use super::status::{ConfigStatus, LastError};
use crate::table::{self, Problem, RoutingTable};
use crate::telemetry::metrics::{Metrics, Reload};
use crate::telemetry::once_per::OncePer;
use crate::upstream::Endpoint;
use crate::upstream::Placement;
use crate::upstream::PlacementState;
use crate::upstream::clock;

/// How many of a document's problems one log line spells out.
const LOGGED_PROBLEMS: usize = 10;

/// How often the log says at most that a push is refused.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// The running edge's state.
pub struct EdgeState {
    /// What requests read. Written only by [`EdgeState::apply`].
    current: ArcSwapOption<Generation>,
    /// Held while a document is applied, so that changes come one after the
    /// other. No request ever takes it.
    pub(crate) writer: Mutex<Writer>,
    /// Held for a moment when the outcome of a change is written or shown, so
    /// that nobody is shown half of it. No request ever takes it.
    failure: Mutex<Option<Failure>>,
    /// For what is logged of pushes that are refused: a faulty control plane may
    /// send one after the other.
    complaints: Mutex<OncePer>,
    /// What is shown of the memory; none without one.
    pub(crate) memory: Mutex<Option<MemoryStatus>>,
    /// How it stands with the control plane; none without one.
    pub(crate) connection: Mutex<Option<Connection>>,
    /// When an earlier process last heard a control plane.
    pub(crate) heard_before: Mutex<Option<SystemTime>>,
    /// The number of the current generation; 0 before the first.
    number: watch::Sender<u64>,
    /// Rung when an endpoint's addresses change.
    addresses: watch::Sender<()>,
    hosts: HashMap<String, IpAddr>,
    pub(crate) push_limits: PushLimits,
    pub(crate) metrics: Arc<Metrics>,
}

/// What is fixed for the life of the process.
#[derive(Clone, Debug, Default)]
pub struct EdgeOptions {
    /// Addresses of hosts that are not to be looked up.
    pub hosts: HashMap<String, IpAddr>,
    /// The largest table that is taken piece by piece.
    pub push_limits: PushLimits,
}

/// What only the writer needs.
#[derive(Default)]
pub(crate) struct Writer {
    /// Every placement that a living generation names.
    pub(crate) cells: HashMap<String, Weak<PlacementState>>,
    /// Every endpoint of each of them.
    pub(crate) endpoints: HashMap<(String, table::Endpoint), Weak<Endpoint>>,
    /// Generations that were replaced and that requests may still hold. They
    /// are kept here so that the last request to let go does not pay for
    /// freeing a table of a million keys; see `retire.rs`.
    pub(crate) retired: Vec<Arc<Generation>>,
    /// The number of the newest generation.
    pub(crate) newest: u64,
    /// Content that made the edge crash.
    pub(crate) barred: Vec<Barred>,
}

/// Why the newest document is not being served.
struct Failure {
    shown: LastError,
    cause: Cause,
    /// Whether the log has it.
    logged: bool,
}

/// What a failure is told apart by from the one before it.
#[derive(PartialEq)]
pub(crate) enum Cause {
    Document(Sha256),
    /// What a control plane calls by this number.
    Pushed(u64),
    /// A control plane sends, and it does not become what it should.
    OutOfStep,
    Source,
}

/// What became of a document.
#[derive(Debug)]
pub enum Applied {
    /// It is being served, as this generation.
    Changed(Arc<Generation>),
    /// It was being served already.
    Unchanged,
    /// It is invalid, and nothing has changed. Never empty.
    Refused(Vec<Problem>),
}

impl EdgeState {
    /// A state without a table yet.
    pub fn new(options: EdgeOptions, metrics: Arc<Metrics>) -> Arc<Self> {
        clock::start();
        let hosts = options
            .hosts
            .into_iter()
            // As endpoints have them.
            .map(|(host, address)| (host.to_ascii_lowercase(), address))
            .collect();
        Arc::new(Self {
            current: ArcSwapOption::empty(),
            writer: Mutex::default(),
            failure: Mutex::new(None),
            complaints: Mutex::new(OncePer::new(COMPLAINTS)),
            memory: Mutex::new(None),
            connection: Mutex::new(None),
            heard_before: Mutex::new(None),
            number: watch::Sender::new(0),
            addresses: watch::Sender::new(()),
            hosts,
            push_limits: options.push_limits,
            metrics,
        })
    }

    /// The generation that a request starting now is served on. The request
    /// keeps it to its end.
    pub fn current(&self) -> Option<Arc<Generation>> {
        self.current.load_full()
    }

    /// The number of the current generation, for whoever has something to do
    /// when it changes; 0 before the first.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.number.subscribe()
    }

    /// Changes when an endpoint's addresses do, of whatever generation.
    pub(crate) fn watch_addresses(&self) -> watch::Receiver<()> {
        self.addresses.subscribe()
    }

    /// What is being served and how the last attempt to change it went.
    pub fn status(&self) -> ConfigStatus {
        let failure = lock(&self.failure);
        let last_error = failure.as_ref().map(|failure| failure.shown.clone());
        let memory = lock(&self.memory).clone();
        let current = self.current();
        let connection = lock(&self.connection).clone();
        let connection = connection.map(|it| it.status(current.as_deref(), Instant::now()));
        ConfigStatus::new(current.as_deref(), last_error, memory, connection)
    }

    /// Where `key` goes now; none before the first generation.
    pub fn explain(&self, key: &str) -> Option<RouteExplanation> {
        self.current()
            .map(|generation| RouteExplanation::new(&generation, key, Instant::now()))
    }

    /// Makes `document` the routing table of all requests that start from now
    /// on, or changes nothing. Every change that comes as a document goes this
    /// way; [`push`](Self::push) is for those that do not.
    ///
    /// Costs as much as compiling the document does: on a runtime, call it from
    /// `spawn_blocking`.
    pub fn apply(&self, document: &[u8], source: Source, now: SystemTime) -> Applied {
        let mut writer = lock(&self.writer);
        let sha256 = Sha256::of(document);
        let current = self.current();
        if current
            .as_ref()
            .is_some_and(|current| current.sha256 == Some(sha256))
        {
            self.recovered(source);
            return Applied::Unchanged;
        }
        let head = Head {
            number: writer.newest + 1,
            sha256: Some(sha256),
            source,
            control_generation: None,
            applied_at: now,
        };
        let compiled = table::compile(document);
        // Of a file, the operator may want to see that the new one is there.
        // What is pushed was written by a program, which may well write the same
        // in another order.
        if let (Ok(table), Source::ControlPlane, Some(current)) = (&compiled, source, &current)
            && table.digest() == current.table.digest()
        {
            self.recovered(source);
            return Applied::Unchanged;
        }
        match compiled.and_then(|table| self.serve(&mut writer, head, table)) {
            Ok(generation) => Applied::Changed(generation),
            Err(problems) => {
                self.deny(&mut writer, Cause::Document(sha256), source, &problems, now);
                Applied::Refused(problems)
            }
        }
    }

    /// Serves `table` from now on, unless it is content that is not to be served.
    pub(crate) fn serve(
        &self,
        writer: &mut Writer,
        head: Head,
        table: RoutingTable,
    ) -> Result<Arc<Generation>, Vec<Problem>> {
        writer.admit(&table)?;
        let last = self.current();
        let generation = Generation::new(head, table, last.as_deref(), |placement, name| {
            self.bind(writer, placement, name)
        })?;
        self.metrics.reloaded(Reload::Ok);
        let message = match last {
            Some(_) => "config reloaded",
            None => "config loaded",
        };
        // So that the old one can be freed right away.
        drop(last);
        Ok(self.install(writer, generation, message))
    }

    /// Shows why nothing has changed.
    pub(crate) fn deny(
        &self,
        writer: &mut Writer,
        cause: Cause,
        source: Source,
        problems: &[Problem],
        now: SystemTime,
    ) {
        self.refused(cause, source, problems, now);
        self.metrics.reloaded(Reload::Refused);
        self.sweep(writer);
    }

    /// Moves the pointer. `message` is what the log calls this.
    pub(crate) fn install(
        &self,
        writer: &mut Writer,
        generation: Generation,
        message: &str,
    ) -> Arc<Generation> {
        let generation = Arc::new(generation);
        let old = self.current();
        writer.newest = writer.newest.max(generation.number);
        {
            // Whoever sees the new generation does not see the old error.
            let mut failure = lock(&self.failure);
            self.current.store(Some(Arc::clone(&generation)));
            *failure = None;
        }
        self.metrics.generation_applied(
            generation.number,
            generation.table.key_count(),
            generation.table.placements().len(),
            generation.applied_at,
        );
        self.number.send_replace(generation.number);
        log_applied(&generation, old.as_deref(), message);
        writer.retired.extend(old);
        self.sweep(writer);
        generation
    }

    /// Records that there is no document to be had, in words for the operator.
    /// Logged when it is news.
    pub fn source_failed(&self, problems: Vec<Problem>, now: SystemTime) {
        if self.refused(Cause::Source, Source::File, &problems, now) {
            self.metrics.reloaded(Reload::Unreadable);
        }
    }

    /// Shows that what a control plane sends does not become what it should, and
    /// logs it when it is news, whatever the words.
    pub fn out_of_step(&self, problems: Vec<Problem>, now: SystemTime) {
        let shown = LastError::new(now, &problems);
        let cause = Cause::OutOfStep;
        let before = lock(&self.failure).replace(Failure {
            shown,
            cause,
            logged: true,
        });
        if before.is_none_or(|before| before.cause != Cause::OutOfStep) {
            log::warn!(
                target: "cellgate::state",
                "the table is not what the control plane says that it should be: {}",
                Listed(&problems)
            );
        }
    }

    /// What the edge knows of a placement already, under what a new generation
    /// says of it.
    pub(crate) fn bind(
        &self,
        writer: &mut Writer,
        placement: &table::Placement,
        name: HeaderValue,
    ) -> Placement {
        let known = writer.cells.get(&placement.name).and_then(Weak::upgrade);
        if let Some(shared) = &known {
            self.metrics.keep_placement(&shared.name, &shared.metrics);
        }
        let shared = known.unwrap_or_else(|| {
            let metrics = self.metrics.placement(&placement.name);
            let shared = Arc::new(PlacementState::new(
                &placement.name,
                metrics,
                self.addresses.clone(),
            ));
            let name = placement.name.clone();
            writer.cells.insert(name, Arc::downgrade(&shared));
            shared
        });
        let endpoints = placement.endpoints.iter().map(|weighted| {
            let place = (placement.name.clone(), weighted.endpoint.clone());
            let known = writer.endpoints.get(&place).and_then(Weak::upgrade);
            let endpoint = known.unwrap_or_else(|| {
                let host = self.hosts.get(&weighted.endpoint.host).copied();
                let endpoint = Endpoint::new(weighted.endpoint.clone(), host, Arc::clone(&shared));
                let endpoint = Arc::new(endpoint);
                writer.endpoints.insert(place, Arc::downgrade(&endpoint));
                endpoint
            });
            (endpoint, weighted.weight)
        });
        let endpoints = endpoints.collect();
        Placement::new(
            name,
            shared,
            Arc::clone(&placement.policy),
            placement.fallback,
            endpoints,
        )
    }

    /// Whether something newer than what is served was refused.
    pub(crate) fn is_failing(&self) -> bool {
        lock(&self.failure).is_some()
    }

    /// The newest document is the one being served.
    pub(crate) fn recovered(&self, source: Source) {
        self.metrics.reloaded(Reload::Unchanged);
        if lock(&self.failure)
            .take()
            .is_some_and(|failure| failure.logged)
        {
            log::info!(
                target: "cellgate::state",
                source = source.as_str();
                "config is good again: it is what is being served"
            );
        }
    }

    /// Shows and, if it is news, logs why nothing has changed. Says whether it
    /// was news.
    fn refused(&self, cause: Cause, source: Source, problems: &[Problem], now: SystemTime) -> bool {
        let shown = LastError::new(now, problems);
        let mut failure = lock(&self.failure);
        let known = failure.as_ref().is_some_and(|last| {
            last.cause == cause
                && last.shown.problems == shown.problems
                && last.shown.omitted == shown.omitted
        });
        if known {
            return false;
        }
        let held_back = match source {
            Source::ControlPlane => lock(&self.complaints).allow(Instant::now()),
            Source::File => Some(0),
        };
        *failure = Some(Failure {
            shown,
            cause,
            logged: held_back.is_some(),
        });
        drop(failure);
        let Some(held_back) = held_back else {
            return true;
        };
        // Without a table there is nothing to reload: this is the start, where
        // whoever asked gets the problems and ends the process with them.
        if let Some(current) = self.current() {
            log::error!(
                target: "cellgate::state",
                serving_version = current.table.version(),
                serving_generation = current.number,
                refused_unlogged = held_back;
                "Config reload failed: {}",
                Listed(problems)
            );
        }
        true
    }
}

/// `2 problems: …; …`, the first few of them.
struct Listed<'a>(&'a [Problem]);

impl std::fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.0.len();
        write!(f, "{count} problem{}: ", if count == 1 { "" } else { "s" })?;
        for (index, problem) in self.0.iter().take(LOGGED_PROBLEMS).enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        match count.saturating_sub(LOGGED_PROBLEMS) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

fn log_applied(new: &Generation, old: Option<&Generation>, message: &str) {
    let changes = old.map(|old| table::diff(&old.table, &new.table));
    let changes = changes.map_or_else(|| "all new".to_owned(), |diff| diff.to_string());
    let (table, source) = (&new.table, new.source.as_str());
    match (new.sha256, new.control_generation) {
        (_, Some(control_generation)) => log::info!(
            target: "cellgate::state",
            version = table.version(),
            generation = new.number,
            control_generation,
            digest:% = table.digest(),
            keys = table.key_count(),
            placements = table.placements().len(),
            source,
            changes = changes.as_str();
            "{message}"
        ),
        (sha256, None) => log::info!(
            target: "cellgate::state",
            version = table.version(),
            generation = new.number,
            sha256 = sha256.map(|sha256| sha256.to_string()).unwrap_or_default().as_str(),
            keys = table.key_count(),
            placements = table.placements().len(),
            source,
            changes = changes.as_str();
            "{message}"
        ),
    }
}

/// A panic while a lock was held leaves nothing half done that matters: the
/// pointer moves in one step, and everything else is replaced as a whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
