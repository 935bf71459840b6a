//! One thing that is wrong with the settings, in words an operator can act on.

use std::fmt;
use std::path::PathBuf;

/// A refused setting. Loading reports all of them at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsProblem {
    /// The settings file, or `None` when the value came from the environment
    /// or from nowhere in particular.
    pub file: Option<PathBuf>,
    /// Line and column in `file`, from 1. `None` when there is no such place,
    /// as for a missing file.
    pub position: Option<(usize, usize)>,
    /// The key's path (`cellgate.timeouts.connect`) or the environment
    /// variable; empty when it is about the whole file.
    pub key: String,
    /// Lowercase; names the bad value and what would be valid.
    pub message: String,
}

impl fmt::Display for SettingsProblem {
    /// `conf/edge.yaml:12:14: cellgate.timeouts.connect: "5" has no unit: …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}", file.display())?;
            if let Some((line, column)) = self.position {
                write!(f, ":{line}:{column}")?;
            }
            f.write_str(": ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for SettingsProblem {}
