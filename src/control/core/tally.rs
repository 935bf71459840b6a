//! What became of the changes that were asked for, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use super::commit::{CommitError, Committed};

/// What became of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Changed,
    Unchanged,
    /// Another change was first.
    Lost,
    Invalid,
    /// The store did not take it.
    Failed,
    /// The store may have taken it or not.
    Unknown,
}

impl Fate {
    pub const ALL: [Fate; 6] = [
        Fate::Changed,
        Fate::Unchanged,
        Fate::Lost,
        Fate::Invalid,
        Fate::Failed,
        Fate::Unknown,
    ];

    /// One word, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Lost => "lost",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }

    pub(super) fn of(committed: &Result<Committed, CommitError>) -> Self {
        match committed {
            Ok(Committed::Changed(_)) => Self::Changed,
            Ok(Committed::Unchanged(_)) => Self::Unchanged,
            Err(CommitError::Lost(_)) => Self::Lost,
            Err(CommitError::Invalid(_)) => Self::Invalid,
            Err(CommitError::Store(_)) => Self::Failed,
            Err(CommitError::Unknown(_)) => Self::Unknown,
        }
    }
}

/// Counts since the process began.
#[derive(Debug, Default)]
pub struct Tally {
    fates: [AtomicU64; Fate::ALL.len()],
    unreadable: AtomicU64,
}

impl Tally {
    pub(super) fn count(&self, fate: Fate) {
        if let Some(count) = self.fates.get(fate as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count_unreadable(&self) {
        self.unreadable.fetch_add(1, Ordering::Relaxed);
    }

    /// How many changes this became of.
    pub fn of(&self, fate: Fate) -> u64 {
        let count = self.fates.get(fate as usize);
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// How often the store could not be read or written.
    pub fn store_errors(&self) -> u64 {
        let unreadable = self.unreadable.load(Ordering::Relaxed);
        unreadable + self.of(Fate::Failed) + self.of(Fate::Unknown)
    }
}
