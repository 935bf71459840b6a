//! The cells as they are now: placements, their endpoints and backends, which of them can
//! serve a request, and the tasks that find out (DNS lookups and health probes).
//!
//! Their state outlives generations, so that what a reload does not change keeps its health,
//! its breakers and its count of requests in flight. [`Registry`] sees to that.
//!
//! `state`, `exchange`, `proxy`, `source`, `admin` and `cli` import this folder; it imports `table`, `resilience` and
//! `telemetry`.

mod admit;
mod backend;
mod endpoint;
mod placement;
mod placement_state;
mod placements;
mod probe;
mod prober;
mod resolver;
mod schedule;
mod view;

#[cfg(test)]
mod tests;

pub use admit::{Admitted, Cause, FailoverReason, Full, Rejected, Unresolved, Way};
pub use backend::{Attempt, Backend, LastFailure, Unusable, uptime};
pub use endpoint::{Addresses, Endpoint, Origin, Resolution};
pub use placement::{Outage, Placement};
pub use placement_state::{PlacementState, Slot};
pub use placements::{Placements, Registry};
pub use probe::{HttpProbe, Probe, Probed};
pub use prober::Prober;
pub use resolver::{Lookup, Resolver, SystemLookup};
pub use view::{BackendView, EndpointView, FailureView, PlacementView, Traffic};
