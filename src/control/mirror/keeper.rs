//! Decides when the routing file is read and when it is written. `edits` makes an edit a
//! generation, `writing` writes the newest generation to the file.

mod edits;
mod writing;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus::IntGauge;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until};

use super::FileError;
use super::state::{Content, StateFile};
use super::swap::{Prepared, Swapped};
use crate::control::core::{CommitError, Edit, Expected, Truth};
use crate::control::document;
use crate::control::store::{Author, Generation};
use crate::files::Sha256;
use crate::files::notice::Notice;
use crate::files::read::{ReadError, Snapshot, Stamp};
use crate::files::settle::{self, Target};
use crate::table::{self, Problem, RoutingTable};

/// How often the file is checked without a notification, and how long after a failure
/// reading or writing is retried.
const POLL: Duration = Duration::from_secs(5);

/// How soon a file that is being written is checked again.
const RETRY: Duration = Duration::from_millis(100);

/// How long a file may be missing before it is written again: some editors delete a file
/// before they create it anew.
const GRACE: Duration = Duration::from_secs(1);

/// How long after a change the file is written, for more changes to be included.
const DEBOUNCE: Duration = Duration::from_millis(300);

/// Writing the file takes at most this fraction of the time: one part in 20.
const SHARE: u32 = 20;

/// The file is read at every twelfth check although its stamp is the same: the clocks of
/// some file systems are too coarse to show every change.
const THOROUGH_EVERY: u32 = 12;

/// How many generations are searched for the content of a file of which nothing is
/// remembered.
const LOOK_BACK: usize = 1000;

/// How a routing file is kept.
#[derive(Clone, Debug)]
pub struct MirrorOptions {
    pub path: PathBuf,
    /// The file that remembers the content of the routing file across restarts.
    pub state: PathBuf,
    /// The largest file that is read or written, in bytes.
    pub max_bytes: u64,
}

/// The routing file. See the [module](super).
pub struct RoutingFile {
    file: Target,
    state: StateFile,
    truth: Arc<Truth>,
    error: Mutex<Option<FileError>>,
    failing: IntGauge,
    memory: AsyncMutex<Memory>,
}

/// What is remembered from one check to the next.
#[derive(Default)]
struct Memory {
    seen: Seen,
    /// The file's stamp at the last check.
    stamp: Option<Stamp>,
    /// Checks since the file was last read.
    checks: u32,
    missing_since: Option<Instant>,
    /// The last valid content of the file: an edit is the difference from it.
    known: Option<Known>,
    rejected: Option<Rejected>,
    /// When the file will be written.
    due: Option<Instant>,
    /// The file is not written before this.
    not_before: Option<Instant>,
}

/// The state of the file at the last check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seen {
    /// Unknown, or it has an edit that cannot be imported: it is not written.
    #[default]
    Unsure,
    /// It has the content that was last read from it or written to it.
    Known,
    Missing,
}

struct Known {
    sha256: Sha256,
    table: Arc<RoutingTable>,
    /// The form in which it is remembered across restarts.
    content: Content,
}

/// An edit that cannot be imported.
struct Rejected {
    sha256: Sha256,
    /// The generation that it conflicts with; none: it is not valid by itself.
    with: Option<u64>,
}

impl RoutingFile {
    /// Reads nothing yet. `failing` is 1 while there is an [error](Self::error).
    pub fn new(options: MirrorOptions, truth: Arc<Truth>, failing: IntGauge) -> Arc<Self> {
        let path = options.path;
        Arc::new(Self {
            file: Target {
                path: std::path::absolute(&path).unwrap_or(path),
                max_bytes: options.max_bytes,
            },
            state: StateFile(options.state),
            truth,
            error: Mutex::default(),
            failing,
            memory: AsyncMutex::default(),
        })
    }

    /// Why the file differs from the newest generation; none while they are kept the same.
    pub fn error(&self) -> Option<FileError> {
        lock(&self.error).clone()
    }

    /// Imports edits that were made while no control plane was running; at the very first
    /// start, the whole file. If the file is not valid, nothing changes; the problems are in
    /// the log and in [`RoutingFile::error`].
    pub async fn start(&self) {
        let mut memory = self.memory.lock().await;
        self.restore(&mut memory).await;
        self.check(&mut memory, &Notice::off(), true).await;
    }

