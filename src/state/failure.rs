//! Why the newest document is not the one being served: what is shown of it, and what is
//! logged.

use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::edge_state::EdgeState;
use super::generation::Source;
use crate::files::Sha256;
use crate::table::Problem;
use crate::telemetry::metrics::Reload;
use crate::telemetry::once_per::OncePer;
use crate::telemetry::time;

/// Most problems that [`LastError`] lists.
const SHOWN_PROBLEMS: usize = 100;

/// Most problems that one log line lists.
const LOGGED_PROBLEMS: usize = 10;

/// The shortest time between two log lines about refused pushes: a faulty control plane may
/// send one after the other.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A document that was refused, or a source that could not be read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LastError {
    #[serde(serialize_with = "time::serialize")]
    pub at: SystemTime,
    /// At most 100 of them.
    pub problems: Vec<Problem>,
    /// How many more there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub omitted: usize,
}

impl LastError {
    fn new(at: SystemTime, problems: &[Problem]) -> Self {
        let shown = problems.get(..SHOWN_PROBLEMS).unwrap_or(problems);
        Self {
            at,
            problems: shown.to_vec(),
            omitted: problems.len() - shown.len(),
        }
    }
}

pub(super) fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The last failure, until something is served again.
pub(super) struct Failures {
    last: Option<Failure>,
    pushes_logged: OncePer,
}

struct Failure {
    shown: LastError,
    cause: Cause,
    logged: bool,
}

/// By what a failure is told from the one before it.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Cause {
    Document(Sha256),
    /// The control plane's number of the generation.
    Pushed(u64),
    /// What the control plane sends does not lead to the digest that it announces.
    OutOfStep,
    /// The source cannot be read.
    Source,
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            last: None,
            pushes_logged: OncePer::new(LOG_INTERVAL),
        }
    }
}

impl Failures {
    pub(super) fn shown(&self) -> Option<LastError> {
        self.last.as_ref().map(|failure| failure.shown.clone())
    }

    /// What is being served is the newest.
    pub(super) fn clear(&mut self) {
        self.last = None;
    }
}

impl EdgeState {
    /// Records that the source has no document, for the reasons in `problems`. Logs it
    /// unless it is the same as the last time.
    pub fn source_failed(&self, problems: Vec<Problem>, now: SystemTime) {
        if self.failed(Cause::Source, Source::File, &problems, now) {
            self.metrics.reloaded(Reload::Unreadable);
        }
    }

    /// Records that what a control plane sends does not lead to the table that it should.
    /// Logs it unless that was the last failure already, in whatever words.
    pub fn out_of_step(&self, problems: Vec<Problem>, now: SystemTime) {
        let before = self.failures.lock().last.replace(Failure {
            shown: LastError::new(now, &problems),
            cause: Cause::OutOfStep,
            logged: true,
        });
        if before.is_none_or(|before| before.cause != Cause::OutOfStep) {
            log::warn!(
                target: "cellgate::state",
                "the table is not what the control plane says that it should be: {}",
                Listed(&problems)
            );
        }
    }

    /// Records that the control plane says that what is being served is what should be,
    /// whatever was refused before.
    pub fn in_step(&self) {
        let failing = self.failures.lock().last.is_some();
        if failing {
            self.recovered(Source::ControlPlane);
        }
    }

    /// Records that the newest document is the one being served.
    pub(super) fn recovered(&self, source: Source) {
        self.metrics.reloaded(Reload::Unchanged);
        let failure = self.failures.lock().last.take();
        if failure.is_some_and(|failure| failure.logged) {
            log::info!(
                target: "cellgate::state",
                source = source.as_str();
                "config is good again: it is what is being served"
            );
        }
    }

    /// Records why a change was refused.
    pub(super) fn refused(
        &self,
        cause: Cause,
        source: Source,
        problems: &[Problem],
        now: SystemTime,
    ) {
        self.failed(cause, source, problems, now);
        self.metrics.reloaded(Reload::Refused);
    }

    /// Records a failure, and logs it unless it is the same as the last one. Returns whether
    /// it differs from that.
    fn failed(&self, cause: Cause, source: Source, problems: &[Problem], now: SystemTime) -> bool {
        let shown = LastError::new(now, problems);
        let mut failures = self.failures.lock();
        let known = failures.last.as_ref().is_some_and(|last| {
            last.cause == cause
                && last.shown.problems == shown.problems
                && last.shown.omitted == shown.omitted
        });
        if known {
            return false;
        }
        let unlogged = match source {
            Source::ControlPlane => failures.pushes_logged.allow(Instant::now()),
            Source::File => Some(0),
        };
        failures.last = Some(Failure {
            shown,
            cause,
            logged: unlogged.is_some(),
        });
        drop(failures);
        // Without a generation this is the start of the process, which ends with these
        // problems.
        if let (Some(unlogged), Some(current)) = (unlogged, self.current()) {
            log::error!(
                target: "cellgate::state",
                serving_version = current.table.version(),
                serving_generation = current.number,
                refused_unlogged = unlogged;
                "Config reload failed: {}",
                Listed(problems)
            );
        }
        true
    }
}

/// `2 problems: …; …`, the first few of them.
struct Listed<'a>(&'a [Problem]);

impl std::fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.0.len();
        write!(f, "{count} problem{}: ", if count == 1 { "" } else { "s" })?;
        for (index, problem) in self.0.iter().take(LOGGED_PROBLEMS).enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        match count.saturating_sub(LOGGED_PROBLEMS) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}
