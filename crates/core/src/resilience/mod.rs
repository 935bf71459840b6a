//! Whether an endpoint can take a request, and which of several should.
//!
//! State machines and choices, each a function of its input: times and random bits are
//! parameters, and nothing here knows a runtime, a socket or a clock. Each is tested against a
//! naive model of itself over random sequences of operations. `upstream` holds the state: one
//! [`Breaker`] and one [`HealthState`] for each backend, one [`Balancer`] and one
//! [`RetryBudget`] for each placement. This folder imports value types of `table` only.
//!
//! Settings are passed with each call and not kept, so that a new generation changes them
//! without touching the state.

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
