//! The control plane: stores the generations of the routing document, accepts changes, and pushes
//! them to all edges.
//!
//! - [`store`] keeps generations: the [`Store`](store::Store) trait and its implementations.
//! - [`core`] has the newest generation in memory, the one way to change it, and the state of the
//!   edges.
//! - [`connect`] serves the connections of edges, and pushes changes to them.
//! - [`api`] is the REST API.
//! - [`mirror`] keeps the routing file, which operators read and edit, in sync.
//! - `document` writes a table as a document.
//! - [`access`] is authorization.
//! - [`server`] is the HTTP server that joins all routes.
//! - [`metrics`] and [`settings`] are those of the control plane.
//!
//! Imports `table`, `protocol`, `telemetry`, `files` and the generic parts of `settings`, and nothing
//! of the data plane. Only `cli` imports this folder.

pub mod access;
pub mod api;
pub mod connect;
pub mod core;
mod document;
pub mod metrics;
pub mod mirror;
pub mod server;
pub mod settings;
pub mod store;

use std::net::SocketAddr;
use std::sync::Arc;

use self::access::Access;
use self::api::RequestLimits;
use self::connect::Limits;
use self::core::{Edges, Truth};
use self::metrics::ControlMetrics;
use self::mirror::RoutingFile;
use crate::protocol::SnapshotLimits;

/// The state that all parts of a running control plane share.
#[derive(Clone)]
pub struct Control {
    /// The name of this control plane: 1 to 128 bytes of printable ASCII without spaces.
    pub id: Arc<str>,
    pub truth: Arc<Truth>,
    pub edges: Arc<Edges>,
    pub access: Arc<Access>,
    pub metrics: Arc<ControlMetrics>,
    /// Limits and intervals for edges.
    pub limits: Limits,
    /// Largest routing document that is accepted, in bytes.
    pub document_bytes: u64,
    /// Whether the API listens on a loopback address.
    pub local: bool,
    /// Bounds the requests that need much memory.
    pub request_limits: Arc<RequestLimits>,
    /// The routing file, if there is one.
    pub file: Option<Arc<RoutingFile>>,
}

impl Control {
    /// With new metrics, default limits, no routing file and no edges.
    pub fn new(id: &str, truth: Arc<Truth>, access: Access) -> Self {
        Self {
            id: id.into(),
            metrics: Arc::new(ControlMetrics::new(Arc::clone(&truth))),
            edges: Edges::new(Arc::clone(&truth)),
            truth,
            access: Arc::new(access),
            document_bytes: SnapshotLimits::default().bytes,
            local: false,
            request_limits: Arc::default(),
            file: None,
            limits: Limits::default(),
        }
    }
}

/// The client of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// The common name of the client's certificate, if it sent a valid one.
    pub certificate: Option<String>,
}
