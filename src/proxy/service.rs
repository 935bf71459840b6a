//! The walk of a request through the phases of the proxy library.

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{EXPECT, TRANSFER_ENCODING};
use http::{Method, StatusCode, Version};
use log::debug;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::upstreams::peer::{HttpPeer, Peer};
use pingora::{Error, ErrorSource, ErrorType};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use super::context::{RequestContext, Target};
use super::edge::{EdgeProxy, answered, conn, prepare_exchange};
use super::failure::Failure;
use super::{forward, reply, request_id, response};
use crate::live::LivePlacement;

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
            // Where the control plane is, is no client's business.
            let mut status = self.live.status();
            status.control_plane = None;
            let status = serde_json::to_string(&status).unwrap_or_default();
            let header = ResponseHeader::build(StatusCode::OK, Some(4))?;
            reply::json(session, ctx, header, status).await?;
            return Ok(true);
        }
        let routed = self.key(session).and_then(|key| {
            ctx.target = Some(self.route(key)?);
            self.admit(session, key, ctx)
        });
        match routed {
            Ok(()) => {
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
        match self.next_peer(session, ctx).await {
            Ok(peer) => {
                ctx.attempts += 1;
                ctx.answered = false;
                ctx.begun = false;
                // What an earlier attempt ran into is settled by trying again.
                ctx.failure = None;
                Ok(Box::new(peer))
            }
            Err(failure) => {
                let placement = ctx.target.as_ref().map(Target::placement);
                let unresolved = failure == Failure::UNRESOLVED && ctx.failure.is_none();
                if let Some(placement) = placement.filter(|_| unresolved) {
                    let kind = failure.connect_kind();
                    placement.cell.metrics.upstream_connect_failed(kind);
                }
                let cause = ctx.cause.take();
                let detail = cause.or_else(|| placement.and_then(LivePlacement::resolution_error));
                // Of two causes the first one explains more.
                let failure = *ctx.failure.get_or_insert(failure);
                let mut error = decided(failure);
                let detail = detail.unwrap_or_default();
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
        // Nothing was sent, so any request may go elsewhere.
        let again = self.connect_failed(ctx, &error);
        ctx.cause = again.then(|| error.to_string());
        error.set_retry(again);
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
            target.placement().cell.metrics.upstream_connect_ok(reused);
        }
        if let Some(attempt) = ctx.attempt_mut().filter(|_| !reused) {
            attempt.connected();
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
        if let Some(target) = &ctx.target {
            forward::set_host(request, target)?;
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        _body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut RequestContext,
    ) -> pingora::Result<()> {
        let Some(target) = ctx.target.as_ref().filter(|_| !session.was_upgraded()) else {
            // What follows an upgrade is no body (RFC 9110 §7.8).
            return Ok(());
        };
        let placement = target.placement();
        match placement.policy.max_request_body_bytes {
            // What was announced was looked at before; this is for chunks. The
            // error cuts the connection to the cell, so that it cannot take
            // what it got for the whole.
            Some(limit) if session.as_ref().body_bytes_read() as u64 > limit => {
                placement
                    .cell
                    .metrics
                    .rejected(Failure::BODY_TOO_LARGE.code);
                ctx.failure = Some(Failure::BODY_TOO_LARGE);
                Err(decided(Failure::BODY_TOO_LARGE))
            }
            _ => Ok(()),
        }
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> pingora::Result<()> {
        ctx.begun = true;
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
            return Ok(());
        } else {
            conn.response_started();
        }
        ctx.answered = !response.status.is_server_error();
        if let Some(attempt) = ctx.attempt_mut() {
            match response.status {
                // What two sides say to each other from here on, and how it
                // ends, tells nothing about the cell.
                StatusCode::SWITCHING_PROTOCOLS => attempt.completed(),
                status if status.is_server_error() => attempt.answered_badly(status.as_u16()),
                _ => attempt.answered(),
            }
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
        response::add_headers(response, ctx)?;
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
        // A pooled connection that the cell had closed is no failure of its, and
        // worth a second try while the request can be repeated without harm
        // (RFC 9110 §9.2.2) and nothing of an answer was passed on.
        error.retry.decide_reuse(reused);
        let stale = error.retry() && !ctx.begun;
        let repeatable = session.req_header().method.is_idempotent()
            && session.as_mut().is_body_empty()
            && session.response_written().is_none()
            && *error.esource() != ErrorSource::Downstream;
        error.set_retry(stale && repeatable);
        if error.retry() {
            // Not an attempt, either. When a cell dies, all kept ones break at once,
            // so it happens to a request no more than once.
            ctx.attempts = ctx.attempts.saturating_sub(1);
            ctx.only_fresh = true;
            return error;
        }
        let failure = self.judge(session, ctx, &error);
        ctx.failure = Some(failure);
        if !stale && !session.was_upgraded() {
            self.exchange_failed(ctx, failure, &error);
        }
        if repeatable && was_reset(&error) && !ctx.begun {
            let again = self.goes_elsewhere(ctx, |retries| retries.on_reset);
            ctx.cause = again.then(|| error.to_string());
            error.set_retry(again);
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
        error: Option<&Error>,
        ctx: &mut RequestContext,
    ) {
        if error.is_none()
            && ctx.answered
            && let Some(attempt) = ctx.attempt_mut()
        {
            attempt.completed();
        }
        self.record(session, ctx);
        if let Some(target) = &mut ctx.target {
            // What is left of the request's body may take the client a while.
            target.admitted = None;
        }
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

/// Whether the connection broke, and before a byte of the answer.
fn was_reset(error: &Error) -> bool {
    let broke = matches!(
        error.etype(),
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
    );
    // How far it had come the library says in words only.
    let began = || {
        let text = error.to_string();
        text.contains("bytes already read") && !text.contains("bytes already read: 0")
    };
    broke && !began()
}

fn bad_response(what: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, what).into_up()
}

/// An error that only carries the failure kept in the context.
fn decided(failure: Failure) -> Box<Error> {
    Error::explain(ErrorType::HTTPStatus(failure.status), failure.code)
}
