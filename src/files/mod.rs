//! Files that other processes write: notice of a change, and the content once it has settled;
//! and token files.
//!
//! `source`, `state`, `control`, `cli` and `settings` import this; it imports `background`
//! and `table::Problem`.

pub(crate) mod notice;
pub(crate) mod read;
pub(crate) mod settle;
pub(crate) mod token;

pub use read::Sha256;
