//! The access log: one JSON line a request, written off the request path.
//!
//! `log` formats a line into one buffer and hands it to a bounded queue; one
//! thread writes. Nothing here waits for a disk: when the queue is full, the
//! line is dropped and counted.
mod record;
mod writer;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use log::error;
use prometheus::IntCounter;

use crate::settings::AccessLogTarget;
use crate::telemetry::once_per::OncePer;
use writer::{Message, Shared, Target, Writer};

pub use record::AccessRecord;

/// About a second of a busy edge: enough for a disk to catch its breath.
const QUEUE: Queue = Queue {
    lines: 32_768,
    bytes: 16 << 20,
};

/// What may wait to be written. Bytes as well as lines, because a line is as
/// long as the path that a client sends.
#[derive(Clone, Copy)]
struct Queue {
    lines: usize,
    bytes: usize,
}

/// A handle; clones share one log. A disabled one costs nothing.
#[derive(Clone, Default)]
pub struct AccessLog {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    queue: SyncSender<Message>,
    queue_bytes: usize,
    shared: Arc<Shared>,
    started: AtomicBool,
    /// Waits here for the first line: a thread that is started earlier would
    /// not survive the fork of a process that goes to the background.
    writer: Arc<Mutex<Option<Writer>>>,
    complaints: Mutex<OncePer>,
}

impl AccessLog {
    /// Opens the file, if it is one, so that a wrong path is found at start.
    /// No thread is started yet. `dropped` counts lines that were not written.
    ///
    /// # Errors
    /// The file cannot be opened for appending; the message names it.
    pub fn open(target: &AccessLogTarget, dropped: IntCounter) -> io::Result<AccessLog> {
        let (target, file) = match target {
            AccessLogTarget::Off => return Ok(AccessLog::default()),
            AccessLogTarget::Stdout => (Target::Stdout, None),
            AccessLogTarget::File(path) => {
                let file = writer::open_file(path).map_err(|error| {
                    let message = format!("cannot open access log {}: {error}", path.display());
                    io::Error::new(error.kind(), message)
                })?;
                (Target::File(path.clone()), Some(file))
            }
        };
        let (sender, receiver) = mpsc::sync_channel(QUEUE.lines);
        let shared = new_shared(dropped);
        let writer = Writer::new(receiver, shared.clone(), target, file);
        Ok(AccessLog::with_writer(sender, QUEUE.bytes, shared, writer))
    }

    fn with_writer(
        queue: SyncSender<Message>,
        queue_bytes: usize,
        shared: Arc<Shared>,
        writer: Writer,
    ) -> AccessLog {
        AccessLog {
            inner: Some(Arc::new(Inner {
                queue,
                queue_bytes,
                shared,
                started: AtomicBool::new(false),
                writer: Arc::new(Mutex::new(Some(writer))),
                complaints: Mutex::new(OncePer::new(Duration::from_secs(60))),
            })),
        }
    }

    /// False when `log` does nothing, so that a record need not be put together.
    pub fn is_enabled(&self) -> bool {
        self.inner.is_some()
    }

    /// Queues one line, stamped with the time now. Never blocks: a line that
    /// does not fit is dropped and counted.
    pub fn log(&self, record: &AccessRecord<'_>) {
        let Some(inner) = &self.inner else { return };
        inner.ensure_started();
        inner.push(record::format(record, SystemTime::now()));
    }

    /// Opens the path again, after logrotate moved the file away. Lines logged
    /// from now on go to the new file; when it cannot be opened, to the old
    /// one. Returns at once. Nothing to do for stdout.
    pub fn reopen(&self) {
        let Some(inner) = &self.inner else { return };
        inner.shared.reopen.store(true, Ordering::Release);
        if inner.started.load(Ordering::Acquire) {
            // When the queue is full the writer is awake anyway.
            let _ = inner.queue.try_send(Message::Wake);
        }
    }

    /// Waits until every line logged before was written or dropped, at most for
    /// `timeout`. False when time ran out. For shutdown: it blocks its thread.
    pub fn flush(&self, timeout: Duration) -> bool {
        let Some(inner) = &self.inner else {
            return true;
        };
        if !inner.started.load(Ordering::Acquire) {
            return true;
        }
        let deadline = Instant::now() + timeout;
        let (done, written) = mpsc::sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(error) = inner.queue.try_send(message) {
            let (TrySendError::Full(back) | TrySendError::Disconnected(back)) = error;
            if Instant::now() >= deadline {
                return false;
            }
            message = back;
            thread::sleep(Duration::from_millis(1));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        written.recv_timeout(left).is_ok()
    }
}

impl Inner {
    fn push(&self, line: Vec<u8>) {
        let length = line.len();
        let queued = &self.shared.queued_bytes;
        let fits = queued.fetch_add(length, Ordering::Relaxed) + length <= self.queue_bytes;
        if fits && self.queue.try_send(Message::Line(line)).is_ok() {
            return;
        }
        queued.fetch_sub(length, Ordering::Relaxed);
        self.shared.dropped.inc();
    }

    fn ensure_started(&self) {
        if !self.started.load(Ordering::Acquire) {
            self.start();
        }
    }

    #[cold]
    fn start(&self) {
        // Held while the thread is made, so that there is only one of it.
        let mut complaints = lock(&self.complaints);
        if self.started.load(Ordering::Acquire) {
            return;
        }
        let writer = self.writer.clone();
        let run = move || {
            let writer = lock(&writer).take();
            if let Some(writer) = writer {
                writer.run();
            }
        };
        match thread::Builder::new().name("access-log".into()).spawn(run) {
            Ok(_) => self.started.store(true, Ordering::Release),
            // The next line tries again; until then lines wait in the queue.
            Err(error) => {
                if let Some(suppressed) = complaints.allow(Instant::now()) {
                    error!(suppressed; "access log: cannot start its writer thread: {error}");
                }
            }
        }
    }
}

fn new_shared(dropped: IntCounter) -> Arc<Shared> {
    Arc::new(Shared {
        dropped,
        queued_bytes: AtomicUsize::new(0),
        reopen: AtomicBool::new(false),
    })
}

/// Nothing that is locked here can be left half-changed by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
