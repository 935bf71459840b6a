//! The demo: cells that echo requests and misbehave on request, and `cellgate demo`, which runs four of them
//! behind an edge. Cells stand in for applications in tests as well.
//!
//! Only `cli` imports this folder.

mod answer;
mod cell;
mod children;
mod faults;
mod misbehaviour;
mod run;
#[cfg(test)]
mod tests;

pub use cell::{Cell, serve};
pub use misbehaviour::Misbehaviour;
pub use run::run;
