//! The routing file: looked at again and again, and at once when there is
//! reason to, and handed on when it holds still.
//!
//! A look goes through four steps, each of which may end it:
//!
//! 1. the file's stamp is the one that was dealt with last: nothing new;
//! 2. the file is read, and its SHA-256 is the one that was dealt with last;
//! 3. the file is read again until it holds still, see [`settle`](crate::files::settle);
//! 4. [`EdgeState::apply`] gets the content and judges it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::background;
use crate::files::notice::Notice;
use crate::files::read::{ReadError, Snapshot, Stamp};
use crate::files::settle::{self, Target};
use crate::state::{Applied, EdgeState, Sha256, Source};
use crate::table::Problem;

/// How long a file may be unreadable before that is a problem: between a
/// deletion and the new file is no file.
const GRACE: Duration = Duration::from_secs(1);

/// How soon an unreadable file is looked at again during [`GRACE`].
const RETRY: Duration = Duration::from_millis(100);

/// Every so many polls, the file is read although its stamp is the same: file
/// systems exist whose clocks are too coarse to tell.
const THOROUGH_EVERY: u32 = 12;

/// The background service that watches the routing file.
pub struct FileSource {
    file: Target,
    poll_interval: Duration,
    edge: Arc<EdgeState>,
    notification: bool,
    asked: Arc<Notify>,
}

/// Why the file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Poll,
    /// The operating system says that it may have changed.
    Notice,
    /// Somebody asked for it and wants an answer in the log.
    Asked,
}

/// What is remembered from one look to the next.
struct Memory {
    /// Of the content that was dealt with last.
    stamp: Option<Stamp>,
    sha256: Option<Sha256>,
    /// Looks since the file was read last.
    glances: u32,
    /// Since when it cannot be read.
    unreadable: Option<Instant>,
}

impl FileSource {
    /// Watches `path`; a file of more than `max_bytes` is refused.
    pub fn new(
        path: impl Into<PathBuf>,
        poll_interval: Duration,
        max_bytes: u64,
        edge: Arc<EdgeState>,
    ) -> Self {
        let path = path.into();
        Self {
            // The process may change its directory when it becomes a daemon.
            file: Target {
                path: std::path::absolute(&path).unwrap_or(path),
                max_bytes,
            },
            poll_interval: poll_interval.max(Duration::from_millis(1)),
            edge,
            notification: true,
            asked: Arc::default(),
        }
    }

    /// Finds changes by polling alone.
    pub fn without_notification(mut self) -> Self {
        self.notification = false;
        self
    }

    /// Notify it to have the file looked at now, as SIGHUP does.
    pub fn reload_request(&self) -> Arc<Notify> {
        Arc::clone(&self.asked)
    }

    async fn run(&self, mut shutdown: ShutdownWatch) {
        let mut hangup = Hangup::new();
        let (mut notice, mut memory) = (
            if self.notification {
                Notice::new()
            } else {
                Notice::off()
            },
            Memory {
                stamp: None,
                sha256: self.edge.current().and_then(|current| current.sha256),
                glances: 0,
                unreadable: None,
            },
        );
        // Something may have happened since the file was loaded at start.
        let mut reason = Reason::Poll;
        loop {
            notice.arm(&self.file.path);
            let pause = tokio::select! {
                _ = shutdown.changed() => return,
                pause = self.look(&mut memory, &notice, reason) => pause,
            };
            // A link may have been swapped during the look, which took the
            // notice of it: what is watched now has to be looked at once.
            if notice.arm(&self.file.path) {
                reason = Reason::Notice;
                continue;
            }
            reason = tokio::select! {
                _ = shutdown.changed() => return,
                () = sleep(pause) => Reason::Poll,
                () = notice.changed() => Reason::Notice,
                () = self.asked.notified() => Reason::Asked,
                () = hangup.received() => Reason::Asked,
            };
        }
    }

    /// Looks once. Says when to look again, if nothing happens before.
    async fn look(&self, memory: &mut Memory, notice: &Notice, reason: Reason) -> Duration {
        if reason == Reason::Asked {
            log::info!(
                target: "cellgate::source",
                "asked to reload, reading {}",
                self.file.path.display()
            );
        }
        match self.news(memory, notice, reason).await {
            Ok(None) => {
                memory.unreadable = None;
                self.poll_interval
            }
            Ok(Some(snapshot)) => {
                memory.unreadable = None;
                memory.stamp = Some(snapshot.stamp);
                memory.sha256 = Some(snapshot.sha256);
                self.apply(snapshot, reason).await;
                self.poll_interval
            }
            Err(error) => {
                memory.stamp = None;
                let since = *memory.unreadable.get_or_insert_with(Instant::now);
                if since.elapsed() < GRACE {
                    return RETRY.min(self.poll_interval);
                }
                // Again at every look; it is news only once.
                self.edge
                    .source_failed(vec![error.problem(&self.file.path)], SystemTime::now());
                self.poll_interval
            }
        }
    }

