//! The routing file as a source. It is checked at an interval, and at once after a
//! notification of the file system, SIGHUP or a reload request.
//!
//! A check has four steps, each of which may end it:
//!
//! 1. compare the file's stamp (times, size, inode) with the last one;
//! 2. read the file, and compare its SHA-256 with the last one;
//! 3. wait until nobody writes to the file, see [`settle`](crate::files::settle);
//! 4. pass the content to [`EdgeState::apply`], which validates it.

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

/// How long a file may be unreadable before that is reported: a replacement may delete
/// the old file first.
const GRACE: Duration = Duration::from_secs(1);

/// The interval of checks during [`GRACE`].
const RETRY: Duration = Duration::from_millis(100);

/// Every so many polls the file is read although its stamp is the same, because some
/// file systems have coarse clocks.
const THOROUGH_EVERY: u32 = 12;

/// The background service that watches the routing file.
pub struct FileSource {
    file: Target,
    poll_interval: Duration,
    edge: Arc<EdgeState>,
    notification: bool,
    asked: Arc<Notify>,
}

/// Why the file is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Poll,
    /// The operating system reports that it may have changed.
    Notice,
    /// An operator asked for it, and expects an answer in the log.
    Asked,
}

/// State from one check to the next.
struct Last {
    /// Of the content that was applied, or refused, last.
    stamp: Option<Stamp>,
    sha256: Option<Sha256>,
    /// Checks since the file was read last.
    unread: u32,
    /// Since when the file cannot be read.
    unreadable: Option<Instant>,
}

impl FileSource {
    /// Watches `path`, and polls it every `poll_interval`. A file of more than `max_bytes`
    /// is refused.
    pub fn new(
        path: impl Into<PathBuf>,
        poll_interval: Duration,
        max_bytes: u64,
        edge: Arc<EdgeState>,
    ) -> Self {
        let path = path.into();
        Self {
            // A daemon changes its working directory.
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

    /// Only polls.
    pub fn without_notification(mut self) -> Self {
        self.notification = false;
        self
    }

    /// Notify it to have the file checked now, as SIGHUP does.
    pub fn reload_request(&self) -> Arc<Notify> {
        Arc::clone(&self.asked)
    }

    async fn run(&self, mut shutdown: ShutdownWatch) {
        let mut hangup = Hangup::new();
        let (mut notice, mut last) = (
            if self.notification {
                Notice::new()
            } else {
                Notice::off()
            },
            Last {
                stamp: None,
                sha256: self.edge.current().and_then(|current| current.sha256),
                unread: 0,
                unreadable: None,
            },
        );
        // The file may have changed since it was loaded at start.
        let mut reason = Reason::Poll;
        loop {
            notice.arm(&self.file.path);
            let pause = tokio::select! {
                _ = shutdown.changed() => return,
                pause = self.check(&mut last, &notice, reason) => pause,
            };
            // A symbolic link was replaced during the check: its new target is watched
            // from now on, and has to be checked once.
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

    /// Checks once. Returns the pause until the next check, unless something happens
    /// before.
    async fn check(&self, last: &mut Last, notice: &Notice, reason: Reason) -> Duration {
        if reason == Reason::Asked {
            log::info!(
                target: "cellgate::source",
                "reload requested, reading {}",
                self.file.path.display()
            );
        }
        match self.changed(last, notice, reason).await {
            Ok(None) => {
                last.unreadable = None;
                self.poll_interval
            }
            Ok(Some(snapshot)) => {
                last.unreadable = None;
                last.stamp = Some(snapshot.stamp);
                last.sha256 = Some(snapshot.sha256);
                self.apply(snapshot, reason).await;
                self.poll_interval
            }
            Err(error) => {
                last.stamp = None;
                let since = *last.unreadable.get_or_insert_with(Instant::now);
                if since.elapsed() < GRACE {
                    return RETRY.min(self.poll_interval);
                }
                // At every check; the state logs it once.
                self.edge
                    .source_failed(vec![error.problem(&self.file.path)], SystemTime::now());
                self.poll_interval
            }
        }
    }

    /// Steps 1 to 3: new content, complete.
    async fn changed(
        &self,
        last: &mut Last,
        notice: &Notice,
        reason: Reason,
    ) -> Result<Option<Snapshot>, ReadError> {
        let reported = last
            .unreadable
            .is_some_and(|since| since.elapsed() >= GRACE);
        last.unread += 1;
        let thorough = reason != Reason::Poll || last.unread >= THOROUGH_EVERY;
        let stamp = self.file.stamp().await?;
        if last.stamp == Some(stamp) && !thorough {
            return Ok(None);
        }
        last.unread = 0;
        let first = match self.file.read().await {
            Err(ReadError::Moving) => return self.file.settle(None, notice).await.map(Some),
            first => first?,
        };
        // If it was reported as unreadable, its return has to be reported as well.
        let known = last.sha256 == Some(first.sha256) && !reported;
        if known && reason != Reason::Asked {
            last.stamp = Some(first.stamp);
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
                "{} is unchanged, and served already",
                self.file.path.display()
            ),
            // `apply` logs the rest.
            Ok(_) => {}
            Err(error) => log::error!(
                target: "cellgate::source",
                "applying {} failed, nothing has changed: {error}",
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

/// Loads the file at start, before there is a runtime.
///
/// # Errors
/// The file cannot be read, is invalid, or does not stop changing. Nothing was logged.
pub fn load_initial(path: &Path, max_bytes: u64, edge: &EdgeState) -> Result<(), Vec<Problem>> {
    let content = settle::read_now(path, max_bytes).map_err(|error| vec![error.problem(path)])?;
    match edge.apply(&content, Source::File, SystemTime::now()) {
        Applied::Changed(_) | Applied::Unchanged => Ok(()),
        Applied::Refused(problems) => Err(problems),
    }
}

/// SIGHUP, if it can be handled.
struct Hangup(Option<Signal>);

impl Hangup {
    fn new() -> Self {
        match signal(SignalKind::hangup()) {
            Ok(signal) => Self(Some(signal)),
            Err(error) => {
                log::warn!(target: "cellgate::source", "cannot handle SIGHUP, so it does not reload: {error}");
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

    /// A change that the stamp does not show is found.
    #[tokio::test]
    async fn every_so_often_a_poll_reads_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("routing.json");
        std::fs::write(&path, "{}").unwrap();
        let edge = EdgeState::new(EdgeOptions::default(), Arc::new(Metrics::new()));
        let source = FileSource::new(&path, GRACE, 100, edge);
        let mut last = Last {
            stamp: Some(Stamp::of(&path).unwrap()),
            sha256: Some(Sha256::of(b"what was there before")),
            unread: 0,
            unreadable: None,
        };
        let notice = Notice::off();
        for _ in 1..THOROUGH_EVERY {
            let changed = source.changed(&mut last, &notice, Reason::Poll).await;
            assert!(changed.unwrap().is_none());
        }
        let changed = source.changed(&mut last, &notice, Reason::Poll).await;
        assert_eq!(changed.unwrap().expect("it was read").content, b"{}");
    }
}
