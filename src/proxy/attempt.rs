//! The attempts of a request: at which backend the next one is made, and what follows when
//! one fails.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::EdgeProxy;
use super::decide::count_rejection;
use crate::exchange::{Course, Destination, Exchange, Failure, Hold};
use crate::resilience::Fault;
use crate::table::Retries;
use crate::upstream::{Backend, LastFailure, Placement, Unresolved, uptime};

/// The next attempt of a request.
#[derive(Debug)]
pub(super) struct Next {
    pub backend: Arc<Backend>,
    /// Time for connecting.
    pub connect: Duration,
    /// Whether it has to be made on a new connection, which is used for nothing else.
    pub new_connection: bool,
}

/// An exchange that broke after it was connected, as its engine saw it.
pub(super) struct Broken {
    pub failure: Failure,
    /// In words, for the operator.
    pub detail: String,
    /// The connection had been kept, and the cell had closed it.
    pub stale: bool,
    /// The connection broke, and before a byte of the answer.
    pub reset: bool,
    /// The request can be sent again without harm: it is idempotent (RFC 9110 §9.2.2), has no
    /// body, and nothing of an answer was passed on.
    pub repeatable: bool,
    /// The connection had become a tunnel.
    pub tunnel: bool,
}

impl EdgeProxy {
    /// The next attempt of a request. Waits for the first lookup of the cell's name if need
    /// be.
    ///
    /// # Errors
    /// Why there is none, and the cause in words. The exchange has failed by then: of two
    /// causes by the first, which explains more.
    pub(super) async fn next_attempt(
        &self,
        exchange: &mut Exchange,
    ) -> Result<Next, (Failure, String)> {
        match self.find_attempt(exchange).await {
            Ok(next) => Ok(next),
            Err(failure) => {
                let placement = exchange.destination.as_ref().map(Destination::placement);
                let unresolved = failure == Failure::UNRESOLVED && exchange.failure().is_none();
                if let Some(placement) = placement.filter(|_| unresolved) {
                    let kind = failure.connect_kind();
                    placement.state.metrics.upstream_connect_failed(kind);
                }
                let earlier = match &mut exchange.course {
                    Course::Failed { failure, cause } => Some((*failure, cause.take())),
                    _ => None,
                };
                let (first, cause) = earlier.unwrap_or((failure, None));
                let detail = cause.or_else(|| placement.and_then(Placement::resolution_error));
                exchange.fail(first);
                Err((first, detail.unwrap_or_default()))
            }
        }
    }

    async fn find_attempt(&self, exchange: &mut Exchange) -> Result<Next, Failure> {
        let failed = exchange.failure().is_some();
        loop {
            let destination = exchange.destination.as_ref().ok_or(Failure::INTERNAL)?;
            if destination.attempt().is_some() {
                break;
            }
            let time_left = exchange.downstream.request_time_left();
            let connect = exchange.timeouts.connect.min(time_left);
            // Only a cell that was never looked up yet makes this wait.
            let first_resolution = destination.placement().first_resolution();
            let found = tokio::time::timeout(connect, first_resolution).await;
            // The time for this attempt begins only now.
            exchange.downstream.attempt_started();
            let unresolved = match found {
                Ok(()) => Unresolved::Wait,
                Err(_) => Unresolved::GiveUp,
            };
            self.attempt_again(exchange, unresolved, failed)?;
            let destination = exchange.destination.as_ref().ok_or(Failure::INTERNAL)?;
            if failed && destination.attempt().is_some() {
                destination.placement().state.metrics.retried();
            }
        }
        let time_left = exchange.downstream.request_time_left();
        let connect = exchange.timeouts.connect;
        if connect.min(time_left).is_zero() {
            return Err(Failure::REQUEST_TIMEOUT);
        }
        let destination = exchange.destination.as_ref().ok_or(Failure::INTERNAL)?;
        let attempt = destination.attempt().ok_or(Failure::INTERNAL)?;
        let backend = Arc::clone(attempt.backend());
        exchange.connecting(time_left < connect);
        Ok(Next {
            backend,
            connect: connect.min(time_left),
            new_connection: exchange.new_connection,
        })
    }

