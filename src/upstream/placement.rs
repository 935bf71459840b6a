//! A placement of one generation: what the document says of it, bound to what
//! the edge knows of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use http::HeaderValue;

use super::backend::{Attempt, Backend, Unusable, uptime};
use super::endpoint::{Endpoint, Resolution};
use super::placement_state::PlacementState;
use crate::resilience::{Balancer, BreakerState, Member};
use crate::table::{HostHeader, LoadBalancing, PlacementId, Policy};

/// A placement, with everything that a request to it would otherwise have to
/// put together.
pub struct Placement {
    /// The value of `X-Routed-To`.
    pub name_header: HeaderValue,
    pub state: Arc<PlacementState>,
    pub policy: Arc<Policy>,
    /// The Host that cells get, where the policy fixes one.
    pub fixed_host: Option<HeaderValue>,
    /// Where requests go while none of the backends is usable.
    pub fallback: Option<PlacementId>,
    endpoints: Box<[(Arc<Endpoint>, u32)]>,
    snapshot: ArcSwap<Snapshot>,
}

/// The backends of a placement as of one moment.
struct Snapshot {
    /// [`PlacementState::changes`] when it was taken.
    change: u64,
    backends: Vec<Arc<Backend>>,
    balancer: Balancer,
}

/// When to come back to a placement that is full while it recovers.
const RECOVERING: Duration = Duration::from_secs(1);

/// Why a placement takes no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// The first lookup of its hosts is not back yet.
    Unresolved,
    /// None of its hosts has an address.
    NoAddress,
    /// The health probes of its backends fail; they are made so often.
    Unhealthy(Duration),
    /// Circuit breakers keep requests from its backends, for about this long.
    CircuitOpen(Duration),
    /// All backends that can be used were tried by this request.
    Exhausted,
}

impl Outage {
    /// `unresolved`, `no_address`, `unhealthy` or `circuit_open`; none while a
    /// backend takes requests.
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

    /// Every backend there is now.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        self.snapshot().backends.clone()
    }

    /// Returns when there is a backend, or no lookup left that could find one.
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

    /// Why an endpoint's host could not be looked up, if one could not.
    pub fn resolution_error(&self) -> Option<String> {
        let mut endpoints = self.endpoints.iter();
        endpoints.find_map(|(endpoint, _)| endpoint.last_error())
    }

    fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        let snapshot = self.snapshot.load();
        // Addresses are there a moment before they are announced, and whoever
        // was told that they are must not find none.
        let announced = snapshot.change == self.state.changes();
        if announced && (!snapshot.backends.is_empty() || !self.is_resolved()) {
            return snapshot;
        }
        // Others may be at the same; any of them is right.
        let new = Arc::new(Snapshot::take(&self.state, &self.endpoints));
        self.snapshot.store(Arc::clone(&new));
        Guard::from_inner(new)
    }

    /// Begins an attempt at a backend that is not among `tried`: one that is
    /// not [avoided](Backend::avoided), if there is one.
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
        for however in [false, true] {
            // A choice fails when another request took the one place that a
            // backend had, and then it is no choice any more.
            for _ in 0..=snapshot.backends.len() {
                let choice = snapshot.choose(self, key, tried.is_empty(), |backend| {
                    usable(backend) && (however || !backend.avoided(uptime))
                });
                let Some(backend) = choice else { break };
                if let Some(attempt) = backend.begin(breaker, now, however) {
                    return Ok(attempt);
                }
            }
        }
        Err(self.outage(&snapshot, now))
    }

    /// The backend that a request with `key` would be sent to now.
    pub(crate) fn would_pick(&self, key: &[u8], now: Instant) -> Option<Arc<Backend>> {
        let snapshot = self.snapshot();
        let uptime = uptime(now);
        [false, true].into_iter().find_map(|however| {
            let choice = snapshot.peek(self, key, |backend| {
                self.usable(backend, now).is_ok() && (however || !backend.avoided(uptime))
            });
            choice.map(Arc::clone)
        })
    }

    /// Whether `backend` takes requests as far as this generation is concerned.
    pub(crate) fn usable(&self, backend: &Backend, now: Instant) -> Result<(), Unusable> {
        backend.usable(
            self.policy.health_check.is_some(),
            self.policy.circuit_breaker.as_ref(),
            now,
        )
    }

    /// How many of the backends may be used, and how many may not.
    pub(crate) fn count_usable(&self, now: Instant) -> (usize, usize) {
        let snapshot = self.snapshot();
        let backends = &snapshot.backends;
        let usable = backends
            .iter()
            .filter(|backend| self.usable(backend, now).is_ok())
            .count();
        (usable, backends.len() - usable)
    }

    /// Whether a request may come to a second attempt, so that it counts for the
    /// retry budget.
    pub(crate) fn retries(&self) -> bool {
        let retries = &self.policy.retries;
        retries.attempts > 1
            && (retries.on_connect || retries.on_reset)
            && (self.fallback.is_some() || self.snapshot().backends.len() > 1)
    }

    /// Whether there is a usable backend that is not among `tried`.
    pub(crate) fn has_untried(&self, tried: &[Arc<Backend>], now: Instant) -> bool {
        self.snapshot().backends.iter().any(|backend| {
            let known = tried.iter().any(|other| Arc::ptr_eq(other, backend));
            !known && self.usable(backend, now).is_ok()
        })
    }

    /// What keeps requests from a placement that has as many as it may. While
    /// it is not known whether its backends work again, being full of requests
    /// that find out is an outage, for those that have a fallback.
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

    /// What keeps requests from this placement as a whole;
    /// [`Outage::Exhausted`] if nothing does.
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

    /// What the breakers say of the placement as a whole, for a request that
    /// none of them admitted.
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

    /// What is tried again takes nobody's turn.
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