    /// Restores what the last process remembered of the file.
    async fn restore(&self, memory: &mut Memory) {
        let contents = self.state.read();
        let Ok(snapshot) = self.file.read().await else {
            // If it is missing, it is written again.
            return;
        };
        let sha256 = snapshot.sha256.to_string();
        let unedited = contents.iter().find(|content| content.sha256 == sha256);
        if let Some(content) = unedited
            && let Ok(Ok(table)) = compile(snapshot.content).await
        {
            memory.known = Some(Known {
                sha256: snapshot.sha256,
                table: Arc::new(table),
                content: content.clone(),
            });
            return;
        }
        // The older one first: it may have been edited before it was replaced, and then what
        // the newer one added must not look like a removal.
        for content in contents.into_iter().rev() {
            if let Some(known) = self.load(content).await {
                memory.known = Some(known);
                return;
            }
        }
    }

    /// Loads a content that is not in the file any more, from the generation that had it.
    async fn load(&self, content: Content) -> Option<Known> {
        let stored = self.truth.store().generation(content.generation).await;
        let stored = stored.ok().flatten()?;
        if stored.record.digest.to_string() != content.digest {
            return None;
        }
        let table = match content.edit.clone() {
            None => stored.table,
            Some(edit) => {
                let edited = spawn_blocking(move || stored.table.apply(&edit));
                Arc::new(edited.await.ok()?.ok()?)
            }
        };
        Some(Known {
            sha256: parse_sha256(&content.sha256)?,
            table,
            content,
        })
    }

