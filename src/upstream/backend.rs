//! One address of an endpoint: its health, its breaker and its requests in flight.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use pingora_core::upstreams::peer::HttpPeer;

use super::endpoint::Origin;
use crate::resilience::{
    Admission, Avoidance, Breaker, BreakerState, Claim, Fault, Health, HealthState, Ticket,
    member_id,
};
use crate::table::{CircuitBreaker, HealthCheck, Scheme};
use crate::telemetry::metrics::PlacementMetrics;

static SERIAL: AtomicU64 = AtomicU64::new(0);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The time from the start of the process to `now`, as atomics can hold it. The start is
/// the first call; it is zero for what came before that.
pub fn uptime(now: Instant) -> Duration {
    now.saturating_duration_since(*START)
}

/// One socket address of an endpoint. It keeps its state across generations, as long as its
/// placement has the endpoint and the endpoint resolves to the address.
pub struct Backend {
    pub address: SocketAddr,
    /// The same at every edge, for balancing by hash.
    pub(crate) id: u64,
    /// Unique in this process, for its whole life.
    pub(crate) serial: u64,
    /// The endpoint that it is an address of.
    pub origin: Arc<Origin>,
    /// Where transitions are counted.
    metrics: PlacementMetrics,
    /// Every request writes it. The other fields are only read while nothing fails.
    in_flight: CachePadded<AtomicUsize>,
    avoidance: Avoidance,
    breaker: Mutex<Breaker>,
    /// The ticket of [`Breaker::calm`], packed; 0 if there is none. While nothing fails, no
    /// request locks the breaker.
    calm: AtomicU64,
    /// When the breaker opened, in nanoseconds of uptime; 0 while it is not open. Until its
    /// timeout has passed, no request locks it.
    opened: AtomicU64,
    health: Mutex<HealthState>,
    /// What [`HealthState::usable`] says, negated.
    unhealthy: AtomicBool,
    last_failure: Mutex<Option<LastFailure>>,
}

/// The last failure of a backend.
#[derive(Clone, Debug)]
pub struct LastFailure {
    pub at: SystemTime,
    /// The code of an error reply, or `probe` for a failed health probe.
    pub reason: &'static str,
    /// In words, for the operator.
    pub detail: String,
}

/// Why a backend is not usable now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Its health probes fail.
    Unhealthy,
    /// Its circuit breaker is open, for about this long.
    CircuitOpen(Duration),
}

impl Backend {
    pub(crate) fn new(address: SocketAddr, origin: Arc<Origin>, metrics: PlacementMetrics) -> Self {
        let breaker = Breaker::new(Instant::now());
        Self {
            address,
            id: member_id(address),
            serial: SERIAL.fetch_add(1, Relaxed),
            origin,
            metrics,
            in_flight: CachePadded::default(),
            avoidance: Avoidance::default(),
            calm: AtomicU64::new(pack(breaker.calm())),
            opened: AtomicU64::new(0),
            breaker: Mutex::new(breaker),
            health: Mutex::new(HealthState::new()),
            unhealthy: AtomicBool::new(false),
            last_failure: Mutex::new(None),
        }
    }

