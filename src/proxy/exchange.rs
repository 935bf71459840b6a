//! What the proxy does at each step of an exchange that takes its course: the
//! request of the client, what the cell gets, what the cell answers, what the client
//! gets. Nothing here waits.

use http::header::{EXPECT, TRANSFER_ENCODING};
use http::{Method, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType};
use pingora_proxy::Session;

use super::context::RequestContext;
use super::edge::{EdgeProxy, conn, prepare_exchange};
use super::failure::Failure;
use super::{fields, forward, request_id, response};

/// What becomes of a request.
pub(super) enum Next {
    /// It goes to a cell.
    Proxy,
    Refuse(Failure),
    /// It asks what the edge serves.
    ShowConfig,
}

impl EdgeProxy {
    /// A request's header is here.
    pub(super) fn receive(&self, session: &mut Session, ctx: &mut RequestContext) -> Next {
        // The connection keeps all read deadlines.
        session.set_read_timeout(None);
        if self.lifecycle.draining() {
            session.set_keepalive(None);
        }
        let given = fields::first(&session.req_header().headers, &request_id::FIELD);
        ctx.request_id = request_id::keep_or_make(given);
        if let Some(failure) = self.refused(session) {
            return Next::Refuse(failure);
        }
        if self.config.debug_config
            && session.req_header().method == Method::GET
            && session.req_header().uri.path() == "/debug/config"
        {
            return Next::ShowConfig;
        }
        let routed = self.key(session).and_then(|key| {
            ctx.target = Some(self.route(key)?);
            self.admit(session, key, ctx)
        });
        match routed {
            Ok(()) => {
                prepare_exchange(session);
                Next::Proxy
            }
            Err(failure) => Next::Refuse(failure),
        }
    }

    /// There is a connection to the cell.
    pub(super) fn connected(&self, session: &Session, ctx: &mut RequestContext, reused: bool) {
        // The first attempt on a kept connection begins when the request is here.
        if (!reused || ctx.attempts > 1)
            && let Some(conn) = conn(session)
        {
            conn.attempt_started();
        }
        if let Some(target) = &ctx.target {
            target.placement().state.metrics.upstream_connect_ok(reused);
        }
        if let Some(attempt) = ctx.attempt_mut().filter(|_| !reused) {
            attempt.connected();
        }
    }

    /// Makes the request the one that the cell gets.
    pub(super) fn send(
        &self,
        session: &Session,
        request: &mut RequestHeader,
        ctx: &RequestContext,
    ) -> pingora::Result<()> {
        forward::origin_form(request)?;
        if session.req_header().version == Version::HTTP_10 {
            request.remove_header(&EXPECT);
        }
        if let Some(conn) = conn(session).filter(|conn| !conn.told_origin()) {
            let trusted = forward::is_trusted(conn.peer().ip(), &self.config.trusted_proxies);
            forward::add_headers(request, conn.peer_header(), trusted, &ctx.request_id)?;
        }
        if let Some(target) = &ctx.target {
            forward::set_host(request, target)?;
        }
        Ok(())
    }

    /// A part of the request's body goes to the cell.
    pub(super) fn send_body(
        &self,
        session: &Session,
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
                    .state
                    .metrics
                    .rejected(Failure::BODY_TOO_LARGE.code);
                ctx.failure = Some(Failure::BODY_TOO_LARGE);
                Err(Failure::BODY_TOO_LARGE.into_error())
            }
            _ => Ok(()),
        }
    }

    /// The header of an answer is here.
    pub(super) fn take_answer(
        &self,
        session: &Session,
        response: &ResponseHeader,
        ctx: &mut RequestContext,
    ) -> pingora::Result<()> {
        ctx.begun = true;
        let mut codings = fields::all(&response.headers, &TRANSFER_ENCODING);
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

    /// Makes the answer the one that the client gets.
    pub(super) fn pass_answer(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &RequestContext,
    ) -> pingora::Result<()> {
        response::strip_hop_by_hop(response);
        response::remove_claims(response);
        if response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS
        {
            return Ok(());
        }
        if !response::frame_for(response, session.req_header())? {
            session.set_keepalive(None);
        }
        response::announce(session, ctx);
        // A drain that began since the request arrived still reaches this client.
        if self.lifecycle.draining() {
            session.set_keepalive(None);
        }
        Ok(())
    }

    /// The exchange is over, one way or another.
    pub(super) fn finish(
        &self,
        session: &Session,
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
}

fn bad_response(what: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, what).into_up()
}
