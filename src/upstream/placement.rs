//! A placement of one generation: what the document says of it, and the state that outlives
//! generations.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use http::HeaderValue;

use super::backend::{Attempt, Backend, Unusable, uptime};
use super::endpoint::{Endpoint, Resolution};
use super::placement_state::PlacementState;
use crate::resilience::{Balancer, BreakerState, Member};
use crate::table::{HostHeader, LoadBalancing, PlacementId, Policy};

/// A placement, with all that requests to it need precomputed.
pub struct Placement {
    /// The name, as the value of `X-Routed-To`.
    pub name_header: HeaderValue,
    pub state: Arc<PlacementState>,
    pub policy: Arc<Policy>,
    /// The Host header that cells get, if the policy sets a fixed one.
    pub fixed_host: Option<HeaderValue>,
    /// Where requests go while none of the backends is usable.
    pub fallback: Option<PlacementId>,
    endpoints: Box<[(Arc<Endpoint>, u32)]>,
    snapshot: ArcSwap<Snapshot>,
}

/// The backends of a placement at one time.
struct Snapshot {
    /// [`PlacementState::changes`] at that time.
    change: u64,
    backends: Vec<Arc<Backend>>,
    balancer: Balancer,
}

/// Retry-After for a placement that is full while its breakers recover.
const RECOVERING: Duration = Duration::from_secs(1);

/// Why a placement takes no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// The first lookup of its hosts is pending.
    Unresolved,
    /// None of its hosts has an address.
    NoAddress,
    /// The health probes of its backends fail. Has their interval.
    Unhealthy(Duration),
    /// The circuit breakers of its backends are open, for about this long.
    CircuitOpen(Duration),
    /// There are usable backends, but the request has tried all of them.
    Exhausted,
}

impl Outage {
    /// `unresolved`, `no_address`, `unhealthy` or `circuit_open`; none while a backend is
    /// usable.
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Unresolved => Some("unresolved"),
            Self::NoAddress => Some("no_address"),
            Self::Unhealthy(_) => Some("unhealthy"),
            Self::CircuitOpen(_) => Some("circuit_open"),
            Self::Exhausted => None,
        }
    }
}

impl Placement {
    pub(crate) fn new(
        name_header: HeaderValue,
        state: Arc<PlacementState>,
        policy: Arc<Policy>,
        fallback: Option<PlacementId>,
        endpoints: Box<[(Arc<Endpoint>, u32)]>,
    ) -> Self {
        let snapshot = ArcSwap::from_pointee(Snapshot::take(&state, &endpoints));
        let fixed_host = match &policy.host_header {
            // Documents hold none that is not a header value.
            HostHeader::Fixed(host) => HeaderValue::from_str(host).ok(),
            HostHeader::Preserve | HostHeader::Rewrite => None,
        };
        Self {
            name_header,
            state,
            policy,
            fixed_host,
            fallback,
            endpoints,
            snapshot,
        }
    }

    /// The endpoints in the order of the document, each with its weight.
    pub fn endpoints(&self) -> &[(Arc<Endpoint>, u32)] {
        &self.endpoints
    }

