//! The routing file, read and written beside a truth on a store in memory.

mod edits;
mod files;
mod restarts;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{MirrorOptions, RoutingFile};
use crate::control::core::tests::memory::Memory;
use crate::control::core::tests::{author, document};
use crate::control::core::{Edit, Expected, Truth};
use crate::control::store::{Generation, Store};

const DEADLINE: Duration = Duration::from_secs(20);

/// A directory with a routing file, and the store of its generations.
struct Place {
    directory: TempDir,
    store: Arc<Memory>,
}

/// A control plane as far as its routing file is concerned.
struct Running {
    truth: Arc<Truth>,
    file: Arc<RoutingFile>,
    failing: IntGauge,
    end: watch::Sender<bool>,
    keeping: JoinHandle<()>,
}

impl Place {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            store: Arc::default(),
        }
    }

    /// One whose file has this document.
    fn with(version: &str, keys: &[(&str, &str)]) -> Self {
        let place = Self::new();
        place.save(version, keys);
        place
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("routing.json")
    }

    fn save(&self, version: &str, keys: &[(&str, &str)]) {
        self.save_bytes(&document(version, keys));
    }

    /// As a careful editor does.
    fn save_bytes(&self, bytes: &[u8]) {
        let new = self.directory.path().join("new");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, self.path()).unwrap();
    }

    /// From here on, the file cannot be written.
    fn block(&self) {
        fs::create_dir(self.directory.path().join(".routing.json.new")).unwrap();
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("routing.state")
    }

    async fn truth(&self) -> Arc<Truth> {
        let store: Arc<dyn Store> = Arc::clone(&self.store) as _;
        Truth::open(store).await.unwrap()
    }

    async fn start(&self) -> Running {
        let truth = self.truth().await;
        let failing = IntGauge::new("failing", "failing").unwrap();
        let options = MirrorOptions {
            path: self.path(),
            state: self.state(),
            max_bytes: 1 << 20,
        };
        let file = RoutingFile::new(options, Arc::clone(&truth), failing.clone());
        file.start().await;
        let (end, ending) = watch::channel(false);
        let keeping = tokio::spawn({
            let file = Arc::clone(&file);
            async move { file.keep(ending).await }
        });
        Running {
            truth,
            file,
            failing,
            end,
            keeping,
        }
    }

    /// The keys that the file has, in its order.
    fn keys(&self) -> Option<Vec<(String, String)>> {
        let document: Value = serde_json::from_slice(&fs::read(self.path()).ok()?).ok()?;
        let keys = document["routingTable"].as_object()?.iter();
        let keys = keys.map(|(key, home)| (key.clone(), home.as_str().unwrap().to_owned()));
        Some(keys.collect())
    }

    /// Waits until the file has these keys.
    async fn file_has(&self, expected: &[(&str, &str)]) {
        let what = format!("the file has {expected:?}");
        eventually(&what, || {
            let keys = self.keys()?;
            let keys = keys.iter().map(|(key, home)| (key.as_str(), home.as_str()));
            keys.eq(expected.iter().copied()).then_some(())
        })
        .await;
    }
}

impl Running {
    fn newest(&self) -> Arc<Generation> {
        self.truth.newest().expect("there is a generation")
    }

    /// Changes something as the API does.
    async fn change(&self, edit: Edit) -> u64 {
        let committed = self.truth.commit(edit, &Expected::Anything, author("api"));
        committed.await.unwrap().generation().record.generation
    }

    async fn generation(&self, number: u64) -> Arc<Generation> {
        let mut watch = self.truth.watch();
        let is = |newest: &Option<Arc<Generation>>| {
            newest
                .as_ref()
                .is_some_and(|newest| newest.record.generation == number)
        };
        let waited = tokio::time::timeout(DEADLINE, watch.wait_for(is)).await;
        let found = waited.unwrap_or_else(|_| panic!("no generation {number}"));
        found.unwrap().clone().unwrap()
    }

    /// Waits for an error, and gives its words.
    async fn refused(&self, what: &str) -> String {
        let error = eventually("an error", || {
            self.file.error().filter(|error| error.what == what)
        })
        .await;
        assert_eq!(self.failing.get(), 1);
        let words: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
        words.join("\n")
    }

    async fn in_order(&self) {
        eventually("no error", || self.file.error().is_none().then_some(())).await;
        assert_eq!(self.failing.get(), 0);
    }

    async fn end(self) {
        self.end.send_replace(true);
        let ended = tokio::time::timeout(DEADLINE, self.keeping).await;
        ended.expect("it ends").unwrap();
    }

    /// As a crash does: nothing more is written.
    async fn crash(self) {
        self.keeping.abort();
        let _ = self.keeping.await;
    }
}

async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

fn home<'g>(generation: &'g Generation, key: &str) -> Option<&'g str> {
    let placement = generation.table.placement_of(key)?;
    Some(&generation.table.placement(placement).name)
}
