//! The state directory: the tables that the edge served last, kept on disk for a restart.
//!
//! The directory belongs to one edge. It holds `state.db`, a SQLite database in WAL mode
//! ([`database`]), and `lock`, which the process that may write holds. The database has
//!
//! - snapshots: whole routing tables;
//! - deltas: how a generation differs from the one stored before it, so that a change of one
//!   key writes a row and not a table. When the deltas have more bytes than their snapshot,
//!   the next generation is stored as a snapshot;
//! - the [`Journal`](journal::Journal): which generations proved good and which made the edge
//!   crash.
//!
//! Every write is one transaction, so a crash at any byte leaves the old state or the new one.
//! Nothing here is in the path of a request or of a change: [`StateDir::keep`] follows the
//! table that is served. When it cannot write, it logs that, shows it and retries.
//!
//! At start, [`StateDir::restore`] serves the generation that was served last. If the process
//! crashed before that generation was promoted, it is tried once more; after a second such
//! crash within a minute, on the same generation or a later one, both are *quarantined*: the
//! edge falls back to the newest promoted generation, else to the one before, and refuses the
//! quarantined content for as long as the journal lists it. `journal` and `schedule` decide
//! this; they are given the time and touch no file. `database` and `rows` read and write.

mod database;
mod journal;
mod keep;
mod record;
mod restore;
mod rows;
mod schedule;

#[cfg(test)]
mod tests;

pub use restore::{Fallback, StateDir, StateDirOptions, StateDirStatus};
