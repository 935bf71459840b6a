//! Which placement serves a request, and which of its backends.
//!
//! A request belongs to the placement that the table names. Only while no
//! backend of that one is usable, and only if the document names a fallback,
//! does another serve it.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::backend::{Attempt, Backend, uptime};
use super::placement::{Outage, Placement};
use super::placement_state::Slot;
use super::placements::Placements;
use crate::resilience::BreakerState;
use crate::table::PlacementId;

/// Why a request is not served by its own placement: the value of `X-Failover-Reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailoverReason {
    /// Health probes fail, or no host of the placement has an address.
    UpstreamUnhealthy,
    /// Circuit breakers are open.
    CircuitOpen,
}

impl FailoverReason {
    /// `upstream_unhealthy` or `circuit_open`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UpstreamUnhealthy => "upstream_unhealthy",
            Self::CircuitOpen => "circuit_open",
        }
    }
}

/// A request that a placement has admitted. Dropping it gives back its slot and its
/// attempt.
#[derive(Debug)]
pub struct Admitted {
    /// The placement that serves the request.
    pub placement: PlacementId,
    /// Why that is not the request's own.
    pub failover: Option<FailoverReason>,
    /// The value of `X-Circuit-State`: the state of the breaker at the request's own
    /// placement; none if that has no breaker.
    pub circuit: Option<BreakerState>,
    /// None while the placement's addresses are not known yet.
    pub attempt: Option<Attempt>,
    /// Backends at which this request failed.
    tried: Vec<Arc<Backend>>,
    _slot: Slot,
}

/// A request that no placement admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub cause: Cause,
    /// The placement that would have served it: its own, or a fallback that is
    /// full.
    pub placement: PlacementId,
    /// Why that is not its own.
    pub failover: Option<FailoverReason>,
    /// The value of `X-Circuit-State`.
    pub circuit: Option<BreakerState>,
    /// The value of `Retry-After`.
    pub retry_after: Duration,
}

/// Why no placement admits a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The placement that would serve it is at its concurrency limit.
    ConcurrencyLimit,
    /// No backend of its own placement or of any fallback is usable.
    Unavailable(FailoverReason),
}

/// How to treat a placement whose first lookup is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// The request waits for the lookup.
    Wait,
    /// It counts as one without an address.
    GiveUp,
}

/// Retry-After for a placement that is full.
const FULL: Duration = Duration::from_secs(1);

impl Placements {
    /// Finds the placement and the backend that serve a request of `home` now.
    ///
    /// # Errors
    /// Why there is none.
    pub fn admit(&self, home: PlacementId, key: &[u8], now: Instant) -> Result<Admitted, Rejected> {
        let admitted = self.walk(home, key, &mut Vec::new(), Unresolved::Wait, now)?;
        let placement = self.get(admitted.placement);
        if placement.retries() {
            placement.state.may_retry(uptime(now));
        }
        Ok(admitted)
    }

    /// Whether a request whose attempt was set aside can be sent elsewhere.
    pub fn has_alternative(&self, admitted: &Admitted, now: Instant) -> bool {
        let placement = self.get(admitted.placement);
        placement.has_untried(&admitted.tried, now)
            || placement.fallback.is_some() && placement.outage_now(now) != Outage::Exhausted
    }

    /// Another attempt for a request whose last one failed before anything was
    /// sent: at another backend of the same placement, or, if meanwhile none is
    /// usable, where a new request would go. Leaves `admitted` without an attempt
    /// if that is to wait for a first lookup.
    ///
    /// # Errors
    /// Why there is none; none when every backend was tried. `admitted` stays
    /// as it was.
    pub fn admit_again(
        &self,
        home: PlacementId,
        key: &[u8],
        admitted: &mut Admitted,
        unresolved: Unresolved,
        now: Instant,
    ) -> Result<(), Option<Rejected>> {
        let placement = self.get(admitted.placement);
        match placement.pick(key, &admitted.tried, now) {
            Ok(attempt) => {
                if admitted.failover.is_none() && admitted.circuit.is_some() {
                    admitted.circuit = Some(attempt.state);
                }
                admitted.attempt = Some(attempt);
                return Ok(());
            }
            Err(outage) => {
                if outage
                    .failover(placement.fallback.is_some(), unresolved)
                    .is_none()
                {
                    return Err(None);
                }
            }
        }
        let mut next = self
            .walk(home, key, &mut admitted.tried, unresolved, now)
            .map_err(Some)?;
        let waits = || self.get(next.placement).outage_now(now) == Outage::Unresolved;
        if next.attempt.is_none() && !waits() {
            admitted.tried = mem::take(&mut next.tried);
            return Err(None);
        }
        *admitted = next;
        Ok(())
    }

