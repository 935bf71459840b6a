//! The access log: one JSON line a request, formatted into one buffer and
//! handed to a [`LineLog`](super::line_log), so that no request waits for it.
mod record;

use std::io;
use std::time::{Duration, SystemTime};

use prometheus::IntCounter;

use super::line_log::{LineLog, Queue, Target};
use crate::settings::AccessLogTarget;

pub use record::AccessRecord;

/// About a second of a busy edge: enough for a disk to catch its breath.
const QUEUE: Queue = Queue {
    lines: 32_768,
    bytes: 16 << 20,
};

/// A handle; clones share one log. A disabled one costs nothing.
#[derive(Clone, Default)]
pub struct AccessLog {
    lines: Option<LineLog>,
}

impl AccessLog {
    /// Opens the file, if it is one, so that a wrong path is found at start.
    /// No thread is started yet. `dropped` counts lines that were not written.
    ///
    /// # Errors
    /// The file cannot be opened for appending; the message names it.
    pub fn open(target: &AccessLogTarget, dropped: IntCounter) -> io::Result<AccessLog> {
        let target = match target {
            AccessLogTarget::Off => return Ok(AccessLog::default()),
            AccessLogTarget::Stdout => Target::Stdout,
            AccessLogTarget::File(path) => Target::File(path.clone()),
        };
        AccessLog::over(target, QUEUE, dropped)
    }

    fn over(target: Target, queue: Queue, dropped: IntCounter) -> io::Result<AccessLog> {
        let lines = LineLog::open("access log", target, queue, dropped)?;
        Ok(AccessLog { lines: Some(lines) })
    }

    /// False when `log` does nothing, so that a record need not be put together.
    pub fn is_enabled(&self) -> bool {
        self.lines.is_some()
    }

    /// Queues one line, stamped with the time now. Never blocks: a line that
    /// does not fit is dropped and counted.
    pub fn log(&self, record: &AccessRecord<'_>) {
        if let Some(lines) = &self.lines {
            lines.push(record::format(record, SystemTime::now()));
        }
    }

    /// Opens the path again, after logrotate moved the file away. Returns at
    /// once. Nothing to do for stdout.
    pub fn reopen(&self) {
        if let Some(lines) = &self.lines {
            lines.reopen();
        }
    }

    /// Waits until every line logged before was written or dropped, at most for
    /// `timeout`. False when time ran out. For shutdown: it blocks its thread.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.lines.as_ref().is_none_or(|lines| lines.flush(timeout))
    }
}

#[cfg(test)]
mod tests;
