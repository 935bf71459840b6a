//! The way from the routing decision to an attempt at one address of a cell,
//! and what the attempt taught.

use std::time::{Instant, SystemTime};

use http::header::CONTENT_LENGTH;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use pingora_proxy::Session;

use super::context::{RequestContext, Target};
use super::edge::{EdgeProxy, conn};
use super::failure::Failure;
use super::fields;
use super::peer::{LAST_RESORT, PeerTimeouts, keep_apart, peer};
use crate::http::{ClientConn, Deadlines};
use crate::resilience::Fault;
use crate::table::Retries;
use crate::upstream::{
    Cause, FailoverReason, LastFailure, Placement, Rejected, Unresolved, uptime,
};

impl EdgeProxy {
    /// Finds the placement that takes a request of `key`, and a backend of it.
    ///
    /// # Errors
    /// Why none does.
    pub(super) fn admit(
        &self,
        session: &Session,
        key: &[u8],
        ctx: &mut RequestContext,
    ) -> Result<(), Failure> {
        let Some(target) = &mut ctx.target else {
            return Err(Failure::INTERNAL);
        };
        let home = target.route.placement;
        match target.placements.admit(home, key, ctx.started) {
            Ok(admitted) => target.admitted = Some(admitted),
            Err(rejected) => {
                let failure = reject(target, rejected);
                count_rejection(target, failure);
                return Err(failure);
            }
        }
        let fits = fits(session, target);
        if let Err(failure) = fits {
            count_rejection(target, failure);
            // Nothing comes of it, so it holds nothing.
            target.admitted = None;
        }
        fits
    }

    /// The peer for the next attempt, waiting for the first resolution of the
    /// cell's name if need be.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn next_peer(
        &self,
        session: &Session,
        ctx: &mut RequestContext,
    ) -> Result<HttpPeer, Failure> {
        let time_left = || conn(session).map_or(self.config.connect, ClientConn::request_time_left);
        let Some(target) = &mut ctx.target else {
            return Err(Failure::INTERNAL);
        };
        let failed = ctx.failure.is_some();
        while target.attempt().is_none() {
            let placement = target.placement();
            let connect = timeouts(&self.config, placement).connect.min(time_left());
            // Only a cell that was never looked up yet makes this wait.
            let found = tokio::time::timeout(connect, placement.first_resolution()).await;
            if let Some(conn) = conn(session) {
                // The time for this attempt begins only now.
                conn.attempt_started();
            }
            let unresolved = match found {
                Ok(()) => Unresolved::Wait,
                Err(_) => Unresolved::GiveUp,
            };
            self.attempt_again(session, target, unresolved, failed)?;
            if failed && target.attempt().is_some() {
                target.placement().state.metrics.retried();
            }
        }
        let mut timeouts = timeouts(&self.config, target.placement());
        if conn(session).is_some_and(ClientConn::is_whole) && !session.is_upgrade_req() {
            timeouts.read = None;
        }
        let time_left = time_left();
        ctx.hurried = time_left < timeouts.connect;
        timeouts.connect = timeouts.connect.min(time_left);
        if timeouts.connect.is_zero() {
            return Err(Failure::REQUEST_TIMEOUT);
        }
        let attempt = target.attempt().ok_or(Failure::INTERNAL)?;
        let mut peer = peer(attempt.backend(), timeouts);
        if ctx.only_fresh {
            keep_apart(&mut peer);
        }
        Ok(peer)
    }

    /// Begins an attempt for a request that has none under way, or has it wait
    /// for a first lookup at a fallback.
    fn attempt_again(
        &self,
        session: &Session,
        target: &mut Target,
        unresolved: Unresolved,
        failed: bool,
    ) -> Result<(), Failure> {
        let key = self.key(session)?;
        let Some(admitted) = &mut target.admitted else {
            return Err(Failure::INTERNAL);
        };
        let (home, before) = (target.route.placement, admitted.placement);
        let placements = &target.placements;
        match placements.admit_again(home, key, admitted, unresolved, Instant::now()) {
            Ok(()) if target.serving() == before => Ok(()),
            Ok(()) => {
                fits(session, target).inspect_err(|failure| count_rejection(target, *failure))
            }
            // What it failed by first is the answer, and where.
            Err(Some(_)) if failed => Err(Failure::UNREACHABLE),
            Err(Some(rejected)) => {
                target.admitted = None;
                let failure = reject(target, rejected);
                count_rejection(target, failure);
                Err(failure)
            }
            Err(None) => Err(Failure::UNRESOLVED),
        }
    }

    /// Connecting failed: the backend is avoided for a while, and the request
    /// goes elsewhere if its placement's policy says so. Says whether it does.
    pub(super) fn connect_failed(&self, ctx: &mut RequestContext, error: &Error) -> bool {
        let failure = Failure::of_connect(error);
        ctx.failure = Some(failure);
        let hurried = ctx.hurried && failure == Failure::CONNECT_TIMEOUT;
        let Some(target) = &mut ctx.target else {
            return false;
        };
        let metrics = &target.placement().state.metrics;
        metrics.upstream_connect_failed(match error.etype() {
            ErrorType::ConnectRefused => "refused",
            _ => failure.connect_kind(),
        });
        if failure == Failure::INTERNAL {
            return false;
        }
        if let Some(attempt) = target.admitted.as_mut().and_then(|a| a.attempt.as_mut())
            // Of a backend that was given less time than the policy grants, a
            // timeout says nothing.
            && !hurried
        {
            attempt.connect_failed(Instant::now(), last_failure(failure, error));
        }
        self.goes_elsewhere(ctx, |retries| retries.on_connect)
    }

    /// Sets the failed attempt aside. Says whether another is to be made: the
    /// policy allows it for this kind of failure, there is somewhere to go, and
    /// the retry budget has room.
    pub(super) fn goes_elsewhere(
        &self,
        ctx: &mut RequestContext,
        allowed: impl FnOnce(&Retries) -> bool,
    ) -> bool {
        let attempts = ctx.attempts;
        let Some(target) = &mut ctx.target else {
            return false;
        };
        let Some(admitted) = &mut target.admitted else {
            return false;
        };
        admitted.set_aside();
        let now = Instant::now();
        let placement = target.placements.get(admitted.placement);
        let retries = &placement.policy.retries;
        if !allowed(retries)
            || attempts >= retries.attempts.min(self.config.max_attempts)
            || !target.placements.has_alternative(admitted, now)
        {
            return false;
        }
        let granted = placement.state.try_retry(uptime(now));
        if !granted {
            placement.state.metrics.retry_refused();
        }
        granted
    }

    /// The exchange broke. If the cell brought it about, it counts against the
    /// backend.
    pub(super) fn exchange_failed(
        &self,
        ctx: &mut RequestContext,
        failure: Failure,
        error: &Error,
    ) {
        let fault = match ctx.answered {
            true => Fault::BrokenBody,
            false => Fault::NoAnswer,
        };
        // What is left of the time for all attempts may be too little for a
        // later one.
        let late = failure == Failure::REQUEST_TIMEOUT && ctx.attempts > 1;
        if !failure.by_cell() || late {
            return;
        }
        if let Some(attempt) = ctx.attempt_mut() {
            attempt.failed(fault, Instant::now(), last_failure(failure, error));
        }
    }
}

