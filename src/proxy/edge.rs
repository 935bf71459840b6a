//! What the proxy decides by, and its first decisions: where a request goes, and
//! whether it is refused.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::{EXPECT, HeaderName};
use http::{StatusCode, Version};
use ipnet::IpNet;
use log::debug;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use super::context::{RequestContext, Target};
use super::failure::Failure;
use super::{checks, fields, reply};
use crate::http::ClientConn;
use crate::http::Lifecycle;
use crate::state::EdgeState;
use crate::telemetry::{AccessLog, Metrics};

/// How the proxy routes and for how long it waits.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The request header that carries the routing key.
    pub routing_key: HeaderName,
    /// Proxies in front of us whose `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// For connecting to a cell: its name, TCP and TLS.
    pub connect: Duration,
    /// Longest time without a byte in either direction.
    pub stream_idle: Duration,
    /// From the request read whole to the response's header, one attempt.
    pub response_header: Duration,
    /// The same for all attempts together.
    pub request: Duration,
    /// For an idle connection to a cell.
    pub upstream_idle: Duration,
    /// Attempts of one request in all, whatever policies allow. The one to send
    /// it again after a kept connection broke is not among them.
    pub max_attempts: u32,
    /// Whether `/debug/config` is answered on the proxy's own listeners.
    pub debug_config: bool,
}

/// The data plane.
pub struct EdgeProxy {
    pub(super) config: ProxyConfig,
    pub(super) state: Arc<EdgeState>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) access_log: AccessLog,
}

impl EdgeProxy {
    /// A proxy that routes by whatever table `live` holds.
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
            metrics,
            access_log,
        }
    }

    /// The request's routing key.
    pub(super) fn key<'s>(&self, session: &'s Session) -> Result<&'s [u8], Failure> {
        let headers = &session.req_header().headers;
        let mut keys = fields::all(headers, &self.config.routing_key);
        let key = keys.next().map(HeaderValue::as_bytes).unwrap_or_default();
        if keys.next().is_some() {
            return Err(Failure::AMBIGUOUS_KEY);
        }
        if key.is_empty() {
            return Err(Failure::MISSING_KEY);
        }
        Ok(key)
    }

    /// Decides where a request of `key` goes, in the generation of this moment.
    pub(super) fn route(&self, key: &[u8]) -> Result<Target, Failure> {
        let target = self.state.read(|generation| Target {
            generation: generation.number,
            placements: generation.placements.clone(),
            route: generation.table.route(key),
            admitted: None,
            rejected: None,
        });
        target.ok_or(Failure::NOT_READY)
    }

    /// What the connection or the header says against the request.
    pub(super) fn refused(&self, session: &Session) -> Option<Failure> {
        let refusal = conn(session)
            .and_then(ClientConn::refusal)
            .map(Failure::of_refusal);
        let options = || {
            let headers = &session.req_header().headers;
            let allowed = checks::connection_options_allowed(headers, &self.config.routing_key);
            (!allowed).then_some(Failure::BAD_REQUEST)
        };
        refusal.or_else(options)
    }

    /// Answers a request that goes to no cell. Not an error for the proxy
    /// library, which would close the connection: a client that forgot a header
    /// may go on using it, unless it has a body under way.
    pub(super) async fn refuse(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        failure: Failure,
    ) -> pingora::Result<bool> {
        ctx.failure = Some(failure);
        if let Some(conn) = conn(session)
            && let Some(refusal) = conn.refusal()
        {
            let client = conn.peer();
            debug!(request_id = ctx.request_id(), client:%; "request refused: {refusal:?}");
            session.set_keepalive(None);
        }
        reply::failure(session, ctx, failure).await?;
        Ok(true)
    }

    /// Answers `/debug/config`.
    pub(super) async fn show_config(
        &self,
        session: &mut Session,
        ctx: &RequestContext,
    ) -> pingora::Result<bool> {
        // Where the control plane is, is no client's business.
        let mut status = self.state.status();
        status.control_plane = None;
        let status = serde_json::to_string(&status).unwrap_or_default();
        let header = ResponseHeader::build(StatusCode::OK, Some(4))?;
        reply::json(session, ctx, header, status).await?;
        Ok(true)
    }
}

/// The connection under the session. Every session of our listeners has one.
pub(super) fn conn(session: &Session) -> Option<&ClientConn> {
    session.downstream_session.stream()?.as_any().downcast_ref()
}

/// What the client's version and its `Expect` mean for the exchange.
pub(super) fn prepare_exchange(session: &mut Session) {
    if session.req_header().version == Version::HTTP_10 {
        // RFC 9110 §15.2: it would take a 1xx for the answer.
        session.set_ignore_info_resp(true);
    } else if fields::has(&session.req_header().headers, &EXPECT)
        && let Some(conn) = conn(session)
    {
        conn.expects_continue();
    }
}

/// Whether the answer itself has begun, and not only a 1xx before it.
pub(super) fn answered(session: &Session) -> Option<StatusCode> {
    let status = session.response_written()?.status;
    (!status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS).then_some(status)
}
