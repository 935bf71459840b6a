//! How a request ended, judged once and told to the log, the access log and the
//! metrics.

use http::HeaderValue;
use log::{debug, warn};
use pingora::Error;
use pingora_proxy::Session;

use super::context::{RequestContext, Target};
use super::edge::{EdgeProxy, answered, conn};
use super::failure::Failure;
use crate::http::ClientConn;
use crate::telemetry::AccessRecord;
use crate::upstream::FailoverReason;

impl EdgeProxy {
    /// Which failure an error of the exchange amounts to. What the connection
    /// saw comes first: to the proxy library a passed deadline is only a client
    /// that could not be read.
    pub(super) fn judge(&self, session: &Session, ctx: &RequestContext, error: &Error) -> Failure {
        if let Some(known) = ctx.failure {
            return known;
        }
        if let Some(conn) = conn(session) {
            if let Some(expiry) = conn.expiry() {
                return Failure::of_expiry(expiry);
            }
            if conn.bad_body().is_some() {
                return Failure::BAD_REQUEST;
            }
        }
        Failure::of_exchange(error)
    }

    pub(super) fn log_failure(
        &self,
        session: &Session,
        ctx: &RequestContext,
        failure: Failure,
        cause: &Error,
    ) {
        let placement = ctx.target.as_ref().map_or("", Target::placement_name);
        let upstream = ctx.target.as_ref().map_or("", Target::upstream_url);
        let request_id = ctx.request_id();
        if failure.by_client() {
            // The client's doing; its address and the reason are in the access log.
            debug!(request_id, placement, error = failure.code; "request ended by the client: {cause}");
            return;
        }
        warn!(
            request_id,
            placement,
            upstream,
            method = session.req_header().method.as_str(),
            attempts = ctx.attempts,
            error = failure.code;
            "request failed: {cause}"
        );
    }

    /// Counts the request and writes its access log line.
    pub(super) fn record(&self, session: &Session, ctx: &RequestContext) {
        let written = answered(session).map(|status| status.as_u16());
        let failure = ctx.failure;
        let status = match (written, failure) {
            (Some(status), _) => status,
            (None, Some(failure)) => failure.status,
            (None, None) => Failure::CLIENT_GONE.status,
        };
        let elapsed = ctx.started.elapsed();
        match &ctx.target {
            Some(target) => {
                target.placement().state.metrics.request_done(
                    target.route.reason,
                    status,
                    elapsed.as_secs_f64(),
                );
                if let Some(reason) = target.failover().filter(|_| target.address().is_some()) {
                    let home = target.placements.get(target.route.placement);
                    home.state.metrics.failed_over(reason.as_str());
                }
            }
            None if failure.is_some() => self.metrics.request_refused(status),
            // /debug/config
            None => {}
        }
        if self.access_log.is_enabled() {
            let request = session.req_header();
            let target = ctx.target.as_ref();
            let refused = conn(session).is_some_and(|conn| conn.refusal().is_some());
            self.access_log.log(&AccessRecord {
                request_id: ctx.request_id(),
                // The request line of a refused request is not its own.
                method: if refused {
                    "-"
                } else {
                    request.method.as_str()
                },
                path: &if refused {
                    "-".into()
                } else {
                    String::from_utf8_lossy(request.raw_path())
                },
                routing_key: request
                    .headers
                    .get(&self.config.routing_key)
                    .map(HeaderValue::as_bytes),
                placement: target.map(Target::placement_name),
                reason: target.map(|target| target.route.reason.as_str()),
                upstream: target.map(Target::upstream_url),
                upstream_address: target.and_then(Target::address),
                failover_reason: target
                    .and_then(Target::failover)
                    .map(FailoverReason::as_str),
                status,
                duration: elapsed,
                bytes_sent: session.body_bytes_sent() as u64,
                client: conn(session).map(ClientConn::peer),
                error: failure.map(|failure| failure.code),
                generation: target.map(|target| target.generation),
            });
        }
    }
}
