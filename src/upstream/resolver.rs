//! Looks up the host names of endpoints in the background, so that no request waits for DNS
//! after the first lookup.
//!
//! One task owns the schedule: each host name with the time of its next lookup. Lookups run
//! beside it, a bounded number at a time, and return to it. Only this task writes the
//! addresses of endpoints.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::endpoint::{Endpoint, Resolution};
use super::placements::Placements;
use super::schedule::{Lane, Place, Schedule, sleep_until};
use crate::telemetry::metrics::Metrics;

/// Most lookups that run at a time; those of names that hang may be half of them.
/// `getaddrinfo` takes a thread for each.
const CONCURRENT: usize = 16;

/// The timeout of one lookup.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after a first failure. It doubles with each further failure, up to the
/// ordinary interval.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// How often the gauge of endpoints by state is updated while lookups are running.
const SHOW_EVERY: Duration = Duration::from_secs(1);

/// Finds the addresses of a host name.
#[async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// All addresses of `host`, in order of preference.
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver: `/etc/hosts`, DNS and what else it is configured to use.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let sockets = tokio::net::lookup_host((host, 0)).await?;
        Ok(sockets.map(|socket| socket.ip()).collect())
    }
}

/// The background service that keeps the addresses of the current placements' endpoints
/// fresh.
pub struct Resolver {
    placements: watch::Receiver<Placements>,
    metrics: Arc<Metrics>,
    lookup: Arc<dyn Lookup>,
    refresh: Duration,
}

impl Resolver {
    /// Looks up each name again after `refresh`, which is at least one second.
    pub fn new(
        placements: watch::Receiver<Placements>,
        metrics: Arc<Metrics>,
        refresh: Duration,
    ) -> Self {
        Self::with_lookup(placements, metrics, refresh, Arc::new(SystemLookup))
    }

    /// As [`new`](Self::new), with another resolver than that of the system.
    pub fn with_lookup(
        placements: watch::Receiver<Placements>,
        metrics: Arc<Metrics>,
        refresh: Duration,
        lookup: Arc<dyn Lookup>,
    ) -> Self {
        Self {
            placements,
            metrics,
            lookup,
            refresh: refresh.max(FIRST_RETRY),
        }
    }
}

#[async_trait]
impl BackgroundService for Resolver {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut placements = self.placements.clone();
        placements.mark_changed();
        let mut names = Names::new();
        let mut lookups: JoinSet<Outcome> = JoinSet::new();
        let mut running: HashMap<Id, (Arc<str>, Place)> = HashMap::new();
        let mut shown = Instant::now();
        loop {
            while let Some((host, place)) = names.schedule.pop_due(Instant::now()) {
                let lookup = look_up(Arc::clone(&self.lookup), Arc::clone(&host));
                running.insert(lookups.spawn(lookup).id(), (host, place));
            }
            // Counting visits all endpoints, so it is not done for each of a thousand
            // lookups that return together.
            if lookups.is_empty() || shown.elapsed() >= SHOW_EVERY {
                shown = Instant::now();
                let current = placements.borrow().clone();
                for (state, count) in states(&current) {
                    self.metrics.set_endpoints(state.as_str(), count);
                }
            }
            let next = names.schedule.next_due();
            tokio::select! {
                _ = shutdown.changed() => return,
                changed = placements.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let current = placements.borrow_and_update().clone();
                    for gone in names.adopt(&current, Instant::now()) {
                        self.metrics.forget_host(&gone);
                    }
                }
                Some(done) = lookups.join_next_with_id(), if !lookups.is_empty() => {
                    let (id, outcome) = outcome_of(done);
                    if let Some((host, place)) = running.remove(&id) {
                        names.schedule.release(place);
                        self.finish(&mut names, &host, outcome);
                    }
                }
                () = sleep_until(next) => {}
            }
        }
    }
}

impl Resolver {
    /// Gives the result of a lookup to the endpoints of its host, and plans the next one.
    fn finish(&self, names: &mut Names, host: &Arc<str>, outcome: Outcome) {
        let Some(name) = names.by_host.get_mut(host) else {
            // No endpoint has this host any more.
            return;
        };
        let waiting: Vec<Arc<Endpoint>> = name
            .waiting
            .drain(..)
            .filter_map(|endpoint| endpoint.upgrade())
            .collect();
        let endpoints = || name.endpoints.iter().chain(&waiting);
        let pause = match outcome {
            Ok(addresses) => {
                endpoints().for_each(|endpoint| endpoint.resolved(&addresses));
                if name.failures > 0 {
                    log::info!(target: "cellgate::upstream", "{host} resolves again, to {}", Addresses(&addresses));
                } else {
                    log::debug!(target: "cellgate::upstream", "{host} resolves to {}", Addresses(&addresses));
                }
                name.failures = 0;
                name.lane = Lane::Prompt;
                self.refresh
            }
            Err(Failure { why, lane }) => {
                name.lane = lane;
                self.metrics.dns_failed(host);
                endpoints().for_each(|endpoint| endpoint.resolution_failed(&why));
                // Logged once, not for every retry.
                if name.failures == 0 {
                    let kept = name
                        .endpoints
                        .iter()
                        .map(|endpoint| endpoint.addresses().backends.len())
                        .max();
                    let consequence = match kept {
                        Some(kept @ 1..) => format!("keeping the last {kept} address(es)"),
                        _ => "its endpoints cannot be reached".to_owned(),
                    };
                    log::warn!(target: "cellgate::upstream", "{host} does not resolve: {why}; {consequence}");
                }
                let pause = FIRST_RETRY.saturating_mul(1 << name.failures.min(16));
                name.failures = name.failures.saturating_add(1);
                pause.min(self.refresh)
            }
        };
        if name.endpoints.is_empty() {
            // It was looked up only for endpoints of replaced generations.
            names.by_host.remove(host);
            self.metrics.forget_host(host);
            return;
        }
        let lane = name.lane;
        names
            .schedule
            .plan(Arc::clone(host), Instant::now() + pause, lane);
    }
}

