//! The running edge's state: which routing table requests read, and what the
//! edge knows about the cells in it.
//!
//! Requests read one pointer ([`Live::current`]) and keep what they got: one
//! request, one [`Generation`]. Every change, whatever its source, goes through
//! the one writer, [`Live::apply`] or [`Live::push`]. What did not change keeps its state: a
//! [`Cell`] lives as long as generations name its endpoint.
//!
//! `proxy`, `source`, `admin` and `cli` import this folder; it imports
//! `routing` and `telemetry`.

mod admit;
mod apply;
mod backend;
mod cell;
mod clock;
mod connection;
mod endpoint;
mod explain;
mod gauges;
mod generation;
mod memory;
mod placement;
mod probe;
mod prober;
mod push;
mod resolver;
mod restore;
mod retire;
mod schedule;
mod status;
mod traffic;
mod view;

#[cfg(test)]
mod tests;

pub use admit::{Admitted, Cause, FailoverReason, Rejected, Unresolved};
pub use apply::{Applied, Live, LiveOptions};
pub use backend::{Attempt, Backend, LastFailure, Unusable};
pub use cell::{Cell, Slot};
pub use clock::{uptime, wall};
pub use connection::{Connection, ConnectionError, ConnectionState, ConnectionStatus};
pub use endpoint::{Addresses, LiveEndpoint, Origin, Resolution};
pub use explain::{Candidate, Full, LiveExplanation, WithoutAddress};
pub use generation::{Generation, Sha256, Source};
pub use memory::{Fallback, Memory, MemoryOptions, MemoryStatus};
pub use placement::{LivePlacement, Outage};
pub use probe::{HttpProbe, Probe, Probed};
pub use prober::Prober;
pub use push::{Push, PushLimits, Pushed};
pub use resolver::{Lookup, Resolver, SystemLookup};
pub use status::{ConfigStatus, LastError};
pub use traffic::Traffic;
pub use view::{BackendView, EndpointView, FailureView, PlacementView};
