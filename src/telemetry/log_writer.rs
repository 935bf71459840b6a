//! A thread that writes log lines, so that requests wait neither for a disk nor
//! for the reader of a pipe.
//!
//! Lines wait in a queue that is bounded in lines and bytes. A line that does
//! not fit is dropped and counted, and so is one that cannot be written.
//!
//! `tracing-appender` has such a thread, too. Its queue is bounded in lines only,
//! it discards write errors together with the lines, and it can neither reopen a
//! file nor be waited for with a deadline.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use log::{error, info};
use prometheus::IntCounter;

use super::once_per::OncePer;

/// Lines are written together up to this size.
const BATCH_BYTES: usize = 64 << 10;

/// How long the thread sleeps after a write, so that it finds the next lines
/// together. Waking it for every line of a half-busy edge would cost more than
/// the line.
const PAUSE: Duration = Duration::from_millis(10);

/// How long a full non-blocking pipe may delay the log before lines are dropped.
const PIPE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a failure is logged again.
const COMPLAINT_PERIOD: Duration = Duration::from_secs(60);

/// What may wait to be written. Bytes as well as lines: clients decide how long
/// a line is.
#[derive(Clone, Copy)]
pub(super) struct Queue {
    pub lines: usize,
    pub bytes: usize,
}

pub(super) enum Target {
    Stdout,
    Stderr,
    File(PathBuf),
    #[cfg(test)]
    Test(Box<dyn Write + Send>),
}

/// A handle; clones share one thread, which ends with the last of them.
#[derive(Clone)]
pub(super) struct LogWriter {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    /// Until the thread is started.
    worker: Arc<Mutex<Option<Worker>>>,
}

enum Message {
    Line(Vec<u8>),
    /// Answered when everything queued before is written or dropped.
    Flush(SyncSender<()>),
}

struct Shared {
    /// What operators call the log.
    name: &'static str,
    max_bytes: usize,
    queued_bytes: AtomicUsize,
    reopen: AtomicBool,
    dropped: IntCounter,
}

impl LogWriter {
    /// Opens the file, if the target is one, so that a wrong path is found at
    /// start. `dropped` counts the lines that are not written.
    ///
    /// # Errors
    /// The file cannot be opened for appending; the message names it.
    pub fn open(
        name: &'static str,
        target: Target,
        queue: Queue,
        dropped: IntCounter,
    ) -> io::Result<LogWriter> {
        let shared = Arc::new(Shared {
            name,
            max_bytes: queue.bytes,
            queued_bytes: AtomicUsize::new(0),
            reopen: AtomicBool::new(false),
            dropped,
        });
        let out = match &target {
            Target::File(path) => Some(open_file(path).map_err(|error| {
                let message = format!("cannot open {name} {}: {error}", path.display());
                io::Error::new(error.kind(), message)
            })?),
            _ => None,
        };
        let (sender, receiver) = mpsc::sync_channel(queue.lines);
        let worker = Worker {
            queue: receiver,
            shared: Arc::clone(&shared),
            target,
            out: out.map(|file| Box::new(file) as Box<dyn Write + Send>),
            batch: Vec::with_capacity(BATCH_BYTES),
            flushes: Vec::new(),
            torn: false,
            complaints: OncePer::new(COMPLAINT_PERIOD),
        };
        Ok(LogWriter {
            queue: sender,
            shared,
            worker: Arc::new(Mutex::new(Some(worker))),
        })
    }

    /// Starts the thread, unless it is started. To be called when the process
    /// will not fork any more: a thread does not survive that. Until then, lines
    /// wait in the queue.
    ///
    /// # Errors
    /// There can be no more threads. All lines are dropped from now on.
    pub fn start(&self) -> io::Result<()> {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(worker) = worker.take() else {
            return Ok(());
        };
        let name = self.shared.name.replace(' ', "-");
        let thread = thread::Builder::new().name(name);
        thread.spawn(move || worker.run()).map(drop)
    }

    /// Queues one line, which ends with its newline. Never blocks: a line that
    /// does not fit is dropped and counted.
    pub fn push(&self, line: Vec<u8>) {
        let (length, queued) = (line.len(), &self.shared.queued_bytes);
        let fits = queued.fetch_add(length, Ordering::Relaxed) + length <= self.shared.max_bytes;
        if fits && self.queue.try_send(Message::Line(line)).is_ok() {
            return;
        }
        queued.fetch_sub(length, Ordering::Relaxed);
        self.shared.dropped.inc();
    }

    /// Opens the path again, after logrotate moved the file away. Lines pushed
    /// from now on go to the new file; if it cannot be opened, to the old one.
    /// Returns at once. Does nothing for a standard stream.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        // Wakes the thread. If the queue is full, it is awake.
        let _ = self.queue.try_send(Message::Line(Vec::new()));
    }

    /// Waits until all lines pushed before are written or dropped, at most for
    /// `timeout`. False when time ran out. For shutdown: it blocks its thread.
    pub fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        if self.start().is_err() {
            return false;
        }
        let (done, written) = mpsc::sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(message) {
            if Instant::now() >= deadline {
                return false;
            }
            message = back;
            sleep(Duration::from_millis(1));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        written.recv_timeout(left).is_ok()
    }

    /// Bytes of the lines in the queue.
    #[cfg(test)]
    pub fn queued_bytes(&self) -> usize {
        self.shared.queued_bytes.load(Ordering::Relaxed)
    }
}

