//! The circuit breaker of one backend.
//!
//! A closed breaker admits every request and counts successive failures. An open one admits
//! none. When its timeout has passed, the next request makes it half-open and is its trial:
//! the only request that is admitted, whose outcome closes the breaker or opens it again.
//!
//! There are two kinds of failures with a count each, because a good header is reported at
//! once ([`Breaker::answered`]) and the end of the body perhaps much later. With one count,
//! each good header would reset the failure of the last body, and a cell that breaks every
//! body would never open the breaker.
//!
//! Each admitted request has a [`Ticket`], which it gives back with its outcome. The ticket
//! has the epoch in which the request was admitted. Each transition begins a new epoch, and
//! outcomes of earlier epochs are ignored: the breaker has been decided since.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::table::CircuitBreaker;

/// Retry-After while a half-open breaker waits for its trial: short, as the trial may end
/// at any time.
const PROBE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Which requests a breaker admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// All of them.
    Closed,
    /// None.
    Open,
    /// One, the trial.
    HalfOpen,
}

impl BreakerState {
    /// All states; `self as usize` is the index.
    pub const ALL: [BreakerState; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// `closed`, `open` or `half_open`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Proof that a request was admitted. It is given back once, to [`Breaker::completed`],
/// [`Breaker::failed`] or [`Breaker::abandoned`]. If the ticket of a trial is lost, the
/// breaker stays half-open.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    epoch: u64,
    probe: bool,
}

impl Ticket {
    /// Whether the request is the trial of a half-open breaker.
    pub fn is_probe(&self) -> bool {
        self.probe
    }

    /// The ticket as a number for an atomic; never 0.
    pub fn to_bits(self) -> u64 {
        self.epoch << 2 | u64::from(self.probe) << 1 | 1
    }

    /// The ticket of a number from [`Ticket::to_bits`].
    pub fn from_bits(bits: u64) -> Self {
        Self {
            epoch: bits >> 2,
            probe: bits & 2 != 0,
        }
    }
}

/// The answer of a breaker to a request.
#[derive(Clone, Copy, Debug)]
pub enum Admission {
    /// The request may be sent.
    Admitted {
        ticket: Ticket,
        /// The new state, if the request changed it.
        transition: Option<BreakerState>,
    },
    /// The request may not be sent.
    Refused {
        /// When to try again; never zero.
        retry_after: Duration,
    },
}

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No good response: connecting failed, a timeout, a connection that broke before the
    /// header, or a 5xx.
    NoAnswer,
    /// The connection broke within the body of the response.
    BrokenBody,
}

/// The circuit breaker of one backend. The settings are passed with each call and may
/// differ from those of the last one.
#[derive(Debug)]
pub struct Breaker {
    state: BreakerState,
    since: Instant,
    /// Incremented by each transition and each abandoned trial.
    epoch: u64,
    /// Half-open only: when the trial began.
    probing: Option<Instant>,
    /// Closed only: successive failures without a good header in between.
    unanswered: u32,
    /// Closed only: successive failures without a complete response in between.
    broken: u32,
}

impl Breaker {
    /// A closed one.
    pub fn new(now: Instant) -> Self {
        Self {
            state: BreakerState::Closed,
            since: now,
            epoch: 0,
            probing: None,
            unanswered: 0,
            broken: 0,
        }
    }

    /// The state. An open breaker stays open until the first request after its timeout.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// When the state began.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Asks to admit one request.
    pub fn admit(&mut self, settings: &CircuitBreaker, now: Instant) -> Admission {
        if let Err(retry_after) = self.would_admit(settings, now) {
            return Admission::Refused { retry_after };
        }
        let transition = match self.state {
            BreakerState::Open => self.enter(BreakerState::HalfOpen, now),
            BreakerState::Closed | BreakerState::HalfOpen => None,
        };
        let probe = self.state == BreakerState::HalfOpen;
        if probe {
            // The outcome of an overdue trial is ignored from now on.
            self.epoch += u64::from(self.probing.is_some());
            self.probing = Some(now);
        }
        Admission::Admitted {
            ticket: Ticket {
                epoch: self.epoch,
                probe,
            },
            transition,
        }
    }

