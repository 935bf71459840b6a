//! The routing file as it changes in the field, found by notification alone
//! and by polling alone.

mod changes;
mod faults;
mod service;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pingora_core::services::background::BackgroundService;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{FileSource, load_initial};
use crate::state::{ConfigStatus, EdgeOptions, EdgeState};
use crate::telemetry::metrics::Metrics;

const DEADLINE: Duration = Duration::from_secs(30);
const MAX_BYTES: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Notification,
    Polling,
}

const MODES: [Mode; 2] = [Mode::Notification, Mode::Polling];

/// A valid document; all of this length have versions of the same length.
fn document(version: &str) -> String {
    format!(
        "{{\"version\": \"{version}\", \"routingTable\": {{}},\n\
          \"cellEndpoints\": {{\"{version}\": \"http://127.0.0.1:9001\"}},\n\
          \"defaultPlacement\": \"{version}\"}}\n"
    )
}

/// An edge's live state, fed from a file.
struct Edge {
    directory: tempfile::TempDir,
    path: PathBuf,
    state: Arc<EdgeState>,
    metrics: Arc<Metrics>,
    generations: watch::Receiver<u64>,
    request: Arc<tokio::sync::Notify>,
    shutdown: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Edge {
    /// One that serves "v1" from a plain file.
    fn start(mode: Mode) -> Self {
        Self::start_at(mode, |directory| {
            let path = directory.join("routing.json");
            fs::write(&path, document("v1")).unwrap();
            path
        })
    }

    fn start_at(mode: Mode, place: impl FnOnce(&Path) -> PathBuf) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = place(directory.path());
        let metrics = Arc::new(Metrics::new());
        let state = EdgeState::new(EdgeOptions::default(), Arc::clone(&metrics));
        load_initial(&path, MAX_BYTES, &state).unwrap();
        let hour = Duration::from_secs(3600);
        let source = match mode {
            Mode::Notification => FileSource::new(&path, hour, MAX_BYTES, Arc::clone(&state)),
            Mode::Polling => {
                let often = Duration::from_millis(20);
                FileSource::new(&path, often, MAX_BYTES, Arc::clone(&state)).without_notification()
            }
        };
        Self::run(directory, path, state, metrics, source)
    }

    fn run(
        directory: tempfile::TempDir,
        path: PathBuf,
        state: Arc<EdgeState>,
        metrics: Arc<Metrics>,
        source: FileSource,
    ) -> Self {
        let request = source.reload_request();
        let mut generations = state.watch();
        generations.mark_unchanged();
        let (shutdown, watch) = watch::channel(false);
        let task = tokio::spawn(async move { source.start(watch).await });
        Self {
            directory,
            path,
            state,
            metrics,
            generations,
            request,
            shutdown,
            task,
        }
    }

    /// Replaces the file as careful programs do.
    fn replace(&self, content: &str) {
        let new = self.directory.path().join("new.tmp");
        fs::write(&new, content).unwrap();
        fs::rename(&new, &self.path).unwrap();
    }

    fn status(&self) -> ConfigStatus {
        self.state.status()
    }

    fn version(&self) -> String {
        self.status().version.unwrap()
    }

    /// Waits for the generation after the current one to be `version`.
    async fn becomes(&mut self, version: &str) {
        let changed = timeout(DEADLINE, self.generations.changed()).await;
        changed
            .unwrap_or_else(|_| panic!("{version} did not arrive: {:?}", self.state.status()))
            .unwrap();
        self.generations.mark_unchanged();
        assert_eq!(self.version(), version);
    }

    /// Waits for the last error to have this in it, or for there to be none.
    async fn error_becomes(&self, wanted: Option<&str>) {
        let waiting = async {
            loop {
                let error = self.status().last_error;
                let done = match (&error, wanted) {
                    (Some(error), Some(wanted)) => error
                        .problems
                        .iter()
                        .any(|problem| problem.message.contains(wanted)),
                    (None, None) => true,
                    _ => false,
                };
                if done {
                    return;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(DEADLINE, waiting).await.is_err() {
            panic!("no {wanted:?}: {:?}", self.status());
        }
    }

    /// How many documents came to this result.
    fn reloads(&self, result: &str) -> u64 {
        let series = format!("cellgate_reloads_total{{result=\"{result}\"}} ");
        let text = self.metrics.encode();
        let line = text.lines().find_map(|line| line.strip_prefix(&series));
        line.unwrap().parse().unwrap()
    }
}
