//! Where one key goes now, spelled out for a person.

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
    /// Where the key lives.
    pub placement: String,
    pub reason: RouteReason,
    /// The URL of the endpoint that would be chosen now; with none to be
    /// chosen, the first one of the placement.
    #[serde(serialize_with = "display")]
    pub endpoint: Endpoint,
    /// What the placement's endpoints resolve to at the moment.
    pub addresses: Vec<SocketAddr>,
    pub generation: u64,
    pub version: String,
    /// The reason in words that name what it rests on.
    pub why: String,
    /// Whether `addresses` are known, still awaited, or not to be had.
    pub resolution: Resolution,
    /// Why the last lookup of a host failed, if one did.
    pub resolution_error: Option<String>,
    /// The placement that would serve a request now; none if none would. While
    /// its addresses are awaited, a request waits for them.
    pub served_by: Option<String>,
    /// Why that is not `placement`.
    pub failover_reason: Option<FailoverReason>,
    /// The address that would be chosen now.
    pub chosen: Option<SocketAddr>,
    /// Set when `served_by` has as many requests in flight as it may, so that
    /// more are answered 429.
    pub full: Option<Full>,
    /// Every backend that comes into question: those of `placement`, then those
    /// of the fallbacks as far as they are needed. At most 1000.
    pub candidates: Vec<Candidate>,
    /// How many more there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub candidates_omitted: usize,
    /// Endpoints that have no address.
    pub without_address: Vec<WithoutAddress>,
}

/// An endpoint whose host is not known to be anywhere.
#[derive(Clone, Debug, Serialize)]
pub struct WithoutAddress {
    pub placement: String,
    pub endpoint: String,
    pub why: String,
}

/// How many candidates an explanation lists.
const CANDIDATES: usize = 1000;

/// A backend that comes into question for a key.
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

    /// Goes the way that a request would go.
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

/// Of several hosts, the best that can be said.
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
