//! What the edge remembers from one process to the next: the tables that it
//! served last, on disk, and which of them did it good.
//!
//! The directory belongs to one edge. In it are
//!
//! - `NUMBER.generation`, a served table each: a [`record`] with its own hash,
//!   so that a torn or damaged one is told from a whole one;
//! - `journal.json`, what became of them: the [`Journal`](journal::Journal);
//! - `lock`, held by the process that may write.
//!
//! Every file is written beside its place, synced and renamed, so a crash leaves
//! the old one or the new one. Nothing here is on the way of a request or of a
//! change: [`Memory::keep`] follows the table that is being served. If it cannot
//! write, it says so and tries again, and that is all that comes of it.
//!
//! At start, [`Memory::recall`] puts back what was served last. A table that
//! had just begun to serve when the process crashed is given one more try; if
//! that ends likewise within a minute, it is *condemned*: the edge falls back to
//! the one before, and refuses the condemned one's content for as long as the
//! journal knows of it. Deciding all this is `journal`'s and `schedule`'s, which
//! are given the time and touch no file; `directory` is the part that does.

mod directory;
mod journal;
mod keep;
mod recall;
mod record;
mod schedule;
mod status;

#[cfg(test)]
mod tests;

pub use recall::{Memory, MemoryOptions};
pub(super) use record::Stored;
pub use status::{Fallback, MemoryStatus};
