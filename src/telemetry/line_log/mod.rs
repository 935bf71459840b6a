//! Lines for a file or a standard stream, written off the request path.
//!
//! Lines wait in a bounded queue; one thread writes. Nothing here waits for a
//! disk or for whoever reads a pipe: when the queue is full, the line is dropped
//! and counted.
mod writer;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::error;
use prometheus::IntCounter;

use super::once_per::OncePer;
pub(super) use writer::Target;
use writer::{Message, Shared, Writer};

/// What may wait to be written. Bytes as well as lines, because a line is as
/// long as what a client sends.
#[derive(Clone, Copy)]
pub(super) struct Queue {
    pub lines: usize,
    pub bytes: usize,
}

/// A handle; clones share one log.
#[derive(Clone)]
pub(super) struct LineLog {
    inner: Arc<Inner>,
}

struct Inner {
    /// What the operator calls it.
    name: &'static str,
    queue: SyncSender<Message>,
    queue_bytes: usize,
    shared: Arc<Shared>,
    started: AtomicBool,
    /// Waits here for the first line: a thread that is started earlier would
    /// not survive the fork of a process that goes to the background.
    writer: Arc<Mutex<Option<Writer>>>,
    complaints: Mutex<OncePer>,
}

impl LineLog {
    /// Opens the file, if it is one, so that a wrong path is found at start.
    /// No thread is started yet. `dropped` counts lines that were not written.
    ///
    /// # Errors
    /// The file cannot be opened for appending; the message names it.
    pub fn open(
        name: &'static str,
        target: Target,
        queue: Queue,
        dropped: IntCounter,
    ) -> io::Result<LineLog> {
        let (sender, receiver) = mpsc::sync_channel(queue.lines);
        let shared = Arc::new(Shared {
            dropped,
            queued_bytes: AtomicUsize::new(0),
            reopen: AtomicBool::new(false),
        });
        let writer = Writer::open(name, receiver, shared.clone(), target)?;
        Ok(LineLog {
            inner: Arc::new(Inner {
                name,
                queue: sender,
                queue_bytes: queue.bytes,
                shared,
                started: AtomicBool::new(false),
                writer: Arc::new(Mutex::new(Some(writer))),
                complaints: Mutex::new(OncePer::new(Duration::from_secs(60))),
            }),
        })
    }

    /// Starts the thread now, and not with the first line. False when that
    /// failed, which was logged.
    pub fn start(&self) -> bool {
        self.inner.ensure_started();
        self.inner.started.load(Ordering::Acquire)
    }

    /// Queues one line, which ends with its newline. Never blocks: a line that
    /// does not fit is dropped and counted.
    pub fn push(&self, line: Vec<u8>) {
        self.inner.ensure_started();
        self.inner.push(line);
    }

    /// Opens the path again, after logrotate moved the file away. Lines pushed
    /// from now on go to the new file; when it cannot be opened, to the old
    /// one. Returns at once. Nothing to do for a standard stream.
    pub fn reopen(&self) {
        let inner = &self.inner;
        inner.shared.reopen.store(true, Ordering::Release);
        if inner.started.load(Ordering::Acquire) {
            // When the queue is full the writer is awake anyway.
            let _ = inner.queue.try_send(Message::Wake);
        }
    }

    /// Waits until every line pushed before was written or dropped, at most for
    /// `timeout`. False when time ran out. For shutdown: it blocks its thread.
    pub fn flush(&self, timeout: Duration) -> bool {
        let inner = &self.inner;
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

    /// Bytes of the lines in the queue.
    #[cfg(test)]
    pub fn queued_bytes(&self) -> usize {
        self.inner.shared.queued_bytes.load(Ordering::Relaxed)
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
        let thread = self.name.replace(' ', "-");
        match thread::Builder::new().name(thread).spawn(run) {
            Ok(_) => self.started.store(true, Ordering::Release),
            // The next line tries again; until then lines wait in the queue.
            Err(error) => {
                if let Some(suppressed) = complaints.allow(Instant::now()) {
                    error!(suppressed; "{}: cannot start its writer thread: {error}", self.name);
                }
            }
        }
    }
}

/// Nothing that is locked here can be left half-changed by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