/// Gives the request the deadlines of the placement that just took it.
///
/// # Errors
/// If its body is larger than that one takes.
fn fits(session: &Session, target: &Target) -> Result<(), Failure> {
    let policy = &target.placement().policy;
    if let Some(conn) = conn(session) {
        conn.set_deadlines(Deadlines {
            response_header: policy.timeouts.response_header,
            request: policy.timeouts.request,
            stream_idle: policy.timeouts.stream_idle,
        });
    }
    let length = fields::first(&session.req_header().headers, &CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    match (policy.max_request_body_bytes, length) {
        (Some(limit), Some(length)) if length > limit => Err(Failure::BODY_TOO_LARGE),
        _ => Ok(()),
    }
}

fn count_rejection(target: &Target, failure: Failure) {
    target.placement().state.metrics.rejected(failure.code);
}

/// Keeps a rejection; what it means for the client.
fn reject(target: &mut Target, rejected: Rejected) -> Failure {
    target.rejected = Some(rejected);
    match rejected.cause {
        Cause::ConcurrencyLimit => Failure::CONCURRENCY_LIMIT,
        Cause::Unavailable(FailoverReason::CircuitOpen) => Failure::CIRCUIT_OPEN,
        Cause::Unavailable(FailoverReason::UpstreamUnhealthy) => Failure::UNHEALTHY,
    }
}

fn last_failure(failure: Failure, error: &Error) -> LastFailure {
    LastFailure {
        at: SystemTime::now(),
        reason: failure.code,
        detail: error.to_string(),
    }
}

/// The deadlines of an attempt at `placement`.
fn timeouts(config: &super::ProxyConfig, placement: &Placement) -> PeerTimeouts {
    let own = &placement.policy.timeouts;
    let stream_idle = own.stream_idle.unwrap_or(config.stream_idle);
    let response_header = own.response_header.unwrap_or(config.response_header);
    let request = own.request.unwrap_or(config.request);
    PeerTimeouts {
        connect: own.connect.unwrap_or(config.connect),
        write: stream_idle,
        read: Some(stream_idle.max(response_header).max(request) + LAST_RESORT),
        idle: own.upstream_idle.unwrap_or(config.upstream_idle),
    }
}
