//! What the edge knows of one request while it is under way.

use std::net::SocketAddr;
use std::time::Instant;

use http::HeaderValue;

use super::failure::Failure;
use crate::http::CountGuard;
use crate::resilience::BreakerState;
use crate::table::{PlacementId, Route};
use crate::upstream::{Admitted, Attempt, FailoverReason, Placement, Placements, Rejected};

/// The decision where a request goes, and the placements of the generation it was made in.
/// They are kept until the request is over; the keys of that generation are not.
#[derive(Debug)]
pub(super) struct Target {
    /// The number of that generation.
    pub generation: u64,
    pub placements: Placements,
    /// Where the key lives.
    pub route: Route,
    /// The placement that took the request, and the attempt under way there;
    /// none when none took it.
    pub admitted: Option<Admitted>,
    /// Why none took it.
    pub rejected: Option<Rejected>,
}

impl Target {
    /// The placement that serves the request, or would have.
    pub fn serving(&self) -> PlacementId {
        match (&self.admitted, &self.rejected) {
            (Some(admitted), _) => admitted.placement,
            (None, Some(rejected)) => rejected.placement,
            (None, None) => self.route.placement,
        }
    }

    pub fn placement(&self) -> &Placement {
        self.placements.get(self.serving())
    }

    pub fn placement_name(&self) -> &str {
        &self.placement().state.name
    }

    /// The attempt under way.
    pub fn attempt(&self) -> Option<&Attempt> {
        self.admitted.as_ref()?.attempt.as_ref()
    }

    /// Where the request was last sent to.
    pub fn address(&self) -> Option<SocketAddr> {
        Some(self.admitted.as_ref()?.backend()?.address)
    }

    /// Why another placement than its own serves the request, or would have.
    pub fn failover(&self) -> Option<FailoverReason> {
        match (&self.admitted, &self.rejected) {
            (Some(admitted), _) => admitted.failover,
            (None, Some(rejected)) => rejected.failover,
            (None, None) => None,
        }
    }

    /// What `X-Circuit-State` says.
    pub fn circuit(&self) -> Option<BreakerState> {
        match (&self.admitted, &self.rejected) {
            (Some(admitted), _) => admitted.circuit,
            (None, Some(rejected)) => rejected.circuit,
            (None, None) => None,
        }
    }

    /// The endpoint that the request was last sent to; the placement's first one
    /// when it was sent nowhere.
    pub fn upstream_url(&self) -> &str {
        let backend = self.admitted.as_ref().and_then(Admitted::backend);
        match (backend, self.placement().endpoints()) {
            (Some(backend), _) => &backend.origin.url,
            (None, [(endpoint, _), ..]) => &endpoint.origin.url,
            (None, []) => "",
        }
    }
}

/// One request's state, carried through the phases.
#[derive(Debug)]
pub struct RequestContext {
    pub(super) started: Instant,
    pub(super) request_id: HeaderValue,
    pub(super) target: Option<Target>,
    /// Attempts to reach a cell so far.
    pub(super) attempts: u32,
    /// A kept connection broke under the request, so it is not sent on another.
    pub(super) only_fresh: bool,
    /// The attempt has less time to connect than its placement grants.
    pub(super) hurried: bool,
    /// The header of the attempt's final answer is here, whole and good.
    pub(super) answered: bool,
    /// The failure of an attempt that another one is to follow, in words.
    pub(super) cause: Option<String>,
    /// The first cause, kept while later steps fail because of it.
    pub(super) failure: Option<Failure>,
    /// The cell began to answer the attempt, well or not.
    pub(super) begun: bool,
    /// Gives the request back to the in-flight count, also after a panic.
    _in_flight: CountGuard,
}

impl RequestContext {
    pub(super) fn new(in_flight: CountGuard) -> Self {
        RequestContext {
            started: Instant::now(),
            request_id: HeaderValue::from_static(""),
            target: None,
            attempts: 0,
            hurried: false,
            only_fresh: false,
            answered: false,
            cause: None,
            failure: None,
            begun: false,
            _in_flight: in_flight,
        }
    }

    /// The request id as text; ids are visible ASCII.
    pub(super) fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }

    pub(super) fn attempt_mut(&mut self) -> Option<&mut Attempt> {
        self.admitted_mut()?.attempt.as_mut()
    }

    pub(super) fn admitted_mut(&mut self) -> Option<&mut Admitted> {
        self.target.as_mut()?.admitted.as_mut()
    }
}
