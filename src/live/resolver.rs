//! Looks up the host names of cells, in the background and again and again, so
//! that no request ever waits for DNS.
//!
//! One task owns the schedule: each host name with the time of its next lookup.
//! Lookups run beside it, a bounded number at a time, and come back to it; it
//! alone writes the addresses of cells.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::apply::Live;
use super::cell::{Cell, Resolution};
use super::generation::Generation;
use super::retire;

/// How many lookups run at a time. `getaddrinfo` takes a thread for each.
const CONCURRENT: usize = 16;

/// How long one lookup may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after a first failure; it doubles with each one that follows, up
/// to the time between ordinary lookups.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// How often the cells are counted by state while lookups go on and on.
const SHOW_EVERY: Duration = Duration::from_secs(1);

/// Finds the addresses of a host name.
#[async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// All addresses of `host`, the preferred ones first.
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver: `/etc/hosts`, DNS and whatever else it is told to ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let sockets = tokio::net::lookup_host((host, 0)).await?;
        Ok(sockets.map(|socket| socket.ip()).collect())
    }
}

/// The background service that keeps the addresses of the current generation's
/// cells fresh, and frees generations that are over.
pub struct Resolver {
    live: Arc<Live>,
    lookup: Arc<dyn Lookup>,
    refresh: Duration,
}

impl Resolver {
    /// Looks each name up again after `refresh` (at least a second).
    pub fn new(live: Arc<Live>, refresh: Duration) -> Self {
        Self::with_lookup(live, refresh, Arc::new(SystemLookup))
    }

    pub fn with_lookup(live: Arc<Live>, refresh: Duration, lookup: Arc<dyn Lookup>) -> Self {
        Self {
            live,
            lookup,
            refresh: refresh.max(FIRST_RETRY),
        }
    }

    async fn resolve(&self, mut shutdown: ShutdownWatch) {
        let mut generations = self.live.watch();
        generations.mark_changed();
        let mut names = Names::default();
        let mut lookups: JoinSet<Result<Vec<IpAddr>, String>> = JoinSet::new();
        let mut running: HashMap<Id, Arc<str>> = HashMap::new();
        let mut shown = Instant::now();
        loop {
            while lookups.len() < CONCURRENT
                && let Some(host) = names.pop_due(Instant::now())
            {
                let lookup = look_up(Arc::clone(&self.lookup), Arc::clone(&host));
                running.insert(lookups.spawn(lookup).id(), host);
            }
            // Counting goes through all cells: not with every one of a thousand
            // lookups that come back together.
            if lookups.is_empty() || shown.elapsed() >= SHOW_EVERY {
                shown = Instant::now();
                for (state, count) in states(self.live.current().as_deref()) {
                    self.live.metrics.set_cells(state.as_str(), count);
                }
            }
            // With every place taken, the next thing to happen is a lookup's end.
            let next = names.next_due().filter(|_| lookups.len() < CONCURRENT);
            tokio::select! {
                _ = shutdown.changed() => return,
                changed = generations.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if let Some(generation) = self.live.current() {
                        for gone in names.adopt(&generation, Instant::now()) {
                            self.live.metrics.forget_host(&gone);
                        }
                    }
                }
                Some(done) = lookups.join_next_with_id(), if !lookups.is_empty() => {
                    let (id, outcome) = outcome_of(done);
                    if let Some(host) = running.remove(&id) {
                        self.finish(&mut names, &host, outcome);
                    }
                }
                () = sleep_until(next) => {}
            }
        }
    }

    /// Hands what a lookup found to the cells of its host, and plans the next.
    fn finish(&self, names: &mut Names, host: &Arc<str>, outcome: Result<Vec<IpAddr>, String>) {
        let Some(name) = names.by_host.get_mut(host) else {
            // No cell has it any more.
            return;
        };
        let waiting: Vec<Arc<Cell>> = name
            .waiting
            .drain(..)
            .filter_map(|cell| cell.upgrade())
            .collect();
        let cells = || name.cells.iter().chain(&waiting);
        let pause = match outcome {
            Ok(addresses) => {
                cells().for_each(|cell| cell.resolved(&addresses));
                if name.failures > 0 {
                    log::info!(target: "cellgate::live", "{host} resolves again, to {}", Addresses(&addresses));
                } else {
                    log::debug!(target: "cellgate::live", "{host} resolves to {}", Addresses(&addresses));
                }
                name.failures = 0;
                self.refresh
            }
            Err(why) => {
                self.live.metrics.dns_failed(host);
                cells().for_each(|cell| cell.resolution_failed(&why));
                // Once, and not with every retry.
                if name.failures == 0 {
                    let kept = name
                        .cells
                        .iter()
                        .map(|cell| cell.addresses().sockets.len())
                        .max();
                    let consequence = match kept {
                        Some(kept @ 1..) => format!("keeping the last {kept} address(es)"),
                        _ => "its cells cannot be reached".to_owned(),
                    };
                    log::warn!(target: "cellgate::live", "{host} does not resolve: {why}; {consequence}");
                }
                let pause = FIRST_RETRY.saturating_mul(1 << name.failures.min(16));
                name.failures = name.failures.saturating_add(1);
                pause.min(self.refresh)
            }
        };
        if name.cells.is_empty() {
            // It was only looked up for those that waited.
            names.by_host.remove(host);
            self.live.metrics.forget_host(host);
            return;
        }
        names.plan(host, Instant::now() + pause);
    }
}

