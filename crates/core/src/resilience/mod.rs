//! What the edge knows about whether an endpoint can take a request, and which
//! one of several should.
//!
//! State machines and choices, each a function of its input: a time or random
//! bits that are needed are parameters, and nothing here knows a runtime, a
//! socket or a clock. So each is tested against a naive model of itself, over
//! random sequences of operations. `live` holds the state, one [`Breaker`] and
//! one [`HealthState`] an endpoint, one [`Balancer`] and one [`RetryBudget`] a
//! placement. This folder imports nothing of ours but value types of `routing`
//! (a test in `src/purity.rs` keeps it so).
//!
//! Settings are passed in with each call instead of being kept, so that a new
//! generation of the routing table changes them and leaves the state alone.

mod avoidance;
mod balance;
mod breaker;
mod budget;
mod health;

#[cfg(test)]
mod tests;

pub use avoidance::{Avoidance, Claim};
pub use balance::{Balancer, Member, member_id};
pub use breaker::{Admission, Breaker, BreakerState, Fault, Ticket};
pub use budget::RetryBudget;
pub use health::{Health, HealthState, jittered};
