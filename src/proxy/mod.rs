//! What the edge decides about a request, and the engines that carry it out.
//!
//! `decide` judges a request and finds the cell that takes it, `attempt` finds the backend
//! for each attempt and says what follows when one fails, `headers` says how heads change on
//! the way, `reply` makes the edge's own answers. They are asked by every engine and know
//! none. `pingora` is an engine: only it knows Pingora's request types.
//!
//! Imported by `cli`, which wires it, and by nothing else. It imports `exchange`, `state` and
//! what those import.

mod attempt;
mod decide;
mod headers;
mod pingora;
mod reply;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::header::HeaderName;
use ipnet::IpNet;

use crate::exchange::{Recorder, Timeouts};
use crate::http::Lifecycle;
use crate::state::EdgeState;
use crate::telemetry::{AccessLog, Metrics};

/// How the proxy routes and for how long it waits.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The request header that carries the routing key.
    pub routing_key: HeaderName,
    /// Proxies in front of the edge whose `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Those of requests to placements that have none of their own.
    pub timeouts: Timeouts,
    /// Attempts of one request in all, whatever policies allow. Repeating one because a kept
    /// connection broke is not among them.
    pub max_attempts: u32,
    /// Whether `/debug/config` is answered on the proxy's own listeners.
    pub debug_config: bool,
}

/// The data plane.
pub struct EdgeProxy {
    config: ProxyConfig,
    state: Arc<EdgeState>,
    lifecycle: Arc<Lifecycle>,
    recorder: Arc<Recorder>,
}

impl EdgeProxy {
    /// A proxy that routes by the current table of `state`.
    pub fn new(
        config: ProxyConfig,
        state: Arc<EdgeState>,
        lifecycle: Arc<Lifecycle>,
        metrics: Arc<Metrics>,
        access_log: AccessLog,
    ) -> Self {
        EdgeProxy {
            config,
            state,
            lifecycle,
            recorder: Arc::new(Recorder {
                metrics,
                access_log,
            }),
        }
    }
}
