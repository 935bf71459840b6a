//! What the edge remembers from one process to the next: the tables that it
//! served last, on disk, and which of them did it good.
//!
//! The directory belongs to one edge. In it are
//!
//! - `NUMBER.generation`, a served table each: a [`record`] with its own hash,
//!   so that a torn or damaged one is told from a whole one;
//! - `NUMBER.changes`, what followed that table, line by line: [`changes`], each with
//!   its own sum, so that a change of one key costs a line and not a table;
//! - `journal.json`, what became of them: the [`Journal`](journal::Journal);
//! - `lock`, held by the process that may write.
//!
//! Every other file is written beside its place, synced and renamed, so a crash leaves
//! the old one or the new one. When the changes have more bytes than their table, the
//! next table is written whole. Nothing here is on the way of a request or of a
//! change: [`Memory::keep`] follows the table that is being served. If it cannot
//! write, it says so and tries again, and that is all that comes of it.
//!
//! At start, [`Memory::recall`] puts back what was served last. A table that
//! had just begun to serve when the process crashed is given one more try; if
//! that ends likewise within a minute, on the same or on what followed, both are
//! *condemned*: the edge falls back to the newest that has proved to be good, else
//! the one before, and refuses the condemned one's content for as long as the
//! journal knows of it. Deciding all this is `journal`'s and `schedule`'s, which
//! are given the time and touch no file; `directory` is the part that does, and
//! `chain` makes generations of what it reads.

mod chain;
mod changes;
mod directory;
mod journal;
mod keep;
mod record;
mod restore;
mod schedule;
mod status;

#[cfg(test)]
mod tests;

pub(crate) use record::Stored;
pub use restore::{Memory, MemoryOptions};
pub use status::{Fallback, MemoryStatus};