    /// All backends as of now.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        self.snapshot().backends.clone()
    }

    /// Returns when there is a backend, or when all lookups have failed.
    pub async fn first_resolution(&self) {
        let known = || {
            let states = || {
                let endpoints = self.endpoints.iter();
                endpoints.map(|(endpoint, _)| endpoint.addresses().state)
            };
            states().any(|state| state == Resolution::Resolved)
                || states().all(|state| state == Resolution::Failed)
        };
        self.state.addresses_until(known).await;
    }

    fn is_resolved(&self) -> bool {
        self.endpoints
            .iter()
            .any(|(endpoint, _)| endpoint.addresses().state == Resolution::Resolved)
    }

    /// Why the last lookup of an endpoint's host failed, if one did.
    pub fn resolution_error(&self) -> Option<String> {
        let mut endpoints = self.endpoints.iter();
        endpoints.find_map(|(endpoint, _)| endpoint.last_error())
    }

    fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        let snapshot = self.snapshot.load();
        // Addresses are stored a moment before they are announced. Whoever was told of them
        // must find them.
        let announced = snapshot.change == self.state.changes();
        if announced && (!snapshot.backends.is_empty() || !self.is_resolved()) {
            return snapshot;
        }
        // Several threads may do this at once; each result is right.
        let new = Arc::new(Snapshot::take(&self.state, &self.endpoints));
        self.snapshot.store(Arc::clone(&new));
        Guard::from_inner(new)
    }

    /// Begins an attempt at a backend that is not in `tried`. Prefers backends that are not
    /// [avoided](Backend::avoided).
    ///
    /// # Errors
    /// Why there is none to be had.
    pub(crate) fn pick(
        &self,
        key: &[u8],
        tried: &[Arc<Backend>],
        now: Instant,
    ) -> Result<Attempt, Outage> {
        let snapshot = self.snapshot();
        let uptime = uptime(now);
        let breaker = self.policy.circuit_breaker.as_ref();
        let usable = |backend: &Arc<Backend>| {
            self.usable(backend, now).is_ok()
                && !tried.iter().any(|other| Arc::ptr_eq(other, backend))
        };
        for ignore_backoff in [false, true] {
            // A choice fails if another request has taken the only trial of a backend; the
            // next choice leaves that backend out.
            for _ in 0..=snapshot.backends.len() {
                let choice = snapshot.choose(self, key, tried.is_empty(), |backend| {
                    usable(backend) && (ignore_backoff || !backend.avoided(uptime))
                });
                let Some(backend) = choice else { break };
                if let Some(attempt) = backend.begin(breaker, now, ignore_backoff) {
                    return Ok(attempt);
                }
            }
        }
        Err(self.outage(&snapshot, now))
    }

    /// The backend that a request with `key` would be sent to now. Takes nothing and does
    /// not advance the round-robin counter.
    pub(crate) fn would_pick(&self, key: &[u8], now: Instant) -> Option<Arc<Backend>> {
        let snapshot = self.snapshot();
        let uptime = uptime(now);
        [false, true].into_iter().find_map(|ignore_backoff| {
            let choice = snapshot.peek(self, key, |backend| {
                self.usable(backend, now).is_ok() && (ignore_backoff || !backend.avoided(uptime))
            });
            choice.map(Arc::clone)
        })
    }

    /// Whether `backend` is usable under the policy of this generation.
    pub(crate) fn usable(&self, backend: &Backend, now: Instant) -> Result<(), Unusable> {
        backend.usable(
            self.policy.health_check.is_some(),
            self.policy.circuit_breaker.as_ref(),
            now,
        )
    }

    /// The number of usable backends, and of the others.
    pub(crate) fn count_usable(&self, now: Instant) -> (usize, usize) {
        let snapshot = self.snapshot();
        let backends = &snapshot.backends;
        let usable = backends
            .iter()
            .filter(|backend| self.usable(backend, now).is_ok())
            .count();
        (usable, backends.len() - usable)
    }

    /// Whether requests may be retried, so that they count towards the retry budget.
    pub(crate) fn retries(&self) -> bool {
        let retries = &self.policy.retries;
        retries.attempts > 1
            && (retries.on_connect || retries.on_reset)
            && (self.fallback.is_some() || self.snapshot().backends.len() > 1)
    }

    /// Whether there is a usable backend that is not in `tried`.
    pub(crate) fn has_untried(&self, tried: &[Arc<Backend>], now: Instant) -> bool {
        self.snapshot().backends.iter().any(|backend| {
            let known = tried.iter().any(|other| Arc::ptr_eq(other, backend));
            !known && self.usable(backend, now).is_ok()
        })
    }

    /// The outage of a placement that is at its concurrency limit. If its breakers are
    /// half-open and it has a fallback, being full of trial requests counts as an outage.
    pub(crate) fn outage_if_full(&self, now: Instant) -> Outage {
        let snapshot = self.snapshot();
        let outage = self.outage(&snapshot, now);
        let recovering = || {
            let mut usable = snapshot
                .backends
                .iter()
                .filter(|backend| self.usable(backend, now).is_ok());
            self.policy.circuit_breaker.is_some()
                && usable.all(|backend| backend.state() != BreakerState::Closed)
        };
        if outage == Outage::Exhausted && self.fallback.is_some() && recovering() {
            return Outage::CircuitOpen(RECOVERING);
        }
        outage
    }

    /// The outage of the placement as a whole; [`Outage::Exhausted`] if a backend is
    /// usable.
    pub(crate) fn outage_now(&self, now: Instant) -> Outage {
        self.outage(&self.snapshot(), now)
    }

    fn outage(&self, snapshot: &Snapshot, now: Instant) -> Outage {
        if snapshot.backends.is_empty() {
            let awaited = self
                .endpoints
                .iter()
                .any(|(endpoint, _)| endpoint.addresses().state == Resolution::Unresolved);
            return if awaited {
                Outage::Unresolved
            } else {
                Outage::NoAddress
            };
        }
        let mut open: Option<Duration> = None;
        for backend in &snapshot.backends {
            match self.usable(backend, now) {
                Ok(()) => return Outage::Exhausted,
                Err(Unusable::Unhealthy) => {}
                Err(Unusable::CircuitOpen(left)) => {
                    open = Some(open.map_or(left, |open| open.min(left)));
                }
            }
        }
        match (open, &self.policy.health_check) {
            // The breaker is what stands between requests and a backend that
            // answers its probes.
            (Some(left), _) => Outage::CircuitOpen(left),
            (None, Some(check)) => Outage::Unhealthy(check.interval),
            (None, None) => Outage::Exhausted,
        }
    }

    /// The state of the breakers as a whole, for a request that none of them admitted.
    pub(crate) fn circuit(&self) -> BreakerState {
        let snapshot = self.snapshot();
        let mut states = snapshot.backends.iter().map(|backend| backend.state());
        if states.clone().any(|state| state == BreakerState::HalfOpen) {
            BreakerState::HalfOpen
        } else if states.any(|state| state == BreakerState::Open) {
            BreakerState::Open
        } else {
            BreakerState::Closed
        }
    }
}

