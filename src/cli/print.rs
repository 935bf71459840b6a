//! Lines for people on the standard streams.
//!
//! Whoever reads them may have left, as in `… | head`. The printing macros
//! panic then; the outcome of a command is in its exit status all the same.

use std::fmt::Display;
use std::io::{self, Write};

/// One line on standard output, if anybody reads it.
pub(super) fn line(text: impl Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// One line on standard error, if anybody reads it.
pub(super) fn error(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}
