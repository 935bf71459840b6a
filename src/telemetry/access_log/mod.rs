//! The access log: one JSON line for each request, written by a thread of its
//! own.
mod record;

use std::io;
use std::time::{Duration, SystemTime};

use log::error;
use prometheus::IntCounter;

use super::log_writer::{LogWriter, Queue, Target};
use crate::settings::AccessLogTarget;

pub use record::AccessRecord;

/// About a second of a busy edge.
const QUEUE: Queue = Queue {
    lines: 32_768,
    bytes: 16 << 20,
};

/// A handle; clones share one log. The default is off.
#[derive(Clone, Default)]
pub struct AccessLog {
    writer: Option<LogWriter>,
}

impl AccessLog {
    /// Opens the file, if the target is one, so that a wrong path is found at
    /// start. `dropped` counts the lines that are not written.
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
        let writer = LogWriter::open("access log", target, queue, dropped)?;
        let writer = Some(writer);
        Ok(AccessLog { writer })
    }

    /// Starts the thread, unless it is started. Until then, lines wait in the
    /// queue. To be called when the process will not fork any more.
    pub fn start(&self) {
        if let Some(Err(error)) = self.writer.as_ref().map(LogWriter::start) {
            error!("access log: cannot start its thread, all lines are dropped: {error}");
        }
    }

    /// Whether [`log`](Self::log) does anything.
    pub fn is_enabled(&self) -> bool {
        self.writer.is_some()
    }

    /// Queues one line, stamped with the time now. Never blocks: a line that
    /// does not fit is dropped and counted.
    pub fn log(&self, record: &AccessRecord<'_>) {
        if let Some(writer) = &self.writer {
            writer.push(record::format(record, SystemTime::now()));
        }
    }

    /// Opens the path again, after logrotate moved the file away. Returns at
    /// once. Does nothing for stdout.
    pub fn reopen(&self) {
        if let Some(writer) = &self.writer {
            writer.reopen();
        }
    }

    /// Waits until all lines logged before are written or dropped, at most for
    /// `timeout`. False when time ran out. For shutdown: it blocks its thread.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.writer
            .as_ref()
            .is_none_or(|writer| writer.flush(timeout))
    }
}

#[cfg(test)]
mod tests;
