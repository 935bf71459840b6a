//! Cellgate: an edge proxy that routes each tenant to the cell where it lives.
//!
//! See `docs/architecture.md` for the way of a request and of a change through
//! these modules.

pub mod admin;
mod background;
pub mod cli;
mod client;
pub mod control;
pub mod demo;
pub mod exchange;
mod files;
pub mod http;
pub mod proxy;
pub mod settings;
pub mod source;
pub mod state;
pub mod telemetry;
pub mod upstream;

pub use cellgate_core::{protocol, resilience, table};
