//! The control plane: keeps the truth about which tenant lives where, takes
//! changes to it, and pushes every one of them to all edges.
//!
//! - [`store`] is where generations are kept: the [`Store`](store::Store) trait and
//!   what implements it.
//! - [`core`] is the newest generation in memory, the one way to change it, and
//!   what is known of the edges.
//! - [`connect`] is where edges connect and are pushed what they lack.
//! - `document` writes a table for people.
//! - [`mirror`] is the routing file that people read and edit.
//! - [`access`] says who may do what.
//! - [`server`] listens and puts the routes of all parts together; [`tls`] and
//!   [`metrics`] are what it does so with, [`settings`] what it is told.
//! - [`places`] says how many connections there may be, and whose.
//! - [`api`] is REST.
//!
//! Imports `routing`, `protocol`, `telemetry`, `files` and the parts of `settings`
//! that read any settings, and nothing of the data plane but a value type;
//! only `cli` imports this.

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

/// What every part of a running control plane shares.
#[derive(Clone)]
pub struct Control {
    /// Which control plane this is, for edges and operators: 1 to 128 bytes of
    /// printable ASCII without spaces.
    pub id: Arc<str>,
    pub truth: Arc<Truth>,
    pub edges: Arc<Edges>,
    pub access: Arc<Access>,
    pub metrics: Arc<ControlMetrics>,
    /// How many edges there may be, and how they are held.
    pub limits: Limits,
    /// Largest routing document that is taken, in bytes.
    pub document_bytes: u64,
    /// Whether it listens on a loopback address.
    pub local: bool,
    /// Bounds the requests that need much memory.
    pub request_limits: Arc<RequestLimits>,
    /// The routing file, where there is one.
    pub file: Option<Arc<RoutingFile>>,
}

impl Control {
    /// With metrics of its own, the limits that are the default, no routing file and
    /// no edges.
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

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// The common name of the client's certificate, if it sent one that is valid.
    pub certificate: Option<String>,
}
