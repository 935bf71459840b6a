//! The demo cell: a small HTTP/1.1 server that says what it was asked.
//!
//! It stands in for a tenant's application in the demo, in tests and in hand-made experiments, and can be
//! told to misbehave the ways real cells do. Only `cli` imports this folder; the edge never does.

mod answer;
mod control;
mod faults;
mod misbehaviour;
mod server;
#[cfg(test)]
mod tests;

pub use misbehaviour::Misbehaviour;
pub use server::{Cell, serve};
