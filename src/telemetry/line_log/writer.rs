//! The thread that owns the log's file, and what it is handed.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::telemetry::once_per::OncePer;
use log::{error, info};
use prometheus::IntCounter;

/// Written at once when there is as much.
const BATCH_BYTES: usize = 64 << 10;

/// After a write the thread looks away for this long, and finds the next lines
/// together. Without it, every line of a half-busy edge would pay for a
/// wake-up, which costs more than the line.
const NAP: Duration = Duration::from_millis(10);

/// How long a reader on a full non-blocking pipe may keep the log waiting
/// before lines are given up.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) enum Message {
    Line(Vec<u8>),
    /// Answered once everything queued before it was written or given up.
    Flush(SyncSender<()>),
    /// Only to be awake, for `reopen`.
    Wake,
}

/// What the handles and the writer both see.
pub(super) struct Shared {
    /// Lines that were not written, for whatever reason.
    pub dropped: IntCounter,
    /// Bytes of the lines in the queue.
    pub queued_bytes: AtomicUsize,
    pub reopen: AtomicBool,
}

pub(in crate::telemetry) enum Target {
    Stdout,
    Stderr,
    File(PathBuf),
    #[cfg(test)]
    Test(Box<dyn Write + Send>),
}

pub(super) struct Writer {
    name: &'static str,
    queue: Receiver<Message>,
    shared: Arc<Shared>,
    target: Target,
    out: Option<Box<dyn Write + Send>>,
    batch: Vec<u8>,
    flushes: Vec<SyncSender<()>>,
    /// The last write ended within a line, as on a full disk: the next one
    /// starts a new line, so that only the torn one is lost.
    torn: bool,
    complaints: OncePer,
}

impl Writer {
    /// # Errors
    /// The target is a file that cannot be opened.
    pub fn open(
        name: &'static str,
        queue: Receiver<Message>,
        shared: Arc<Shared>,
        target: Target,
    ) -> io::Result<Writer> {
        let out = match &target {
            Target::File(path) => {
                let file = open_file(path).map_err(|error| {
                    let message = format!("cannot open {name} {}: {error}", path.display());
                    io::Error::new(error.kind(), message)
                })?;
                Some(Box::new(file) as Box<dyn Write + Send>)
            }
            _ => None,
        };
        Ok(Writer {
            name,
            queue,
            shared,
            target,
            out,
            batch: Vec::with_capacity(BATCH_BYTES),
            flushes: Vec::new(),
            torn: false,
            complaints: OncePer::new(Duration::from_secs(60)),
        })
    }

    /// Writes until every handle is gone and the queue is empty.
    pub fn run(mut self) {
        while let Ok(message) = self.queue.recv() {
            self.take(message);
            loop {
                let more = self.collect();
                self.reopen_if_asked();
                let idle = self.batch.is_empty() && self.flushes.is_empty();
                if idle {
                    break;
                }
                self.write_batch();
                if !more {
                    sleep(NAP);
                }
            }
        }
    }

    /// Fills the batch. True when it left messages in the queue.
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
                self.shared
                    .queued_bytes
                    .fetch_sub(line.len(), Ordering::Relaxed);
                self.batch.extend_from_slice(&line);
            }
            Message::Flush(done) => self.flushes.push(done),
            Message::Wake => {}
        }
    }

    fn write_batch(&mut self) {
        if !self.batch.is_empty()
            && let Err((error, rest)) = self.try_write()
        {
            let lines = lines_in(self.batch.get(rest..).unwrap_or_default());
            self.shared.dropped.inc_by(lines);
            if let Some(suppressed) = self.complaints.allow(Instant::now()) {
                error!(
                    lines, suppressed;
                    "{}: lines dropped, cannot write to {}: {error}", self.name, self.target.name()
                );
            }
        }
        self.batch.clear();
        // A very long line should not hold its memory for good.
        self.batch.shrink_to(2 * BATCH_BYTES);
        for done in self.flushes.drain(..) {
            // Whoever waited may have given up.
            let _ = done.try_send(());
        }
    }

    /// On failure: the error, and where in the batch the unwritten part starts.
    fn try_write(&mut self) -> Result<(), (io::Error, usize)> {
        let out = match &mut self.out {
            Some(out) => out,
            closed => closed.insert(self.target.open().map_err(|error| (error, 0))?),
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
        let Target::File(path) = &self.target else {
            return;
        };
        match open_file(path) {
            Ok(file) => {
                info!("{}: reopened {}", self.name, path.display());
                self.out = Some(Box::new(file));
                self.torn = false;
            }
            // Lines in the file that was moved away beat no lines.
            Err(error) => error!(
                "{}: cannot reopen {}, still writing to the file it was: {error}",
                self.name,
                path.display()
            ),
        }
    }
}

impl Target {
    fn open(&mut self) -> io::Result<Box<dyn Write + Send>> {
        match self {
            // Its own descriptor, made only now: a process that goes to the
            // background exchanges the one it started with.
            Target::Stdout => {
                let stdout = io::stdout().as_fd().try_clone_to_owned()?;
                Ok(Box::new(File::from(stdout)))
            }
            Target::Stderr => {
                let stderr = io::stderr().as_fd().try_clone_to_owned()?;
                Ok(Box::new(File::from(stderr)))
            }
            Target::File(path) => Ok(Box::new(open_file(path)?)),
            #[cfg(test)]
            Target::Test(out) => Ok(std::mem::replace(out, Box::new(io::sink()))),
        }
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

/// Appends, so that two processes (an upgrade) can write to one file.
fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Like `Write::write_all`, but says how much was written before a failure, and
/// waits a little for a reader behind a non-blocking pipe.
fn write_all(out: &mut dyn Write, bytes: &[u8]) -> Result<(), (io::Error, usize)> {
    let mut written = 0;
    let mut give_up = None;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match out.write(rest) {
            Ok(0) => return Err((ErrorKind::WriteZero.into(), written)),
            Ok(count) => {
                written += count;
                give_up = None;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let now = Instant::now();
                if now >= *give_up.get_or_insert(now + PATIENCE) {
                    return Err((error, written));
                }
                sleep(NAP);
            }
            Err(error) => return Err((error, written)),
        }
    }
    Ok(())
}

fn lines_in(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}