type Outcome = Result<Vec<IpAddr>, Failure>;

/// Why a lookup failed, and the lane for the next one.
struct Failure {
    why: String,
    lane: Lane,
}

impl Failure {
    fn prompt(why: String) -> Self {
        let lane = Lane::Prompt;
        Self { why, lane }
    }
}

async fn look_up(lookup: Arc<dyn Lookup>, host: Arc<str>) -> Outcome {
    match tokio::time::timeout(TIMEOUT, lookup.lookup(&host)).await {
        Ok(Ok(addresses)) if addresses.is_empty() => {
            Err(Failure::prompt("it has no address".to_owned()))
        }
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(Failure::prompt(error.to_string())),
        Err(_) => Err(Failure {
            why: format!("no answer within {} s", TIMEOUT.as_secs()),
            lane: Lane::Slow,
        }),
    }
}

fn outcome_of(done: Result<(Id, Outcome), JoinError>) -> (Id, Outcome) {
    match done {
        Ok(done) => done,
        Err(error) => {
            let why = format!("the lookup broke off: {error}");
            (error.id(), Err(Failure::prompt(why)))
        }
    }
}

/// The host names of the current placements, and when each is due.
struct Names {
    by_host: HashMap<Arc<str>, Name>,
    /// The names that are not being looked up now.
    schedule: Schedule<Arc<str>>,
}

struct Name {
    /// All endpoints on this host; they differ in placement, port or scheme.
    endpoints: Vec<Arc<Endpoint>>,
    /// Endpoints of replaced generations without a first lookup; requests may still wait
    /// for that.
    waiting: Vec<Weak<Endpoint>>,
    /// Failed lookups since the last good one.
    failures: u32,
    /// Of the next lookup.
    lane: Lane,
}

impl Names {
    fn new() -> Self {
        Self {
            by_host: HashMap::new(),
            schedule: Schedule::new(CONCURRENT),
        }
    }

    /// Follows new placements: new names are due at once, known names keep their time.
    /// Returns the names that are gone.
    fn adopt(&mut self, placements: &Placements, now: Instant) -> Vec<Arc<str>> {
        for name in self.by_host.values_mut() {
            let unresolved = name
                .endpoints
                .drain(..)
                .filter(|endpoint| endpoint.addresses().state == Resolution::Unresolved);
            name.waiting
                .extend(unresolved.map(|endpoint| Arc::downgrade(&endpoint)));
        }
        for endpoint in endpoints(placements).filter(|endpoint| endpoint.needs_lookup()) {
            let host = endpoint.origin.endpoint.host.as_str();
            match self.by_host.get_mut(host) {
                Some(name) => name.endpoints.push(Arc::clone(endpoint)),
                None => {
                    let host: Arc<str> = host.into();
                    self.schedule.plan(Arc::clone(&host), now, Lane::Prompt);
                    let name = Name {
                        endpoints: vec![Arc::clone(endpoint)],
                        waiting: Vec::new(),
                        failures: 0,
                        lane: Lane::Prompt,
                    };
                    self.by_host.insert(host, name);
                }
            }
        }
        let mut gone = Vec::new();
        let mut hurried = Vec::new();
        for (host, name) in &self.by_host {
            let waited_for = name
                .waiting
                .iter()
                .any(|endpoint| endpoint.strong_count() > 0);
            if name.endpoints.is_empty() && !waited_for {
                gone.push(Arc::clone(host));
            } else if self.schedule.due(host).is_some_and(|due| due > now)
                && name
                    .endpoints
                    .iter()
                    .any(|endpoint| endpoint.addresses().state == Resolution::Unresolved)
            {
                // A new endpoint on a known host: its requests wait for a lookup.
                hurried.push((Arc::clone(host), name.lane));
            }
        }
        for (host, lane) in hurried {
            self.schedule.plan(host, now, lane);
        }
        for host in &gone {
            self.by_host.remove(host);
            self.schedule.remove(host);
        }
        gone
    }
}

/// The number of endpoints in each state, including those that need no lookup.
fn states(placements: &Placements) -> [(Resolution, usize); 3] {
    let mut states = Resolution::ALL.map(|state| (state, 0));
    for endpoint in endpoints(placements) {
        let state = endpoint.addresses().state;
        for (known, count) in &mut states {
            *count += usize::from(*known == state);
        }
    }
    states
}

fn endpoints(placements: &Placements) -> impl Iterator<Item = &Arc<Endpoint>> {
    placements
        .iter()
        .flat_map(|placement| placement.endpoints())
        .map(|(endpoint, _)| endpoint)
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