impl Snapshot {
    fn take(state: &PlacementState, endpoints: &[(Arc<Endpoint>, u32)]) -> Self {
        // Before the addresses: what changes in between is noticed next time.
        let change = state.changes();
        let mut backends = Vec::new();
        let mut members = Vec::new();
        for (endpoint, weight) in endpoints {
            for backend in &endpoint.addresses().backends {
                members.push(Member {
                    weight: *weight,
                    id: backend.id,
                });
                backends.push(Arc::clone(backend));
            }
        }
        Self {
            change,
            balancer: Balancer::new(&members),
            backends,
        }
    }

    /// Retries do not advance the round-robin counter.
    fn choose(
        &self,
        placement: &Placement,
        key: &[u8],
        first: bool,
        usable: impl Fn(&Arc<Backend>) -> bool,
    ) -> Option<&Arc<Backend>> {
        let turn = || match first {
            true => placement.state.next_turn(),
            false => rand::random(),
        };
        self.select(placement.policy.load_balancing, turn, key, usable)
    }

    fn peek(
        &self,
        placement: &Placement,
        key: &[u8],
        usable: impl Fn(&Arc<Backend>) -> bool,
    ) -> Option<&Arc<Backend>> {
        let turn = || placement.state.turn();
        self.select(placement.policy.load_balancing, turn, key, usable)
    }

    fn select(
        &self,
        by: LoadBalancing,
        turn: impl FnOnce() -> u64,
        key: &[u8],
        usable: impl Fn(&Arc<Backend>) -> bool,
    ) -> Option<&Arc<Backend>> {
        let usable = |index: usize| self.backends.get(index).is_some_and(&usable);
        let load = |index: usize| {
            let backend = self.backends.get(index);
            backend.map_or(u64::MAX, |backend| backend.in_flight() as u64)
        };
        let chosen = match by {
            _ if self.backends.len() < 2 => usable(0).then_some(0),
            LoadBalancing::LeastRequest => {
                self.balancer.least_request(rand::random(), usable, load)
            }
            LoadBalancing::RoundRobin => self.balancer.round_robin(turn(), usable),
            LoadBalancing::Hash => self.balancer.hash(key, usable),
        };
        self.backends.get(chosen?)
    }
}

impl std::fmt::Debug for Placement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Placement")
            .field("cell", &self.state)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}
