//! The Pingora engine: the walk of a request through the phases of [`ProxyHttp`].
//!
//! Each phase asks `decide`, `attempt` or `headers` what to do, does it to the session, and
//! tells the exchange. `translate` has Pingora's words for what the others speak of.

mod translate;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::TRANSFER_ENCODING;
use http::{StatusCode, Version};
use log::debug;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::upstreams::peer::{HttpPeer, Peer};
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use self::translate::{
    apply, bad_response, connect_failure, downstream, error, exchange_failure, head, peer,
    was_reset,
};
use super::EdgeProxy;
use super::attempt::Broken;
use super::decide::{Decision, is_trusted};
use super::headers::{self, Fields};
use super::reply::{self, Reply};
use crate::exchange::{Ending, Exchange, Failure};

#[async_trait]
impl ProxyHttp for EdgeProxy {
    /// `None` until the request is there.
    type CTX = Option<Exchange>;

    fn new_ctx(&self) -> Self::CTX {
        None
    }

    /// None: the compression module costs allocations on every request.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<bool> {
        // The connection keeps all read deadlines.
        session.set_read_timeout(None);
        if self.lifecycle.draining() {
            session.set_keepalive(None);
        }
        let head = head(session);
        let exchange = ctx.insert(self.begin(downstream(session)?, &head));
        let reply = match self.decide(exchange, &head) {
            Decision::Proxy => {
                if exchange.request.version == Version::HTTP_10 {
                    // RFC 9110 §15.2: it would take a 1xx for the answer.
                    session.set_ignore_info_resp(true);
                }
                return Ok(false);
            }
            // Not an error for Pingora, which would close the connection: a client that
            // forgot a header may go on using it, unless it has a body under way.
            Decision::Refuse(failure) => reply::failure(exchange, failure),
            Decision::ShowConfig => self.config_reply(exchange),
        };
        if exchange.downstream.refusal().is_some() {
            session.set_keepalive(None);
        }
        send(session, reply).await?;
        Ok(true)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Self::CTX,
    ) -> Result<Box<HttpPeer>> {
        let exchange = begun(ctx)?;
        match self.next_attempt(exchange).await {
            Ok(next) => {
                let whole = exchange.downstream.is_whole() && !session.is_upgrade_req();
                Ok(Box::new(peer(&next, exchange.timeouts, whole)))
            }
            Err((failure, detail)) => {
                let mut error = error(failure);
                error.context = Some(format!("{}: {detail}", failure.code).into());
                Err(error)
            }
        }
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Self::CTX,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let Some(exchange) = ctx else { return error };
        let failure = connect_failure(&error);
        let kind = match error.etype() {
            ErrorType::ConnectRefused => "refused",
            _ => failure.connect_kind(),
        };
        let again = self.connect_failed(exchange, failure, kind, error.to_string());
        error.set_retry(again);
        error
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        _digest: Option<&Digest>,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        begun(ctx)?.connected(reused);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        let exchange = begun(ctx)?;
        let trusted = is_trusted(exchange.client().peer.ip(), &self.config.trusted_proxies);
        let changes = headers::to_cell(exchange, trusted, request.raw_path(), &request.headers);
        if let Some(target) = headers::origin_form(&request.method, request.raw_path()) {
            request.set_raw_path(&target)?;
        }
        apply(changes, request)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        _body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        if session.was_upgraded() {
            // What follows an upgrade is no body (RFC 9110 §7.8).
            return Ok(());
        }
        let read = session.as_ref().body_bytes_read() as u64;
        self.body_read(begun(ctx)?, read).map_err(error)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        let exchange = begun(ctx)?;
        exchange.answer_begins();
        let mut codings = response.headers.all(&TRANSFER_ENCODING);
        if codings.any(|coding| !coding.eq_ignore_ascii_case(b"chunked")) {
            // Its body would go on under the wrong name.
            return Err(bad_response("transfer coding other than chunked"));
        }
        if headers::is_interim(response.status) {
            exchange.interim_answer();
            return Ok(());
        }
        if response.status == StatusCode::SWITCHING_PROTOCOLS && !session.is_upgrade_req() {
            // RFC 9110 §15.2.2: only in answer to an Upgrade.
            return Err(bad_response("unasked-for 101"));
        }
        exchange.answered(response.status.as_u16());
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        let exchange = begun(ctx)?;
        let status = response.status;
        apply(
            headers::to_client(exchange, status, &response.headers),
            response,
        )?;
        if headers::is_interim(status) {
            return Ok(());
        }
        exchange.passes_answer(status.as_u16());
        let delimited = headers::is_delimited(&exchange.request, status, &response.headers);
        // A drain that began since the request arrived still reaches this client.
        if !delimited || self.lifecycle.draining() {
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Self::CTX,
        reused: bool,
    ) -> Box<Error> {
        let mut error = error.more_context(format!("peer {}", peer.address()));
        error.retry.decide_reuse(reused);
        let Some(exchange) = ctx else {
            error.set_retry(false);
            return error;
        };
        let broken = Broken {
            failure: exchange.judge(exchange_failure(&error)),
            detail: error.to_string(),
            stale: error.retry(),
            reset: was_reset(&error),
            repeatable: session.req_header().method.is_idempotent()
                && session.as_mut().is_body_empty()
                && session.response_written().is_none()
                && *error.esource() != ErrorSource::Downstream,
            tunnel: session.was_upgraded(),
        };
        error.set_retry(self.broke(exchange, broken));
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Self::CTX,
    ) -> FailToProxy {
        // What the client or the cell still has in flight on this exchange is unknown, so
        // the connection ends with the answer.
        session.set_keepalive(None);
        let failed = |failure: Failure| FailToProxy {
            error_code: failure.status,
            can_reuse_downstream: false,
        };
        let Some(exchange) = ctx else {
            log::error!("a request ended before its exchange began: {error}");
            return failed(Failure::INTERNAL);
        };
        let failure = exchange.judge(exchange_failure(error));
        exchange.fail(failure);
        exchange.log_failure(failure, error);
        if written(session).is_some() {
            if exchange.request.version == Version::HTTP_10 {
                // The end of the connection may be the end of the body.
                exchange.downstream.reset_on_close();
            }
        } else if failure != Failure::CLIENT_GONE
            && let Err(error) = send(session, reply::failure(exchange, failure)).await
        {
            debug!(request_id = exchange.id_str(); "the failure could not be answered: {error}");
        }
        failed(failure)
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Self::CTX) {
        if let Some(exchange) = ctx {
            exchange.end(Ending {
                written: written(session),
                bytes_sent: session.body_bytes_sent() as u64,
                complete: error.is_none(),
            });
        }
    }

    /// The exchange logs its failure once.
    fn suppress_error_log(&self, _: &Session, _: &Self::CTX, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Self::CTX,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

/// The exchange of a request, which every phase after `request_filter` has.
fn begun(ctx: &mut Option<Exchange>) -> Result<&mut Exchange> {
    ctx.as_mut().ok_or_else(|| error(Failure::INTERNAL))
}

/// The status of the final response, once its head was written.
fn written(session: &Session) -> Option<u16> {
    let status = session.response_written()?.status;
    (!headers::is_interim(status)).then_some(status.as_u16())
}

/// Sends an answer of the edge's own.
async fn send(session: &mut Session, reply: Reply) -> Result<()> {
    let mut header = ResponseHeader::build(reply.status, Some(reply.fields.len()))?;
    apply(reply.fields, &mut header)?;
    let bodiless = session.req_header().method == http::Method::HEAD;
    session
        .write_response_header(Box::new(header), bodiless)
        .await?;
    if !bodiless {
        let body = Bytes::from(reply.body);
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}
