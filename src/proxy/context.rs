//! What the edge knows of one request while it is under way.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;

use super::failure::Failure;
use crate::lifecycle::CountGuard;
use crate::live::{Generation, LivePlacement};
use crate::routing::Route;

/// The decision where a request goes, and the generation it was made in. The
/// generation stays pinned until the request is over.
#[derive(Debug)]
pub(super) struct Target {
    pub generation: Arc<Generation>,
    pub route: Route,
    /// Where in the cell's addresses this request begins.
    pub rotation: usize,
}

impl Target {
    pub fn placement(&self) -> &LivePlacement {
        self.generation.live_placement(self.route.placement)
    }

    pub fn placement_name(&self) -> &str {
        &self.generation.table.placement(self.route.placement).name
    }
}

/// One request's state, carried through the phases.
#[derive(Debug)]
pub struct RequestContext {
    pub(super) started: Instant,
    pub(super) request_id: HeaderValue,
    pub(super) target: Option<Target>,
    /// Attempts to reach the cell so far.
    pub(super) attempts: usize,
    /// The first cause, kept while later steps fail because of it.
    pub(super) failure: Option<Failure>,
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
            failure: None,
            _in_flight: in_flight,
        }
    }

    /// The request id as text; ids are visible ASCII.
    pub(super) fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }
}