    /// Steps 1 to 3: a settled content that has not been dealt with.
    async fn news(
        &self,
        memory: &mut Memory,
        notice: &Notice,
        reason: Reason,
    ) -> Result<Option<Snapshot>, ReadError> {
        let reported = memory
            .unreadable
            .is_some_and(|since| since.elapsed() >= GRACE);
        memory.glances += 1;
        let thorough = reason != Reason::Poll || memory.glances >= THOROUGH_EVERY;
        let stamp = self.file.stamp().await?;
        if memory.stamp == Some(stamp) && !thorough {
            return Ok(None);
        }
        memory.glances = 0;
        let first = match self.file.read().await {
            Err(ReadError::Moving) => return self.file.settle(None, notice).await.map(Some),
            first => first?,
        };
        // When its absence was reported, its return has to be as well.
        let known = memory.sha256 == Some(first.sha256) && !reported;
        if known && reason != Reason::Asked {
            memory.stamp = Some(first.stamp);
            settle::forget(Some(first)).await;
            return Ok(None);
        }
        if known {
            return Ok(Some(first));
        }
        self.file.settle(Some(first), notice).await.map(Some)
    }

    async fn apply(&self, snapshot: Snapshot, reason: Reason) {
        let edge = Arc::clone(&self.edge);
        let applied =
            background::run(move || edge.apply(&snapshot.content, Source::File, SystemTime::now()))
                .await;
        match applied {
            Ok(Applied::Unchanged) if reason == Reason::Asked => log::info!(
                target: "cellgate::source",
                "{} is what is being served already",
                self.file.path.display()
            ),
            // `apply` has logged it.
            Ok(_) => {}
            Err(error) => log::error!(
                target: "cellgate::source",
                "applying {} broke off, nothing has changed: {error}",
                self.file.path.display()
            ),
        }
    }
}

#[async_trait]
impl BackgroundService for FileSource {
    async fn start(&self, shutdown: ShutdownWatch) {
        self.run(shutdown).await;
    }
}

/// Loads the file for the first time, before there is a runtime.
///
/// # Errors
///
/// The file cannot be read, is not valid, or is being written all the time.
/// Nothing of it was logged.
pub fn load_initial(path: &Path, max_bytes: u64, edge: &EdgeState) -> Result<(), Vec<Problem>> {
    let content = settle::read_now(path, max_bytes).map_err(|error| vec![error.problem(path)])?;
    match edge.apply(&content, Source::File, SystemTime::now()) {
        Applied::Changed(_) | Applied::Unchanged => Ok(()),
        Applied::Refused(problems) => Err(problems),
    }
}

/// SIGHUP, if it can be had.
struct Hangup(Option<Signal>);

impl Hangup {
    fn new() -> Self {
        match signal(SignalKind::hangup()) {
            Ok(signal) => Self(Some(signal)),
            Err(error) => {
                log::warn!(target: "cellgate::source", "no reload by SIGHUP: {error}");
                Self(None)
            }
        }
    }

    async fn received(&mut self) {
        let received = match &mut self.0 {
            Some(signal) => signal.recv().await,
            None => None,
        };
        if received.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::EdgeOptions;
    use crate::telemetry::metrics::Metrics;

    /// A change that the stamp does not show is found all the same.
    #[tokio::test]
    async fn every_so_often_a_poll_reads_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("routing.json");
        std::fs::write(&path, "{}").unwrap();
        let edge = EdgeState::new(EdgeOptions::default(), Arc::new(Metrics::new()));
        let source = FileSource::new(&path, GRACE, 100, edge);
        let mut memory = Memory {
            stamp: Some(Stamp::of(&path).unwrap()),
            sha256: Some(Sha256::of(b"what was there before")),
            glances: 0,
            unreadable: None,
        };
        let notice = Notice::off();
        for _ in 1..THOROUGH_EVERY {
            let news = source.news(&mut memory, &notice, Reason::Poll).await;
            assert!(news.unwrap().is_none());
        }
        let news = source.news(&mut memory, &notice, Reason::Poll).await;
        assert_eq!(news.unwrap().expect("it was read").content, b"{}");
    }
}
