//! Where a request goes, and what it holds there.

use std::net::SocketAddr;

use crate::resilience::BreakerState;
use crate::table::{PlacementId, RouteReason};
use crate::upstream::{Admitted, Attempt, FailoverReason, Placement, Placements, Rejected};

/// Where a request goes: the assignment of its key by the generation that was current, and
/// the placement that took it.
#[derive(Debug)]
pub struct Destination {
    /// The placements of that generation. They are kept until the request is over; the keys
    /// of that generation are not.
    pub placements: Placements,
    /// The number of that generation.
    pub generation: u64,
    /// The placement that the table assigns the key to.
    pub home: PlacementId,
    pub reason: RouteReason,
    pub hold: Hold,
}

/// What became of the request at its placements.
#[derive(Debug)]
pub enum Hold {
    /// It holds no place, and no placement rejected it.
    Nothing,
    /// A placement took it; its places there, and the attempt under way.
    Admitted(Admitted),
    /// No placement takes it.
    Rejected(Rejected),
}

impl Destination {
    /// The placement that serves the request, or would have.
    pub fn serving(&self) -> PlacementId {
        match &self.hold {
            Hold::Admitted(admitted) => admitted.placement,
            Hold::Rejected(rejected) => rejected.placement,
            Hold::Nothing => self.home,
        }
    }

    pub fn placement(&self) -> &Placement {
        self.placements.get(self.serving())
    }

    /// The placement that the key is assigned to.
    pub fn home(&self) -> &Placement {
        self.placements.get(self.home)
    }

    fn admitted(&self) -> Option<&Admitted> {
        match &self.hold {
            Hold::Admitted(admitted) => Some(admitted),
            Hold::Nothing | Hold::Rejected(_) => None,
        }
    }

    pub fn rejected(&self) -> Option<&Rejected> {
        match &self.hold {
            Hold::Rejected(rejected) => Some(rejected),
            Hold::Nothing | Hold::Admitted(_) => None,
        }
    }

    /// The attempt under way.
    pub fn attempt(&self) -> Option<&Attempt> {
        self.admitted()?.attempt.as_ref()
    }

    /// The address that the request was last sent to.
    pub fn address(&self) -> Option<SocketAddr> {
        Some(self.admitted()?.backend()?.address)
    }

    /// Why another placement than its own serves the request, or would have.
    pub fn failover(&self) -> Option<FailoverReason> {
        match &self.hold {
            Hold::Admitted(admitted) => admitted.failover,
            Hold::Rejected(rejected) => rejected.failover,
            Hold::Nothing => None,
        }
    }

    /// The value of `X-Circuit-State`.
    pub fn circuit(&self) -> Option<BreakerState> {
        match &self.hold {
            Hold::Admitted(admitted) => admitted.circuit,
            Hold::Rejected(rejected) => rejected.circuit,
            Hold::Nothing => None,
        }
    }

    /// The endpoint that the request was last sent to; the placement's first one if it was
    /// sent nowhere.
    pub fn upstream_url(&self) -> &str {
        let backend = self.admitted().and_then(Admitted::backend);
        match (backend, self.placement().endpoints()) {
            (Some(backend), _) => &backend.origin.url,
            (None, [(endpoint, _), ..]) => &endpoint.origin.url,
            (None, []) => "",
        }
    }
}
