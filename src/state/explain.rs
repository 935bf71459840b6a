//! Where a key goes now, and why: `GET /debug/route`.

use std::net::SocketAddr;
use std::time::Instant;

use serde::{Serialize, Serializer};

use super::failure::is_zero;
use super::generation::Generation;
use crate::table::{Endpoint, PlacementId, RouteReason};
use crate::upstream::{BackendView, FailoverReason, Full, Placement, Resolution};

/// Where a key goes now. As JSON, the body of `GET /debug/route`.
#[derive(Clone, Debug, Serialize)]
pub struct RouteExplanation {
    pub key: String,
    /// The placement of the key.
    pub placement: String,
    pub reason: RouteReason,
    /// The URL of the endpoint that would be chosen now; if none would, the first one of the
    /// placement.
    #[serde(serialize_with = "display")]
    pub endpoint: Endpoint,
    /// What the placement's endpoints resolve to now.
    pub addresses: Vec<SocketAddr>,
    pub generation: u64,
    pub version: String,
    /// The reason in words.
    pub why: String,
    /// Whether the first lookup of `addresses` has succeeded, is pending, or has failed.
    pub resolution: Resolution,
    /// Why the last lookup of a host failed, if one did.
    pub resolution_error: Option<String>,
    /// The placement that would serve a request now; none if none would. While its first
    /// lookup is pending, a request waits for it.
    pub served_by: Option<String>,
    /// Why that is not `placement`.
    pub failover_reason: Option<FailoverReason>,
    /// The address that would be chosen now.
    pub chosen: Option<SocketAddr>,
    /// Set when `served_by` is at its limit of requests in flight, so that further requests
    /// get 429.
    pub full: Option<Full>,
    /// The backends of `placement`, then those of the fallbacks that a request would reach.
    /// At most 1000.
    pub candidates: Vec<Candidate>,
    /// How many more candidates there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub candidates_omitted: usize,
    /// Endpoints without an address.
    pub without_address: Vec<WithoutAddress>,
}

/// An endpoint whose host has no known address.
#[derive(Clone, Debug, Serialize)]
pub struct WithoutAddress {
    pub placement: String,
    pub endpoint: String,
    pub why: String,
}

/// Most candidates that an explanation lists.
const CANDIDATES: usize = 1000;

/// A backend that may serve a key.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    pub placement: String,
    pub endpoint: String,
    #[serde(flatten)]
    pub backend: BackendView,
}

impl RouteExplanation {
    pub(crate) fn new(generation: &Generation, key: &str, now: Instant) -> Self {
        let explanation = generation.table.explain(key);
        let home = generation.table.route(key.as_bytes()).placement;
        let own = generation.placements.get(home);
        let mut shown = Self {
            key: explanation.key,
            placement: explanation.placement,
            reason: explanation.reason,
            endpoint: explanation.endpoint,
            addresses: own
                .backends()
                .iter()
                .map(|backend| backend.address)
                .collect(),
            generation: generation.number,
            version: explanation.version,
            why: explanation.why,
            resolution: resolution(own),
            resolution_error: own.resolution_error(),
            served_by: None,
            failover_reason: None,
            chosen: None,
            full: None,
            candidates: Vec::new(),
            candidates_omitted: 0,
            without_address: Vec::new(),
        };
        shown.follow(generation, home, key, now);
        shown
    }

    /// Follows the way of a request.
    fn follow(&mut self, generation: &Generation, home: PlacementId, key: &str, now: Instant) {
        let way = generation.placements.way(home, now);
        let name = |id: PlacementId| &generation.table.placement(id).name;
        for id in &way.asked {
            let placement = generation.placements.get(*id);
            for (endpoint, _) in placement.endpoints() {
                let addresses = endpoint.addresses();
                if addresses.backends.is_empty() {
                    self.without_address.push(WithoutAddress {
                        placement: name(*id).clone(),
                        endpoint: endpoint.origin.url.clone(),
                        why: addresses.error.clone().unwrap_or_else(|| {
                            "the first lookup of its host is not back yet".to_owned()
                        }),
                    });
                }
                for backend in &addresses.backends {
                    if self.candidates.len() == CANDIDATES {
                        self.candidates_omitted += 1;
                        continue;
                    }
                    self.candidates.push(Candidate {
                        placement: name(*id).clone(),
                        endpoint: endpoint.origin.url.clone(),
                        backend: BackendView::new(placement, backend, now),
                    });
                }
            }
        }
        self.failover_reason = way.failover;
        let Some(id) = way.served_by else { return };
        self.served_by = Some(name(id).clone());
        let placement = generation.placements.get(id);
        self.full = placement.full();
        let chosen = placement.would_pick(key.as_bytes(), now);
        self.chosen = chosen.as_ref().map(|backend| backend.address);
        if let Some(backend) = chosen.filter(|_| id == home) {
            self.endpoint = backend.origin.endpoint.clone();
        }
    }
}

/// The best of the states of the placement's endpoints.
fn resolution(placement: &Placement) -> Resolution {
    let states = placement
        .endpoints()
        .iter()
        .map(|(endpoint, _)| endpoint.addresses().state);
    let best = |state: &Resolution| match state {
        Resolution::Resolved => 0,
        Resolution::Unresolved => 1,
        Resolution::Failed => 2,
    };
    states.min_by_key(best).unwrap_or(Resolution::Failed)
}

fn display<S: Serializer>(
    value: &impl std::fmt::Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