    /// The peer for Pingora, without timeouts. The SNI of an https endpoint is its host and
    /// never empty: an empty SNI would turn verification off.
    pub fn peer(&self) -> HttpPeer {
        let endpoint = &self.origin.endpoint;
        let tls = endpoint.scheme == Scheme::Https;
        let sni = if tls {
            endpoint.host.clone()
        } else {
            String::new()
        };
        HttpPeer::new(self.address, tls, sni)
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Whether a request may be sent here. Takes nothing. A backend without health check
    /// and breaker is always usable.
    pub(crate) fn usable(
        &self,
        health: bool,
        breaker: Option<&CircuitBreaker>,
        now: Instant,
    ) -> Result<(), Unusable> {
        if health && self.unhealthy.load(Relaxed) {
            return Err(Unusable::Unhealthy);
        }
        let Some(settings) = breaker.filter(|_| self.calm.load(Relaxed) == 0) else {
            return Ok(());
        };
        let opened = self.opened.load(Relaxed);
        if opened != 0 {
            let open = uptime(now).saturating_sub(Duration::from_nanos(opened));
            let left = settings.timeout.saturating_sub(open);
            if !left.is_zero() {
                return Err(Unusable::CircuitOpen(left));
            }
        }
        self.breaker
            .lock()
            .would_admit(settings, now)
            .map_err(Unusable::CircuitOpen)
    }

    /// The state of the breaker. Takes no lock while nothing fails.
    pub(crate) fn state(&self) -> BreakerState {
        match self.calm.load(Relaxed) {
            0 => self.breaker.lock().state(),
            _ => BreakerState::Closed,
        }
    }

    /// Whether connecting failed recently, so that other backends are preferred.
    pub(crate) fn avoided(&self, uptime: Duration) -> bool {
        self.avoidance.avoided(uptime)
    }

    /// Begins an attempt. None if another request has taken the only trial.
    /// `ignore_backoff` begins one even if the pause after a failed connect has not passed.
    pub(crate) fn begin(
        self: &Arc<Self>,
        breaker: Option<&CircuitBreaker>,
        now: Instant,
        ignore_backoff: bool,
    ) -> Option<Attempt> {
        let claim = match self.avoidance.claim(uptime(now)) {
            Some(claim) => claim,
            None if ignore_backoff => Claim::NONE,
            None => return None,
        };
        let (ticket, state) = match breaker {
            None => (None, BreakerState::Closed),
            Some(settings) => match unpack(self.calm.load(Relaxed)) {
                Some(ticket) => (Some(ticket), BreakerState::Closed),
                None => {
                    let mut breaker = self.breaker.lock();
                    match breaker.admit(settings, now) {
                        Admission::Refused { .. } => {
                            self.avoidance.give_back(claim, uptime(now));
                            return None;
                        }
                        Admission::Admitted { ticket, transition } => {
                            let state = breaker.state();
                            self.publish(&breaker, transition);
                            (Some(ticket), state)
                        }
                    }
                }
            },
        };
        self.in_flight.fetch_add(1, Relaxed);
        Some(Attempt {
            backend: Arc::clone(self),
            breaker: breaker.copied(),
            ticket,
            claim,
            state,
        })
    }

    /// Publishes the state of the breaker to those who do not lock it.
    fn publish(&self, breaker: &Breaker, transition: Option<BreakerState>) {
        self.calm.store(pack(breaker.calm()), Relaxed);
        let opened = match breaker.state() {
            BreakerState::Open => uptime(breaker.since()).as_nanos().max(1),
            BreakerState::Closed | BreakerState::HalfOpen => 0,
        };
        let opened = u64::try_from(opened).unwrap_or(u64::MAX);
        self.opened.store(opened, Relaxed);
        if let Some(state) = transition {
            self.metrics.breaker_turned(state.as_str());
            log::warn!(
                target: "cellgate::upstream",
                endpoint = &*self.origin.url, address:% = self.address;
                "circuit breaker {}", state.as_str()
            );
        }
    }

    /// Records the outcome of a health probe: why it failed, if it did.
    pub(crate) fn probed(
        &self,
        outcome: Result<(), String>,
        settings: &HealthCheck,
        now: Instant,
        wall: SystemTime,
    ) {
        // Before the state changes, so that whoever sees the change also sees its reason.
        if let Err(detail) = &outcome {
            self.note(LastFailure {
                at: wall,
                reason: "probe",
                detail: detail.clone(),
            });
        }
        let turned = {
            let mut health = self.health.lock();
            let turned = health.observe(outcome.is_ok(), settings, now);
            self.unhealthy.store(!health.usable(), Relaxed);
            turned
        };
        self.metrics.probed(outcome.is_ok());
        let (endpoint, address) = (&*self.origin.url, self.address);
        match (turned, &outcome) {
            (Some(Health::Unhealthy), Err(why)) => {
                log::warn!(target: "cellgate::upstream", endpoint, address:%; "unhealthy: {why}");
            }
            (Some(turned), _) => {
                log::info!(target: "cellgate::upstream", endpoint, address:%; "{}", turned.as_str());
            }
            (None, _) => {}
        }
        if let Some(turned) = turned {
            self.metrics.health_turned(turned.as_str());
        }
    }

    /// Records that this backend is no longer probed.
    pub(crate) fn unprobed(&self) {
        let mut health = self.health.lock();
        health.reset();
        self.unhealthy.store(false, Relaxed);
    }

    fn note(&self, failure: LastFailure) {
        *self.last_failure.lock() = Some(failure);
    }

    /// The last failure, if there was one.
    pub fn last_failure(&self) -> Option<LastFailure> {
        self.last_failure.lock().clone()
    }

    /// The state of its health, and since when.
    pub fn health(&self) -> (Health, Option<Instant>) {
        let health = self.health.lock();
        (health.status(), health.since())
    }

    /// The state of its breaker, and since when.
    pub fn breaker(&self) -> (BreakerState, Instant) {
        let breaker = self.breaker.lock();
        (breaker.state(), breaker.since())
    }
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend")
            .field("address", &self.address)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

fn pack(ticket: Option<Ticket>) -> u64 {
    ticket.map_or(0, Ticket::to_bits)
}

fn unpack(bits: u64) -> Option<Ticket> {
    (bits != 0).then(|| Ticket::from_bits(bits))
}

/// One attempt of a request at a backend. Dropping it without an outcome says nothing about
/// the backend: the client left, or the attempt was not made.
#[derive(Debug)]
pub struct Attempt {
    backend: Arc<Backend>,
    breaker: Option<CircuitBreaker>,
    /// None without a breaker, and after the outcome was recorded.
    ticket: Option<Ticket>,
    /// The trial of an avoided backend, until its outcome is known.
    claim: Claim,
    /// The breaker's state when the attempt was admitted.
    pub state: BreakerState,
}

impl Attempt {
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Records that connecting succeeded.
    pub fn connected(&mut self) {
        self.claim = Claim::NONE;
        self.backend.avoidance.connected();
    }

    /// Records that connecting failed. Other backends are preferred for a while.
    pub fn connect_failed(&mut self, now: Instant, failure: LastFailure) {
        self.claim = Claim::NONE;
        self.backend.avoidance.failed(uptime(now));
        self.failed(Fault::NoAnswer, now, failure);
    }

    /// Records that the header of a response without a server error has arrived.
    pub fn answered(&mut self) {
        // Also on a pooled connection: a backend that answers can be reached.
        self.connected();
        if let Some(ticket) = self.unless_calm() {
            let mut breaker = self.backend.breaker.lock();
            let (ticket, turned) = breaker.answered(ticket, Instant::now());
            self.ticket = Some(ticket);
            self.backend.publish(&breaker, turned);
        }
    }

    /// Records that the header of a response with a server error (5xx) has arrived.
    pub fn answered_badly(&mut self, status: u16) {
        let failure = LastFailure {
            at: SystemTime::now(),
            reason: "server_error",
            detail: format!("answered {status}"),
        };
        self.failed(Fault::NoAnswer, Instant::now(), failure);
    }

    /// Records that the exchange ended in order.
    pub fn completed(&mut self) {
        if let Some(ticket) = self.unless_calm() {
            let mut breaker = self.backend.breaker.lock();
            let turned = breaker.completed(ticket, Instant::now());
            self.backend.publish(&breaker, turned);
        }
        self.ticket = None;
    }

    /// Records a failure that the client did not cause.
    pub fn failed(&mut self, fault: Fault, now: Instant, failure: LastFailure) {
        self.backend.note(failure);
        if let (Some(settings), Some(ticket)) = (&self.breaker, self.ticket.take()) {
            let mut breaker = self.backend.breaker.lock();
            let turned = breaker.failed(settings, ticket, fault, now);
            self.backend.publish(&breaker, turned);
        }
    }

    /// The ticket, if reporting success could change the breaker.
    fn unless_calm(&self) -> Option<Ticket> {
        self.ticket
            .filter(|ticket| self.backend.calm.load(Relaxed) != ticket.to_bits())
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.backend.in_flight.fetch_sub(1, Relaxed);
        if self.claim.is_trial() {
            let now = uptime(Instant::now());
            self.backend.avoidance.give_back(self.claim, now);
        }
        if let Some(ticket) = self.unless_calm() {
            let mut breaker = self.backend.breaker.lock();
            breaker.abandoned(ticket);
            self.backend.publish(&breaker, None);
        }
    }
}