    /// What [`Breaker::admit`] would answer. Changes nothing.
    ///
    /// # Errors
    ///
    /// When to try again; never zero.
    pub fn would_admit(&self, settings: &CircuitBreaker, now: Instant) -> Result<(), Duration> {
        match self.state {
            BreakerState::Closed => Ok(()),
            BreakerState::Open => {
                let elapsed = now.saturating_duration_since(self.since);
                match settings.timeout.saturating_sub(elapsed) {
                    Duration::ZERO => Ok(()),
                    left => Err(left),
                }
            }
            // The client of a trial may upload slowly. A trial that takes longer than the
            // breaker stays open is overdue, and the next request is another.
            BreakerState::HalfOpen => match self.probing {
                Some(began) if now.saturating_duration_since(began) < settings.timeout => {
                    Err(PROBE_RETRY_AFTER)
                }
                _ => Ok(()),
            },
        }
    }

    /// Records a response header with a status below 500. The header of a trial closes the
    /// breaker, so that a long download does not keep it half-open. The returned ticket
    /// replaces the old one for the rest of the exchange.
    pub fn answered(&mut self, ticket: Ticket, now: Instant) -> (Ticket, Option<BreakerState>) {
        if !self.is_current(ticket) {
            return (ticket, None);
        }
        self.unanswered = 0;
        let transition = match self.state {
            BreakerState::HalfOpen => self.enter(BreakerState::Closed, now),
            BreakerState::Closed | BreakerState::Open => None,
        };
        let ticket = Ticket {
            epoch: self.epoch,
            probe: false,
        };
        (ticket, transition)
    }

    /// Records that the response was complete.
    pub fn completed(&mut self, ticket: Ticket, now: Instant) -> Option<BreakerState> {
        let (ticket, transition) = self.answered(ticket, now);
        if self.is_current(ticket) {
            self.broken = 0;
        }
        transition
    }

    /// Records a failure that the backend caused.
    pub fn failed(
        &mut self,
        settings: &CircuitBreaker,
        ticket: Ticket,
        fault: Fault,
        now: Instant,
    ) -> Option<BreakerState> {
        if !self.is_current(ticket) {
            return None;
        }
        let failures = match fault {
            Fault::NoAnswer => &mut self.unanswered,
            Fault::BrokenBody => &mut self.broken,
        };
        *failures = failures.saturating_add(1);
        let opens = self.state == BreakerState::HalfOpen || *failures >= settings.failure_threshold;
        if opens {
            self.enter(BreakerState::Open, now)
        } else {
            None
        }
    }

    /// Records an end that says nothing about the backend: the client left. If it was the
    /// trial, the next request is.
    pub fn abandoned(&mut self, ticket: Ticket) {
        if ticket.probe && self.is_current(ticket) {
            self.epoch += 1;
            self.probing = None;
        }
    }

    /// The ticket that [`Breaker::admit`] would give while the breaker is closed and
    /// without failures. Successes change nothing then, so a caller may leave both calls
    /// out.
    pub fn calm(&self) -> Option<Ticket> {
        let calm = self.state == BreakerState::Closed && self.unanswered == 0 && self.broken == 0;
        calm.then_some(Ticket {
            epoch: self.epoch,
            probe: false,
        })
    }

    fn is_current(&self, ticket: Ticket) -> bool {
        ticket.epoch == self.epoch
    }

    fn enter(&mut self, state: BreakerState, now: Instant) -> Option<BreakerState> {
        self.state = state;
        self.since = now;
        self.epoch += 1;
        self.probing = None;
        self.unanswered = 0;
        self.broken = 0;
        Some(state)
    }
}