    /// Keeps file and generations the same until `ending` is true, and writes the file a last
    /// time if necessary.
    pub async fn keep(&self, mut ending: watch::Receiver<bool>) {
        let mut memory = self.memory.lock().await;
        let memory = &mut *memory;
        let mut newest = self.truth.watch();
        let mut notice = Notice::new();
        let mut thorough = true;
        loop {
            notice.arm(&self.file.path);
            let pause = tokio::select! {
                () = ended(&mut ending) => break,
                pause = self.check(memory, &notice, thorough) => pause,
            };
            if notice.arm(&self.file.path) {
                thorough = true;
                continue;
            }
            self.plan(memory);
            let due = memory.due;
            thorough = tokio::select! {
                () = ended(&mut ending) => break,
                () = notice.changed() => true,
                () = sleep(pause) => false,
                Ok(()) = newest.changed() => false,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.write(memory).await;
                    false
                }
            };
        }
        if self.is_outdated(memory) {
            self.write(memory).await;
        }
    }

    /// Checks the file once, and imports an edit. Returns when to check again.
    async fn check(&self, memory: &mut Memory, notice: &Notice, thorough: bool) -> Duration {
        match self.changed_content(memory, notice, thorough).await {
            Ok(None) => POLL,
            Ok(Some(snapshot)) => {
                memory.missing_since = None;
                memory.seen = self.import(memory, snapshot).await;
                match memory.seen {
                    Seen::Known => self.clear_error(&["read", "take over"]),
                    // It is read again: the store may have failed.
                    Seen::Unsure => memory.stamp = None,
                    Seen::Missing => {}
                }
                POLL
            }
            Err(error) => {
                memory.stamp = None;
                memory.seen = Seen::Unsure;
                if !self.is_missing().await {
                    self.set_error("read", vec![error.problem(&self.file.path)]);
                    return POLL;
                }
                let since = *memory.missing_since.get_or_insert_with(Instant::now);
                // At start, no editor can be expected to be replacing it.
                let never_seen = memory.known.is_none() && memory.rejected.is_none();
                if !never_seen && since.elapsed() < GRACE {
                    return RETRY;
                }
                memory.seen = Seen::Missing;
                memory.rejected = None;
                self.clear_error(&["read", "take over"]);
                POLL
            }
        }
    }

    async fn is_missing(&self) -> bool {
        matches!(tokio::fs::try_exists(&self.file.path).await, Ok(false))
    }

    /// The content of the file, if it changed since the last check.
    async fn changed_content(
        &self,
        memory: &mut Memory,
        notice: &Notice,
        thorough: bool,
    ) -> Result<Option<Snapshot>, ReadError> {
        memory.checks += 1;
        let stamp = self.file.stamp().await?;
        let thorough = thorough || memory.checks >= THOROUGH_EVERY || self.may_be_valid_now(memory);
        if memory.stamp == Some(stamp) && !thorough {
            return Ok(None);
        }
        memory.checks = 0;
        let first = match self.file.read().await {
            Err(ReadError::Moving) => None,
            first => Some(first?),
        };
        if let Some(read) = &first {
            let sha256 = read.sha256;
            if memory
                .known
                .as_ref()
                .is_some_and(|known| known.sha256 == sha256)
            {
                memory.stamp = Some(read.stamp);
                memory.seen = Seen::Known;
                memory.missing_since = None;
                memory.rejected = None;
                self.clear_error(&["read", "take over"]);
                settle::forget(first).await;
                return Ok(None);
            }
            let rejected = memory.rejected.as_ref();
            if rejected.is_some_and(|rejected| rejected.sha256 == sha256)
                && !self.may_be_valid_now(memory)
            {
                memory.stamp = Some(read.stamp);
                memory.seen = Seen::Unsure;
                settle::forget(first).await;
                return Ok(None);
            }
        }
        let settled = self.file.settle(first, notice).await?;
        memory.stamp = Some(settled.stamp);
        Ok(Some(settled))
    }

    /// Whether a rejected edit is to be validated again, because of a newer generation.
    fn may_be_valid_now(&self, memory: &Memory) -> bool {
        let with = memory.rejected.as_ref().and_then(|rejected| rejected.with);
        let newest = self.truth.newest();
        let newest = newest.map_or(0, |newest| newest.record.generation);
        with.is_some_and(|with| with != newest)
    }

    /// Whether the file has no edit and differs from the newest generation.
    fn is_outdated(&self, memory: &Memory) -> bool {
        let Some(newest) = self.truth.newest() else {
            return false;
        };
        match (memory.seen, &memory.known) {
            (Seen::Unsure, _) | (Seen::Known, None) => false,
            (Seen::Missing, _) => true,
            (Seen::Known, Some(known)) => known.table.digest() != newest.record.digest,
        }
    }

    /// Sets when the file will be written.
    fn plan(&self, memory: &mut Memory) {
        if !self.is_outdated(memory) {
            memory.due = None;
            return;
        }
        let soon = Instant::now() + DEBOUNCE;
        let earliest = memory.not_before.map_or(soon, |time| time.max(soon));
        memory.due.get_or_insert(earliest);
    }

    /// Sets the error, and logs it unless it is the same as before.
    fn set_error(&self, what: &'static str, problems: Vec<Problem>) {
        let path = self.file.path.display().to_string();
        let mut error = lock(&self.error);
        let known = error.as_ref();
        if known.is_some_and(|known| known.what == what && known.problems == problems) {
            return;
        }
        self.failing.set(1);
        for problem in &problems {
            log::error!(target: "cellgate::control", "{path}: cannot {what} it: {problem}");
        }
        *error = Some(FileError {
            path,
            what,
            since: SystemTime::now(),
            problems,
        });
    }

    /// Clears the error, if it was one of these.
    fn clear_error(&self, what: &[&str]) {
        let mut error = lock(&self.error);
        if error
            .as_ref()
            .is_some_and(|error| what.contains(&error.what))
        {
            *error = None;
            self.failing.set(0);
            log::info!(
                target: "cellgate::control",
                "{}: in order again",
                self.file.path.display()
            );
        }
    }
}

/// Returns when `ending` is true.
async fn ended(ending: &mut watch::Receiver<bool>) {
    let _ = ending.wait_for(|ending| *ending).await;
}

async fn compile(document: Vec<u8>) -> Result<Result<RoutingTable, Vec<Problem>>, JoinError> {
    spawn_blocking(move || table::compile(&document)).await
}

fn broken(error: &JoinError) -> String {
    format!("the task failed: {error}")
}

fn parse_sha256(text: &str) -> Option<Sha256> {
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(Sha256(bytes))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
