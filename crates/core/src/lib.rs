//! The pure parts of Cellgate: bytes and values go in, bytes and values come out.
//!
//! Nothing here knows a runtime, a socket or a clock; a time that is needed is a
//! parameter. The manifest of this crate lists what it may use, so the compiler
//! keeps it so.
//!
//! - [`table`] compiles routing documents into routing tables, and imports nothing of ours.
//! - [`resilience`] has breakers, health, balancing and budgets; it imports value types of
//!   `table`.
//! - [`protocol`] is what edges and control planes say to each other; it imports `table`.
//! - [`pace`] lets a thread pause between the steps of long work in these.

pub mod pace;
pub mod protocol;
pub mod resilience;
pub mod table;
