//! The walk of a request through the phases of the proxy library.

use async_trait::async_trait;
use http::header::{EXPECT, TRANSFER_ENCODING};
use http::{Method, StatusCode, Version};
use log::debug;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::upstreams::peer::{HttpPeer, Peer};
use pingora::{Error, ErrorSource, ErrorType};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use super::context::RequestContext;
use super::edge::{EdgeProxy, answered, conn, prepare_exchange};
use super::failure::Failure;
use super::{forward, reply, request_id, response};
use crate::net::ClientConn;

/// Most addresses of one cell that a request tries to connect to.
const MAX_ATTEMPTS: usize = 3;

#[async_trait]
impl ProxyHttp for EdgeProxy {
    type CTX = RequestContext;

    fn new_ctx(&self) -> RequestContext {
        RequestContext::new(self.lifecycle.request())
    }

    /// None: the compression module costs allocations on every request.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
    ) -> pingora::Result<bool> {
        // The connection keeps all read deadlines.
        session.set_read_timeout(None);
        if self.lifecycle.draining() {
            session.set_keepalive(None);
        }
        let given = session.req_header().headers.get(forward::REQUEST_ID);
        ctx.request_id = request_id::keep_or_make(given);
        if let Some(failure) = self.refused(session) {
            return self.refuse(session, ctx, failure).await;
        }
        if self.config.debug_config
            && session.req_header().method == Method::GET
            && session.req_header().uri.path() == "/debug/config"
        {
            let status = serde_json::to_string(&self.live.status()).unwrap_or_default();
            let header = ResponseHeader::build(StatusCode::OK, Some(4))?;
            reply::json(session, ctx, header, status).await?;
            return Ok(true);
        }
        match self.route(session) {
            Ok(target) => {
                ctx.target = Some(target);
                prepare_exchange(session);
                Ok(false)
            }
            Err(failure) => self.refuse(session, ctx, failure).await,
        }
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
    ) -> pingora::Result<Box<HttpPeer>> {
        let Some(target) = &ctx.target else {
            ctx.failure = Some(Failure::INTERNAL);
            return Err(decided(Failure::INTERNAL));
        };
        let time_left = conn(session).map_or(self.config.connect, ClientConn::request_time_left);
        match self.next_peer(target, ctx.attempts, time_left).await {
            Ok(peer) => {
                ctx.attempts += 1;
                // What an earlier attempt ran into is settled by trying again.
                ctx.failure = None;
                Ok(Box::new(peer))
            }
            Err(failure) => {
                if failure == Failure::UNRESOLVED {
                    target
                        .placement()
                        .metrics
                        .upstream_connect_failed(failure.connect_kind());
                }
                // Of two causes the first one explains more.
                let failure = *ctx.failure.get_or_insert(failure);
                let detail = target.placement().cell.last_error().unwrap_or_default();
                let mut error = decided(failure);
                error.context = Some(format!("{}: {detail}", failure.code).into());
                Err(error)
            }
        }
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut RequestContext,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let failure = Failure::of_connect(&error);
        ctx.failure = Some(failure);
        if let Some(target) = &ctx.target {
            let placement = target.placement();
            placement
                .metrics
                .upstream_connect_failed(failure.connect_kind());
            // Nothing was sent, so any request may go to the cell's next address.
            let addresses = placement.cell.addresses().sockets.len().min(MAX_ATTEMPTS);
            error.set_retry(ctx.attempts < addresses);
        }
        error
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        _digest: Option<&Digest>,
        ctx: &mut RequestContext,
    ) -> pingora::Result<()> {
        if let Some(conn) = conn(session) {
            conn.attempt_started();
        }
        if let Some(target) = &ctx.target {
            target.placement().metrics.upstream_connect_ok(reused);
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestContext,
    ) -> pingora::Result<()> {
        forward::origin_form(request)?;
        if session.req_header().version == Version::HTTP_10 {
            request.remove_header(&EXPECT);
        }
        if let Some(conn) = conn(session) {
            let trusted = forward::is_trusted(conn.peer().ip(), &self.config.trusted_proxies);
            forward::add_headers(request, conn.peer_header(), trusted, &ctx.request_id)?;
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        _ctx: &mut RequestContext,
    ) -> pingora::Result<()> {
        let mut codings = response.headers.get_all(TRANSFER_ENCODING).iter();
        if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
            // Its body would go on under the wrong name.
            return Err(bad_response("transfer coding other than chunked"));
        }
        let Some(conn) = conn(session) else {
            return Ok(());
        };
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            if !session.is_upgrade_req() {
                // RFC 9110 §15.2.2: only in answer to an Upgrade.
                return Err(bad_response("unasked-for 101"));
            }
            conn.tunnel_started();
        } else if response.status.is_informational() {
            conn.continued();
        } else {
            conn.response_started();
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> pingora::Result<()> {
        response::strip_hop_by_hop(response);
        if response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS
        {
            return Ok(());
        }
        if !response::frame_for(response, session.req_header())? {
            session.set_keepalive(None);
        }
        if let Some(target) = &ctx.target {
            response::add_headers(
                response,
                &ctx.request_id,
                &target.placement().name_header,
                target.route.reason.as_str(),
            )?;
        }
        // A drain that began since the request arrived still reaches this client.
        if self.lifecycle.draining() {
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut RequestContext,
        reused: bool,
    ) -> Box<Error> {
        let mut error = error.more_context(format!("peer {}", peer.address()));
        // A pooled connection that the cell had closed is worth a second try,
        // while nothing of an answer was passed on and the request can be
        // repeated without harm (RFC 9110 §9.2.2).
        let repeatable = session.req_header().method.is_idempotent()
            && !session.as_ref().retry_buffer_truncated()
            && session.response_written().is_none()
            && *error.esource() != ErrorSource::Downstream;
        if repeatable {
            error.retry.decide_reuse(reused);
        } else {
            error.set_retry(false);
        }
        if !error.retry() {
            ctx.failure = Some(self.judge(session, ctx, &error));
        }
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut RequestContext,
    ) -> FailToProxy {
        let failure = self.judge(session, ctx, error);
        ctx.failure = Some(failure);
        self.log_failure(session, ctx, failure, error);
        // What the client or the cell still has in flight on this exchange is
        // unknown, so the connection ends with the answer.
        session.set_keepalive(None);
        match answered(session) {
            Some(_) => {
                if session.req_header().version == Version::HTTP_10
                    && let Some(conn) = conn(session)
                {
                    // The end of the connection may be the end of the body.
                    conn.reset_on_close();
                }
            }
            None if failure == Failure::CLIENT_GONE => {}
            None => {
                if let Err(error) = reply::failure(session, ctx, failure).await {
                    debug!(request_id = ctx.request_id(); "the failure could not be answered: {error}");
                }
            }
        }
        FailToProxy {
            error_code: failure.status,
            can_reuse_downstream: false,
        }
    }

    async fn logging(
        &self,
        session: &mut Session,
        _error: Option<&Error>,
        ctx: &mut RequestContext,
    ) {
        self.record(session, ctx);
    }

    /// Failures are logged once, by [`EdgeProxy::log_failure`].
    fn suppress_error_log(&self, _: &Session, _: &RequestContext, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &RequestContext,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

fn bad_response(what: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, what).into_up()
}

/// An error that only carries the failure kept in the context.
fn decided(failure: Failure) -> Box<Error> {
    Error::explain(ErrorType::HTTPStatus(failure.status), failure.code)
}
