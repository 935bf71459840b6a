//! How an exchange ends: counted, logged, and everything given back.

use std::fmt::Display;
use std::sync::Arc;

use log::{debug, warn};

use super::{Course, Exchange, Failure, Hold};
use crate::telemetry::{AccessLog, AccessRecord, Metrics};
use crate::upstream::FailoverReason;

/// Where exchanges are recorded.
pub struct Recorder {
    pub metrics: Arc<Metrics>,
    pub access_log: AccessLog,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorder")
    }
}

/// What an engine says of the end of an exchange.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// Status of the final response that was written to the client; `None` if none was.
    pub written: Option<u16>,
    /// Body bytes written to the client.
    pub bytes_sent: u64,
    /// No error ended it.
    pub complete: bool,
}

impl Exchange {
    /// Ends the exchange. Only the first call does anything.
    pub fn end(&mut self, ending: Ending) {
        if matches!(self.course, Course::Ended) {
            return;
        }
        if ending.complete
            && self.is_answered()
            && let Some(attempt) = self.attempt_mut()
        {
            attempt.completed();
        }
        self.record(ending);
        self.course = Course::Ended;
        // The rest of the request's body may still take the client a while.
        if let Some(destination) = &mut self.destination {
            destination.hold = Hold::Nothing;
        }
    }

    /// Counts the request and writes its access-log line.
    fn record(&self, ending: Ending) {
        let failure = self.failure();
        let status = match (ending.written, failure) {
            (Some(status), _) => status,
            (None, Some(failure)) => failure.status,
            (None, None) => Failure::CLIENT_GONE.status,
        };
        let duration = self.started.elapsed();
        let Recorder {
            metrics,
            access_log,
        } = &*self.recorder;
        match &self.destination {
            Some(to) => {
                let placement = &to.placement().state.metrics;
                placement.request_done(to.reason, status, duration.as_secs_f64());
                if let Some(reason) = to.failover().filter(|_| to.address().is_some()) {
                    to.home().state.metrics.failed_over(reason.as_str());
                }
            }
            None if failure.is_some() => metrics.request_refused(status),
            // /debug/config
            None => {}
        }
        if !access_log.is_enabled() {
            return;
        }
        let request = &self.request;
        let to = self.destination.as_ref();
        // The request line of a refused request is not its own.
        let refused = self.downstream.refusal().is_some();
        let (method, path) = match refused {
            true => ("-", "-"),
            false => (
                request.method.as_str(),
                request.path.as_deref().unwrap_or("-"),
            ),
        };
        access_log.log(&AccessRecord {
            request_id: self.id_str(),
            method,
            path,
            routing_key: request.key.as_deref(),
            placement: to.map(|to| to.placement().state.name.as_str()),
            reason: to.map(|to| to.reason.as_str()),
            upstream: to.map(|to| to.upstream_url()),
            upstream_address: to.and_then(|to| to.address()),
            failover_reason: to.and_then(|to| to.failover()).map(FailoverReason::as_str),
            status,
            duration,
            bytes_sent: ending.bytes_sent,
            client: Some(self.client().peer),
            error: failure.map(|failure| failure.code),
            generation: to.map(|to| to.generation),
        });
    }

    /// Logs what the request failed by; `cause` is what the engine saw.
    pub fn log_failure(&self, failure: Failure, cause: &dyn Display) {
        let to = self.destination.as_ref();
        let placement = to.map_or("", |to| to.placement().state.name.as_str());
        let request_id = self.id_str();
        if failure.by_client() {
            // The client's address and the reason are in the access log.
            debug!(request_id, placement, error = failure.code; "request ended by the client: {cause}");
            return;
        }
        warn!(
            request_id,
            placement,
            upstream = to.map_or("", |to| to.upstream_url()),
            method = self.request.method.as_str(),
            attempts = self.attempts,
            error = failure.code;
            "request failed: {cause}"
        );
    }
}

impl Drop for Exchange {
    /// An exchange that nobody ended was cut by a panic, which is a defect, or by the end of
    /// the process, which is not.
    fn drop(&mut self) {
        if matches!(self.course, Course::Ended) {
            return;
        }
        let panicked = std::thread::panicking();
        let failure = self.failure().unwrap_or(match panicked {
            true => Failure::INTERNAL,
            false => Failure::STOPPED,
        });
        self.fail(failure);
        if panicked {
            self.log_failure(failure, &"a panic ended it");
        }
        self.end(Ending {
            written: self.status,
            bytes_sent: 0,
            complete: false,
        });
    }
}
