//! The walk of a request through the phases of the proxy library. What happens at each
//! step is in `exchange`; what becomes of a request when one fails is here.

use async_trait::async_trait;
use bytes::Bytes;
use http::Version;
use log::debug;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::upstreams::peer::{HttpPeer, Peer};
use pingora::{Error, ErrorSource, ErrorType};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use super::context::{RequestContext, Target};
use super::edge::{EdgeProxy, answered, conn};
use super::exchange::Next;
use super::failure::Failure;
use super::over::{self, Hook};
use super::reply;
use crate::upstream::Placement;

#[async_trait]
impl ProxyHttp for EdgeProxy {
    type CTX = RequestContext;

    fn new_ctx(&self) -> RequestContext {
        RequestContext::new(self.lifecycle.request())
    }

    /// None: the compression module costs allocations on every request.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    // Nothing, as by default, and without the allocation of the default.
    fn early_request_filter<'s, 'd, 'x, 'h>(
        &'s self,
        _session: &'d mut Session,
        _ctx: &'x mut RequestContext,
    ) -> Hook<'h, pingora::Result<()>>
    where
        's: 'h,
        'd: 'h,
        'x: 'h,
    {
        over::done(Ok(()))
    }

    fn proxy_upstream_filter<'s, 'd, 'x, 'h>(
        &'s self,
        _session: &'d mut Session,
        _ctx: &'x mut RequestContext,
    ) -> Hook<'h, pingora::Result<bool>>
    where
        's: 'h,
        'd: 'h,
        'x: 'h,
    {
        over::decided(true)
    }

    fn request_filter<'s, 'd, 'x, 'h>(
        &'s self,
        session: &'d mut Session,
        ctx: &'x mut RequestContext,
    ) -> Hook<'h, pingora::Result<bool>>
    where
        's: 'h,
        'd: 'h,
        'x: 'h,
    {
        match self.receive(session, ctx) {
            Next::Proxy => over::decided(false),
            Next::Refuse(failure) => Box::pin(self.refuse(session, ctx, failure)),
            Next::ShowConfig => Box::pin(self.show_config(session, ctx)),
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
                    placement.state.metrics.upstream_connect_failed(kind);
                }
                let cause = ctx.cause.take();
                let detail = cause.or_else(|| placement.and_then(Placement::resolution_error));
                // Of two causes the first one explains more.
                let failure = *ctx.failure.get_or_insert(failure);
                let mut error = failure.into_error();
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

    fn connected_to_upstream<'s, 'd, 'x, 'y, 'z, 'h>(
        &'s self,
        session: &'d mut Session,
        reused: bool,
        _peer: &'x HttpPeer,
        _fd: std::os::unix::io::RawFd,
        _digest: Option<&'y Digest>,
        ctx: &'z mut RequestContext,
    ) -> Hook<'h, pingora::Result<()>>
    where
        's: 'h,
        'd: 'h,
        'x: 'h,
        'y: 'h,
        'z: 'h,
    {
        self.connected(session, ctx, reused);
        over::done(Ok(()))
    }

    fn upstream_request_filter<'s, 'd, 'x, 'y, 'h>(
        &'s self,
        session: &'d mut Session,
        request: &'x mut RequestHeader,
        ctx: &'y mut RequestContext,
    ) -> Hook<'h, pingora::Result<()>>
    where
        's: 'h,
        'd: 'h,
        'x: 'h,
        'y: 'h,
    {
        over::done(self.send(session, request, ctx))
    }

    fn request_body_filter<'s, 'd, 'x, 'y, 'h>(
        &'s self,
        session: &'d mut Session,
        _body: &'x mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &'y mut RequestContext,
    ) -> Hook<'h, pingora::Result<()>>
    where
        's: 'h,
        'd: 'h,
        'x: 'h,
        'y: 'h,
    {
        over::done(self.send_body(session, ctx))
    }

    fn upstream_response_filter<'s, 'd, 'x, 'y, 'h>(
        &'s self,
        session: &'d mut Session,
        response: &'x mut ResponseHeader,
        ctx: &'y mut RequestContext,
    ) -> Hook<'h, pingora::Result<()>>
    where
        's: 'h,
        'd: 'h,
        'x: 'h,
        'y: 'h,
    {
        over::done(self.take_answer(session, response, ctx))
    }

    fn response_filter<'s, 'd, 'x, 'y, 'h>(
        &'s self,
        session: &'d mut Session,
        response: &'x mut ResponseHeader,
        ctx: &'y mut RequestContext,
    ) -> Hook<'h, pingora::Result<()>>
    where
        's: 'h,
        'd: 'h,
        'x: 'h,
        'y: 'h,
    {
        over::done(self.pass_answer(session, response, ctx))
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

    fn logging<'s, 'd, 'x, 'y, 'h>(
        &'s self,
        session: &'d mut Session,
        error: Option<&'x Error>,
        ctx: &'y mut RequestContext,
    ) -> Hook<'h, ()>
    where
        's: 'h,
        'd: 'h,
        'x: 'h,
        'y: 'h,
    {
        self.finish(session, error, ctx);
        over::nothing()
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