/// What the thread owns.
struct Worker {
    queue: Receiver<Message>,
    shared: Arc<Shared>,
    target: Target,
    out: Option<Box<dyn Write + Send>>,
    batch: Vec<u8>,
    flushes: Vec<SyncSender<()>>,
    /// The last write ended within a line, as on a full disk. The next one
    /// begins with a newline, so that only the torn line is lost.
    torn: bool,
    complaints: OncePer,
}

impl Worker {
    /// Writes until every handle is dropped and the queue is empty.
    fn run(mut self) {
        while let Ok(message) = self.queue.recv() {
            self.take(message);
            loop {
                let more = self.collect();
                self.reopen_if_asked();
                if self.batch.is_empty() && self.flushes.is_empty() {
                    break;
                }
                self.write_batch();
                if !more {
                    sleep(PAUSE);
                }
            }
        }
    }

    /// Fills the batch. True if there may be more in the queue.
    fn collect(&mut self) -> bool {
        while self.batch.len() < BATCH_BYTES && self.flushes.is_empty() {
            match self.queue.try_recv() {
                Ok(message) => self.take(message),
                Err(_) => return false,
            }
        }
        true
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Line(line) => {
                let queued = &self.shared.queued_bytes;
                queued.fetch_sub(line.len(), Ordering::Relaxed);
                self.batch.extend_from_slice(&line);
            }
            Message::Flush(done) => self.flushes.push(done),
        }
    }

    fn write_batch(&mut self) {
        if let Err((error, written)) = self.try_write() {
            let rest = self.batch.get(written..).unwrap_or_default();
            let lines = memchr::memchr_iter(b'\n', rest).count() as u64;
            self.shared.dropped.inc_by(lines);
            if let Some(suppressed) = self.complaints.allow(Instant::now()) {
                error!(
                    lines, suppressed;
                    "{}: lines dropped, cannot write to {}: {error}",
                    self.shared.name, self.target.name()
                );
            }
        }
        self.batch.clear();
        // The memory of a very long line is freed.
        self.batch.shrink_to(2 * BATCH_BYTES);
        for done in self.flushes.drain(..) {
            // Fails if whoever waited gave up.
            let _ = done.try_send(());
        }
    }

    /// On failure: the error, and how much of the batch was written.
    fn try_write(&mut self) -> Result<(), (io::Error, usize)> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let out = match &mut self.out {
            Some(out) => out,
            out => out.insert(self.target.open().map_err(|error| (error, 0))?),
        };
        if self.torn {
            write_all(out, b"\n").map_err(|(error, _)| (error, 0))?;
            self.torn = false;
        }
        write_all(out, &self.batch).map_err(|(error, written)| {
            self.torn = written > 0 && self.batch.get(written - 1) != Some(&b'\n');
            (error, written)
        })
    }

    fn reopen_if_asked(&mut self) {
        if !self.shared.reopen.swap(false, Ordering::AcqRel) {
            return;
        }
        let (name, Target::File(path)) = (self.shared.name, &self.target) else {
            return;
        };
        match open_file(path) {
            Ok(file) => {
                info!("{name}: reopened {}", path.display());
                self.out = Some(Box::new(file));
                self.torn = false;
            }
            Err(error) => error!(
                "{name}: cannot reopen {}, still writing to the previous file: {error}",
                path.display()
            ),
        }
    }
}

impl Target {
    /// Opened by the thread and not before: a process that goes to the
    /// background replaces the streams that it started with.
    fn open(&mut self) -> io::Result<Box<dyn Write + Send>> {
        let descriptor = match self {
            Target::Stdout => io::stdout().as_fd().try_clone_to_owned()?,
            Target::Stderr => io::stderr().as_fd().try_clone_to_owned()?,
            Target::File(path) => return Ok(Box::new(open_file(path)?)),
            #[cfg(test)]
            Target::Test(out) => return Ok(std::mem::replace(out, Box::new(io::sink()))),
        };
        Ok(Box::new(File::from(descriptor)))
    }

    fn name(&self) -> String {
        match self {
            Target::Stdout => "stdout".to_owned(),
            Target::Stderr => "stderr".to_owned(),
            Target::File(path) => path.display().to_string(),
            #[cfg(test)]
            Target::Test(_) => "a test".to_owned(),
        }
    }
}

/// Appends, so that the two processes of an upgrade can share a file.
fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Like `Write::write_all`, but on failure returns how much was written, and
/// waits for the reader of a full non-blocking pipe.
fn write_all(out: &mut dyn Write, bytes: &[u8]) -> Result<(), (io::Error, usize)> {
    let mut written = 0;
    let mut deadline = None;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match out.write(rest) {
            Ok(0) => return Err((ErrorKind::WriteZero.into(), written)),
            Ok(count) => {
                written += count;
                deadline = None;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let now = Instant::now();
                if now >= *deadline.get_or_insert(now + PIPE_TIMEOUT) {
                    return Err((error, written));
                }
                sleep(PAUSE);
            }
            Err(error) => return Err((error, written)),
        }
    }
    Ok(())
}
