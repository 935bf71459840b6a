//! What operators are shown of placements, endpoints and backends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde::Serialize;

use super::backend::{Backend, LastFailure, Unusable, uptime};
use super::endpoint::{Endpoint, Resolution};
use super::placement::Placement;
use super::placements::Placements;
use crate::resilience::{BreakerState, Health};
use crate::table::{LoadBalancing, PlacementId};
use crate::telemetry::time::{self, wall};

/// A placement as it is now. As JSON, an entry of `GET /debug/placements`.
#[derive(Clone, Debug, Serialize)]
pub struct PlacementView {
    pub placement: String,
    /// How many keys of the table live here.
    pub keys: usize,
    pub load_balancing: LoadBalancing,
    /// The placement that serves while no backend of this one is usable.
    pub fallback: Option<String>,
    /// Why the placement as a whole serves no requests: `unresolved`, `no_address`,
    /// `unhealthy` or `circuit_open`.
    pub outage: Option<&'static str>,
    /// The placement that serves its requests now, if any.
    pub served_by: Option<String>,
    /// Requests in flight.
    pub in_flight: usize,
    pub concurrency_limit: Option<u32>,
    pub endpoints: Vec<EndpointView>,
}

/// An endpoint of a placement.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointView {
    pub url: String,
    pub weight: u32,
    pub resolution: Resolution,
    /// Why the last lookup of the host failed, if it did.
    pub resolution_error: Option<String>,
    pub backends: Vec<BackendView>,
}

/// One address of an endpoint.
#[derive(Clone, Debug, Serialize)]
pub struct BackendView {
    pub address: SocketAddr,
    /// Whether requests may be sent here.
    pub usable: bool,
    /// Why not, or why other backends are preferred.
    pub why_not: Option<String>,
    /// None without a health check.
    pub health: Option<Health>,
    #[serde(serialize_with = "time::serialize_option")]
    pub health_since: Option<SystemTime>,
    /// The state of the circuit breaker; none without one.
    pub circuit: Option<BreakerState>,
    #[serde(serialize_with = "time::serialize_option")]
    pub circuit_since: Option<SystemTime>,
    pub in_flight: usize,
    pub last_failure: Option<FailureView>,
}

/// The last failure of a backend.
#[derive(Clone, Debug, Serialize)]
pub struct FailureView {
    #[serde(serialize_with = "time::serialize")]
    pub at: SystemTime,
    pub reason: &'static str,
    pub detail: String,
}

/// What a placement has served since it was first named, and serves now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Requests that are over.
    pub requests: u64,
    /// Those of them that were answered with 500 or above.
    pub errors: u64,
    pub in_flight: usize,
}

impl Placements {
    /// The placements as they are now, at most `limit` of them, in the order of the table.
    /// If there are more, those go first that have no backend or one that takes no
    /// requests. `keys` says how many keys live on a placement.
    pub fn views(
        &self,
        limit: usize,
        keys: impl Fn(PlacementId) -> usize,
        now: Instant,
    ) -> Vec<PlacementView> {
        let view = |id| self.view(id, keys(id), now);
        if self.len() <= limit {
            return self.ids().map(view).collect();
        }
        let (well, ailing): (Vec<_>, Vec<_>) = self.ids().partition(|id| {
            let (usable, unusable) = self.get(*id).count_usable(now);
            usable > 0 && unusable == 0
        });
        let ids = ailing.into_iter().chain(well).take(limit);
        ids.map(view).collect()
    }

    /// The placement `id` as it is now, where `keys` keys live.
    pub fn view(&self, id: PlacementId, keys: usize, now: Instant) -> PlacementView {
        let placement = self.get(id);
        let name = |id: PlacementId| self.get(id).state.name.clone();
        PlacementView {
            placement: placement.state.name.clone(),
            keys,
            load_balancing: placement.policy.load_balancing,
            fallback: placement.fallback.map(name),
            outage: placement.outage_now(now).as_str(),
            served_by: self.way(id, now).served_by.map(name),
            in_flight: placement.state.in_flight(),
            concurrency_limit: placement.policy.concurrency_limit,
            endpoints: placement
                .endpoints()
                .iter()
                .map(|(endpoint, weight)| EndpointView::new(placement, endpoint, *weight, now))
                .collect(),
        }
    }

    /// What each placement has served, by its name.
    pub fn traffic(&self) -> impl Iterator<Item = (&str, Traffic)> {
        self.iter().map(|placement| {
            let state = &placement.state;
            let (requests, errors) = state.metrics.requests();
            let traffic = Traffic {
                requests,
                errors,
                in_flight: state.in_flight(),
            };
            (state.name.as_str(), traffic)
        })
    }
}

impl EndpointView {
    fn new(placement: &Placement, endpoint: &Arc<Endpoint>, weight: u32, now: Instant) -> Self {
        let addresses = endpoint.addresses();
        Self {
            url: endpoint.origin.url.clone(),
            weight,
            resolution: addresses.state,
            resolution_error: addresses.error.clone(),
            backends: addresses
                .backends
                .iter()
                .map(|backend| BackendView::new(placement, backend, now))
                .collect(),
        }
    }
}

impl BackendView {
    pub fn new(placement: &Placement, backend: &Backend, now: Instant) -> Self {
        let usable = placement.usable(backend, now);
        let health = placement.policy.health_check.is_some();
        let health = health.then(|| backend.health());
        let guarded = placement.policy.circuit_breaker.is_some();
        let circuit = guarded.then(|| backend.breaker());
        Self {
            address: backend.address,
            usable: usable.is_ok(),
            why_not: why_not(usable, backend, now),
            health: health.map(|(status, _)| status),
            health_since: health.and_then(|(_, since)| since).map(wall),
            circuit: circuit.map(|(state, _)| state),
            circuit_since: circuit.map(|(_, since)| wall(since)),
            in_flight: backend.in_flight(),
            last_failure: backend.last_failure().map(FailureView::from),
        }
    }
}

fn why_not(usable: Result<(), Unusable>, backend: &Backend, now: Instant) -> Option<String> {
    match usable {
        Err(Unusable::Unhealthy) => Some("unhealthy: its health probes fail".to_owned()),
        Err(Unusable::CircuitOpen(_)) if backend.state() == BreakerState::HalfOpen => {
            Some("circuit half-open: one request is finding out".to_owned())
        }
        Err(Unusable::CircuitOpen(left)) => Some(format!(
            "circuit open: the next try is in {:.1} s",
            left.as_secs_f64()
        )),
        Ok(()) if backend.avoided(uptime(now)) => {
            Some("avoided: connecting failed a moment ago".to_owned())
        }
        Ok(()) => None,
    }
}

impl From<LastFailure> for FailureView {
    fn from(failure: LastFailure) -> Self {
        let LastFailure { at, reason, detail } = failure;
        Self { at, reason, detail }
    }
}