#[async_trait]
impl BackgroundService for Resolver {
    async fn start(&self, shutdown: ShutdownWatch) {
        let retire = retire::run(Arc::clone(&self.live), shutdown.clone());
        tokio::join!(self.resolve(shutdown), retire);
    }
}

async fn look_up(lookup: Arc<dyn Lookup>, host: Arc<str>) -> Result<Vec<IpAddr>, String> {
    match tokio::time::timeout(TIMEOUT, lookup.lookup(&host)).await {
        Ok(Ok(addresses)) if addresses.is_empty() => Err("it has no address".to_owned()),
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}

type Joined = Result<(Id, Result<Vec<IpAddr>, String>), JoinError>;

fn outcome_of(done: Joined) -> (Id, Result<Vec<IpAddr>, String>) {
    match done {
        Ok(done) => done,
        Err(error) => (error.id(), Err(format!("the lookup broke off: {error}"))),
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The host names of the current generation, and when each is due.
#[derive(Default)]
struct Names {
    by_host: HashMap<Arc<str>, Name>,
    /// Every name that is not being looked up right now, earliest first.
    schedule: BTreeSet<(Instant, Arc<str>)>,
}

struct Name {
    /// All cells on this host; they differ in port or scheme.
    cells: Vec<Arc<Cell>>,
    /// Cells of replaced generations that were never told an address; requests
    /// that began on those may wait for it.
    waiting: Vec<Weak<Cell>>,
    /// When the next lookup is due; none while one is running.
    due: Option<Instant>,
    /// Failed lookups since the last good one.
    failures: u32,
}

impl Names {
    /// Takes on the names of a new generation: new ones are due at once, known
    /// ones keep their time. Returns those that are gone.
    fn adopt(&mut self, generation: &Generation, now: Instant) -> Vec<Arc<str>> {
        for name in self.by_host.values_mut() {
            let unresolved = name
                .cells
                .drain(..)
                .filter(|cell| cell.addresses().state == Resolution::Unresolved);
            name.waiting
                .extend(unresolved.map(|cell| Arc::downgrade(&cell)));
        }
        let mut seen = HashSet::new();
        for placement in generation.live_placements() {
            let cell = &placement.cell;
            // Several placements may share one cell.
            if !cell.needs_lookup() || !seen.insert(Arc::as_ptr(cell)) {
                continue;
            }
            let host = cell.endpoint.host.as_str();
            match self.by_host.get_mut(host) {
                Some(name) => name.cells.push(Arc::clone(cell)),
                None => {
                    let host: Arc<str> = host.into();
                    self.schedule.insert((now, Arc::clone(&host)));
                    let name = Name {
                        cells: vec![Arc::clone(cell)],
                        waiting: Vec::new(),
                        due: Some(now),
                        failures: 0,
                    };
                    self.by_host.insert(host, name);
                }
            }
        }
        let mut gone = Vec::new();
        let mut hurried = Vec::new();
        for (host, name) in &self.by_host {
            let waited_for = name.waiting.iter().any(|cell| cell.strong_count() > 0);
            if name.cells.is_empty() && !waited_for {
                gone.push(Arc::clone(host));
            } else if name.due.is_some_and(|due| due > now)
                && name
                    .cells
                    .iter()
                    .any(|cell| cell.addresses().state == Resolution::Unresolved)
            {
                // A new port on a known host: its requests wait for a lookup.
                hurried.push(Arc::clone(host));
            }
        }
        for host in hurried {
            self.plan(&host, now);
        }
        for host in &gone {
            if let Some((host, Name { due: Some(due), .. })) = self.by_host.remove_entry(host) {
                self.schedule.remove(&(due, host));
            }
        }
        gone
    }

    fn plan(&mut self, host: &Arc<str>, at: Instant) {
        let Some(name) = self.by_host.get_mut(host) else {
            return;
        };
        if let Some(due) = name.due.replace(at) {
            self.schedule.remove(&(due, Arc::clone(host)));
        }
        self.schedule.insert((at, Arc::clone(host)));
    }

    fn next_due(&self) -> Option<Instant> {
        self.schedule.first().map(|(due, _)| *due)
    }

    /// Takes a name whose time has come; it has no time until it is planned.
    fn pop_due(&mut self, now: Instant) -> Option<Arc<str>> {
        if self.next_due()? > now {
            return None;
        }
        let (_, host) = self.schedule.pop_first()?;
        if let Some(name) = self.by_host.get_mut(&host) {
            name.due = None;
        }
        Some(host)
    }
}

/// How many cells are in which state, those without a lookup included.
fn states(generation: Option<&Generation>) -> [(Resolution, usize); 3] {
    let mut states = Resolution::ALL.map(|state| (state, 0));
    let mut seen = HashSet::new();
    for placement in generation.into_iter().flat_map(Generation::live_placements) {
        if seen.insert(Arc::as_ptr(&placement.cell)) {
            let state = placement.cell.addresses().state;
            for (known, count) in &mut states {
                *count += usize::from(*known == state);
            }
        }
    }
    states
}

/// `10.0.0.1, 10.0.0.2`.
struct Addresses<'a>(&'a [IpAddr]);

impl std::fmt::Display for Addresses<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, address) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{address}")?;
        }
        Ok(())
    }
}
