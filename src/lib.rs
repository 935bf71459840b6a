//! Cellgate: an edge proxy that routes each tenant to the cell where it lives.
//!
//! See `docs/architecture.md` for the way of a request and of a change through
//! these modules.

pub mod admin;
pub mod cell;
mod chores;
pub mod cli;
pub mod control;
mod files;
pub mod lifecycle;
pub mod live;
pub mod net;
mod pace;
pub mod protocol;
pub mod proxy;
pub mod resilience;
pub mod routing;
pub mod settings;
pub mod source;
pub mod telemetry;

#[cfg(test)]
mod purity;