    /// Begins an attempt for a request that has none under way, or has it wait for a first
    /// lookup at a fallback.
    fn attempt_again(
        &self,
        exchange: &mut Exchange,
        unresolved: Unresolved,
        failed: bool,
    ) -> Result<(), Failure> {
        let key = exchange.request.key.as_deref().unwrap_or_default();
        let destination = exchange.destination.as_mut().ok_or(Failure::INTERNAL)?;
        let Hold::Admitted(admitted) = &mut destination.hold else {
            return Err(Failure::INTERNAL);
        };
        let (home, before) = (destination.home, admitted.placement);
        let again =
            destination
                .placements
                .admit_again(home, key, admitted, unresolved, Instant::now());
        match again {
            Ok(()) if destination.serving() == before => Ok(()),
            Ok(()) => self.taken(exchange),
            // What it failed by first is the answer, and where.
            Err(Some(_)) if failed => Err(Failure::UNREACHABLE),
            Err(Some(rejected)) => {
                destination.hold = Hold::Rejected(rejected);
                Err(count_rejection(exchange, rejected.into()))
            }
            Err(None) => Err(Failure::UNRESOLVED),
        }
    }

    /// Connecting failed: the backend is avoided for a while. `kind` is the label that counts
    /// it. Says whether another attempt is to be made; nothing was sent, so any request may go
    /// elsewhere.
    pub(super) fn connect_failed(
        &self,
        exchange: &mut Exchange,
        failure: Failure,
        kind: &'static str,
        detail: String,
    ) -> bool {
        let hurried = matches!(exchange.course, Course::Connecting { hurried: true });
        exchange.fail(failure);
        if let Some(destination) = &exchange.destination {
            let metrics = &destination.placement().state.metrics;
            metrics.upstream_connect_failed(kind);
        }
        if failure == Failure::INTERNAL {
            return false;
        }
        if let Some(attempt) = exchange.attempt_mut()
            // A timeout after less time than the policy grants says nothing of the backend.
            && !(hurried && failure == Failure::CONNECT_TIMEOUT)
        {
            attempt.connect_failed(Instant::now(), last_failure(failure, detail.clone()));
        }
        let again = self.goes_elsewhere(exchange, |retries| retries.on_connect);
        if again {
            exchange.retry_after(failure, detail);
        }
        again
    }

    /// The exchange broke after it was connected. If the cell brought it about, it counts
    /// against the backend. Says whether another attempt is to be made.
    pub(super) fn broke(&self, exchange: &mut Exchange, broken: Broken) -> bool {
        let Broken {
            failure, detail, ..
        } = broken;
        let begun = exchange.has_begun();
        // A kept connection that the cell had closed is no failure of the cell.
        let stale = broken.stale && !begun;
        if stale && broken.repeatable {
            exchange.repeat_on_new_connection();
            return true;
        }
        if !stale && !broken.tunnel {
            count_against_backend(exchange, failure, &detail);
        }
        exchange.fail(failure);
        let again = broken.repeatable
            && broken.reset
            && !begun
            && self.goes_elsewhere(exchange, |retries| retries.on_reset);
        if again {
            exchange.retry_after(failure, detail);
        }
        again
    }

    /// Sets the failed attempt aside. Says whether another is to be made: the policy allows
    /// it for this kind of failure, there is another backend, and the retry budget has room.
    fn goes_elsewhere(
        &self,
        exchange: &mut Exchange,
        allowed: impl FnOnce(&Retries) -> bool,
    ) -> bool {
        let attempts = exchange.attempts;
        let Some(destination) = &mut exchange.destination else {
            return false;
        };
        let Hold::Admitted(admitted) = &mut destination.hold else {
            return false;
        };
        admitted.set_aside();
        let now = Instant::now();
        let placement = destination.placements.get(admitted.placement);
        let retries = &placement.policy.retries;
        if !allowed(retries)
            || attempts >= retries.attempts.min(self.config.max_attempts)
            || !destination.placements.has_alternative(admitted, now)
        {
            return false;
        }
        let granted = placement.state.try_retry(uptime(now));
        if !granted {
            placement.state.metrics.retry_refused();
        }
        granted
    }
}

fn count_against_backend(exchange: &mut Exchange, failure: Failure, detail: &str) {
    let fault = match exchange.is_answered() {
        true => Fault::BrokenBody,
        false => Fault::NoAnswer,
    };
    // The rest of the time for all attempts may have been too little for a later one.
    let late = failure == Failure::REQUEST_TIMEOUT && exchange.attempts > 1;
    if !failure.by_cell() || late {
        return;
    }
    if let Some(attempt) = exchange.attempt_mut() {
        let failure = last_failure(failure, detail.to_owned());
        attempt.failed(fault, Instant::now(), failure);
    }
}

fn last_failure(failure: Failure, detail: String) -> LastFailure {
    LastFailure {
        at: SystemTime::now(),
        reason: failure.code,
        detail,
    }
}
