//! The routing file of a file store: what people read and edit, kept the same as the
//! newest generation in both directions.
//!
//! - What changes in the file becomes a generation: not the file as a whole, but
//!   what is different from what was in it before, so that a change that was made
//!   through the API meanwhile stays. Of two changes of one key, or of anything but
//!   keys, the file's wins.
//! - What changes otherwise is written to the file, soon after. It is replaced in one
//!   step; an edit that somebody saved at that very moment is noticed, put back and
//!   taken over like any other.
//! - As long as there is something in the file that cannot be taken over, it is left
//!   alone: changes go on to be made and pushed, and are written to the file when it
//!   is valid again, together with what was edited in it. A file that is gone is
//!   written again.
//!
//! `state` remembers across restarts what was last read from the file or written to
//! it, which tells an edit that was made while nobody looked from a file that is only
//! old. `swap` replaces a file, and `keeper`
//! decides which of all this is to be done.

mod keeper;
mod state;
mod swap;

#[cfg(test)]
mod tests;

pub use keeper::{FileError, MirrorOptions, RoutingFile};