    /// From a request's own placement along its fallbacks to the first that
    /// takes it.
    fn walk(
        &self,
        home: PlacementId,
        key: &[u8],
        tried: &mut Vec<Arc<Backend>>,
        unresolved: Unresolved,
        now: Instant,
    ) -> Result<Admitted, Rejected> {
        let own = self.get(home);
        let circuit = || {
            let guarded = own.policy.circuit_breaker.is_some();
            guarded.then(|| own.circuit())
        };
        let (mut id, mut placement) = (home, own);
        let mut first: Option<(FailoverReason, Duration)> = None;
        // A table has no cycle of fallbacks.
        loop {
            let failover = first.map(|(reason, _)| reason);
            let failover_of =
                |outage: Outage| outage.failover(placement.fallback.is_some(), unresolved);
            // The slot is taken first: a backend's only trial must not be spent on a
            // request that is turned away.
            let reason = match placement.state.enter(placement.policy.concurrency_limit) {
                Some(slot) => match placement.pick(key, tried, now) {
                    Ok(attempt) => {
                        let state = match failover {
                            None => own.policy.circuit_breaker.map(|_| attempt.state),
                            Some(_) => circuit(),
                        };
                        return Ok(Admitted {
                            placement: id,
                            failover,
                            circuit: state,
                            attempt: Some(attempt),
                            tried: mem::take(tried),
                            _slot: slot,
                        });
                    }
                    Err(outage) => match failover_of(outage) {
                        Some(reason) => reason,
                        // A fallback without an address is no fallback.
                        None if outage == Outage::NoAddress && first.is_some() => {
                            return Err(Rejected::unavailable(home, circuit(), first));
                        }
                        // The backend is chosen when the lookup has ended.
                        None => {
                            return Ok(Admitted {
                                placement: id,
                                failover,
                                circuit: circuit(),
                                attempt: None,
                                tried: mem::take(tried),
                                _slot: slot,
                            });
                        }
                    },
                },
                None => match failover_of(placement.outage_if_full(now)) {
                    Some(reason) => reason,
                    None => {
                        return Err(Rejected {
                            cause: Cause::ConcurrencyLimit,
                            placement: id,
                            failover,
                            circuit: circuit(),
                            retry_after: FULL,
                        });
                    }
                },
            };
            first.get_or_insert(reason);
            match placement.fallback {
                Some(next) => {
                    id = next;
                    placement = self.get(next);
                }
                None => return Err(Rejected::unavailable(home, circuit(), first)),
            }
        }
    }
}

/// The way that a request goes now.
pub struct Way {
    /// Its own placement, and the fallbacks that it would come to.
    pub asked: Vec<PlacementId>,
    /// The last of these, if it takes the request.
    pub served_by: Option<PlacementId>,
    /// Why its own placement does not.
    pub failover: Option<FailoverReason>,
}

/// A placement that takes no more requests.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Full {
    pub in_flight: usize,
    pub concurrency_limit: u32,
}

impl Placements {
    /// The way that [`admit`](Self::admit) would send a request of `home`. Unlike that, it
    /// takes nothing.
    pub fn way(&self, home: PlacementId, now: Instant) -> Way {
        let mut way = Way {
            asked: Vec::new(),
            served_by: None,
            failover: None,
        };
        let mut next = Some(home);
        while let Some(id) = next {
            way.asked.push(id);
            let placement = self.get(id);
            let outage = match placement.full() {
                Some(_) => placement.outage_if_full(now),
                None => placement.outage_now(now),
            };
            let Some((reason, _)) = outage.failover(placement.fallback.is_some(), Unresolved::Wait)
            else {
                way.served_by = (outage != Outage::NoAddress).then_some(id);
                break;
            };
            way.failover.get_or_insert(reason);
            next = placement.fallback;
        }
        way
    }
}

impl Placement {
    /// How many requests it serves, when these are as many as it may.
    pub fn full(&self) -> Option<Full> {
        let concurrency_limit = self.policy.concurrency_limit?;
        let in_flight = self.state.in_flight();
        (in_flight >= concurrency_limit as usize).then_some(Full {
            in_flight,
            concurrency_limit,
        })
    }
}

impl Rejected {
    /// Neither `home` nor a fallback of it is usable; `first` is why `home` is
    /// not.
    fn unavailable(
        home: PlacementId,
        circuit: Option<BreakerState>,
        first: Option<(FailoverReason, Duration)>,
    ) -> Self {
        let (reason, retry_after) = first.unwrap_or((FailoverReason::UpstreamUnhealthy, FULL));
        Self {
            cause: Cause::Unavailable(reason),
            placement: home,
            failover: None,
            circuit,
            retry_after,
        }
    }
}

impl Outage {
    /// Why a request goes on to the placement's fallback, or is refused without
    /// one, and when it may be worth another try. None: it stays.
    pub(crate) fn failover(
        self,
        has_fallback: bool,
        unresolved: Unresolved,
    ) -> Option<(FailoverReason, Duration)> {
        let given_up = match self {
            Self::CircuitOpen(left) => return Some((FailoverReason::CircuitOpen, left)),
            Self::Unhealthy(interval) => {
                return Some((FailoverReason::UpstreamUnhealthy, interval));
            }
            Self::NoAddress => true,
            Self::Unresolved => unresolved == Unresolved::GiveUp,
            Self::Exhausted => false,
        };
        (given_up && has_fallback).then_some((FailoverReason::UpstreamUnhealthy, FULL))
    }
}

impl Admitted {
    /// Ends a failed attempt; the next one is made at another backend.
    pub fn set_aside(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.tried.push(Arc::clone(attempt.backend()));
        }
    }

    /// The backend of the last attempt.
    pub fn backend(&self) -> Option<&Arc<Backend>> {
        let attempt = self.attempt.as_ref().map(Attempt::backend);
        attempt.or(self.tried.last())
    }
}
