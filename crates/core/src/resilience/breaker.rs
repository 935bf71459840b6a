//! The circuit breaker of one endpoint.
//!
//! Closed lets every request through and counts failures in a row. Open lets
//! none through. When it has been open for its timeout, the next request makes
//! it half-open and is its probe: the one request let through, whose outcome
//! closes the breaker or opens it again.
//!
//! Failures come in two kinds with a count each, because a good answer's header
//! is told at once ([`Breaker::answered`]) and the end of its body perhaps much
//! later. With one count, the header of each answer would make up for the body
//! of the last one, and a cell that breaks every body would never open it.
//!
//! Each admitted request carries a [`Ticket`] and hands it back with its
//! outcome. The ticket has the epoch in which the request was admitted. Every
//! transition begins a new epoch, and outcomes of earlier ones are ignored: they
//! tell of an endpoint that was judged since.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::table::CircuitBreaker;

/// When to try again while a half-open breaker waits for its probe: soon, as
/// the probe may end at any time.
const PROBE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Whether an endpoint's breaker lets requests through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// All of them.
    Closed,
    /// None.
    Open,
    /// One at a time, the probe.
    HalfOpen,
}

impl BreakerState {
    /// Every state, in the order of their declaration (`self as usize` is the
    /// index), so that metrics can hold one counter for each.
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

/// Proof that a request was admitted, handed back with its outcome: once to
/// [`Breaker::completed`], [`Breaker::failed`] or [`Breaker::abandoned`]. A
/// probe whose ticket never comes back keeps its breaker half-open.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    epoch: u64,
    probe: bool,
}

impl Ticket {
    /// Whether the request is the one that a half-open breaker waits for.
    pub fn is_probe(&self) -> bool {
        self.probe
    }

    /// The ticket as one number, for an atomic; never 0.
    pub fn to_bits(self) -> u64 {
        self.epoch << 2 | u64::from(self.probe) << 1 | 1
    }

    /// The ticket that [`Ticket::to_bits`] made this number of.
    pub fn from_bits(bits: u64) -> Self {
        Self {
            epoch: bits >> 2,
            probe: bits & 2 != 0,
        }
    }
}

/// What a breaker says to a request.
#[derive(Clone, Copy, Debug)]
pub enum Admission {
    /// It may go to the endpoint.
    Admitted {
        ticket: Ticket,
        /// The state that this request brought about, if it did.
        transition: Option<BreakerState>,
    },
    /// It may not.
    Refused {
        /// When it may be worth another try; never zero.
        retry_after: Duration,
    },
}

/// How an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No good answer: could not connect, timed out, broke before the response's
    /// header, or answered with 5xx.
    NoAnswer,
    /// Broke in the middle of the response's body.
    BrokenBody,
}

/// The circuit breaker of one endpoint. Its settings come with each call and
/// may differ from those of the last one.
#[derive(Debug)]
pub struct Breaker {
    state: BreakerState,
    since: Instant,
    /// Grows with every transition and every abandoned probe.
    epoch: u64,
    /// Half-open only: since when the probe is on its way.
    probing: Option<Instant>,
    /// Closed only: failures in a row without a good header in between.
    unanswered: u32,
    /// Closed only: failures in a row without a whole exchange in between.
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

    /// Open stays open until a request comes, however long ago its timeout was.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// Since when it has been in its state.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Asks for one request to be let through.
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
            // A probe that is overdue does not count any more.
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

    /// What [`Breaker::admit`] would say, with nothing changed.
    ///
    /// # Errors
    ///
    /// After how long another try may be worth it; never zero.
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
            // A probe may hang for as long as its client cares to upload. One
            // that takes longer than the breaker stays open is overdue.
            BreakerState::HalfOpen => match self.probing {
                Some(began) if now.saturating_duration_since(began) < settings.timeout => {
                    Err(PROBE_RETRY_AFTER)
                }
                _ => Ok(()),
            },
        }
    }

    /// The header of an answer below 500 came. A probe closes the breaker by
    /// this, so that a long download does not hold it half-open. The ticket
    /// returned is for the rest of the exchange and replaces the old one.
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

    /// The whole exchange went well, to the end of the response's body.
    pub fn completed(&mut self, ticket: Ticket, now: Instant) -> Option<BreakerState> {
        let (ticket, transition) = self.answered(ticket, now);
        if self.is_current(ticket) {
            self.broken = 0;
        }
        transition
    }

    /// The exchange failed by what the endpoint did.
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

    /// The exchange ended and says nothing about the endpoint: the client left.
    /// If it was the probe, the next request can be.
    pub fn abandoned(&mut self, ticket: Ticket) {
        if ticket.probe && self.is_current(ticket) {
            self.epoch += 1;
            self.probing = None;
        }
    }

    /// The ticket that [`Breaker::admit`] would give, while the breaker is closed
    /// and has nothing to count down: outcomes that are well then change nothing,
    /// and a caller may leave both calls out.
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
