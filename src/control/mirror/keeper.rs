//! What is done about the routing file, and when: `edits` are taken over, by
//! `writing` the file follows, and `trouble` is shown to operators.

mod edits;
mod trouble;
mod writing;

pub use self::trouble::FileError;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus::IntGauge;
use serde::Serialize;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until};

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

/// How often the file is looked at when nothing says that it changed, and how long
/// after a failure it is tried again.
const POLL: Duration = Duration::from_secs(5);

/// How soon an edit that may not be over is looked at again.
const RETRY: Duration = Duration::from_millis(100);

/// How long a file may be gone before it is written again: between a deletion and
/// the new file is no file.
const GRACE: Duration = Duration::from_secs(1);

/// How long after a change the file is written: more may follow.
const DEBOUNCE: Duration = Duration::from_millis(300);

/// Of its time, at most one part in so many goes into writing the file.
const SHARE: u32 = 20;

/// Every so many looks, the file is read although its stamp is the same: file
/// systems exist whose clocks are too coarse to tell.
const THOROUGH_EVERY: u32 = 12;

/// How far back in history a file without a memory is looked up.
const LOOK_BACK: usize = 1000;

/// What a routing file is kept with.
#[derive(Clone, Debug)]
pub struct MirrorOptions {
    pub path: PathBuf,
    /// Where it is remembered what was in the file.
    pub state: PathBuf,
    /// The largest file that is read, or written, in bytes.
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

/// What is remembered from one look to the next.
#[derive(Default)]
struct Memory {
    seen: Seen,
    /// Of the file at the last look.
    stamp: Option<Stamp>,
    /// Looks since the file was read last.
    glances: u32,
    missing_since: Option<Instant>,
    /// What was in the file when it was in order: an edit is what differs from it.
    known: Option<Known>,
    rejected: Option<Rejected>,
    /// When the file is written.
    due: Option<Instant>,
    /// It is not written before this.
    not_before: Option<Instant>,
}

/// What the file was at the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seen {
    /// It cannot be said, or has an edit that is not taken over: left alone.
    #[default]
    Unsure,
    /// What was read from it or written to it last.
    Known,
    Missing,
}

struct Known {
    sha256: Sha256,
    table: Arc<RoutingTable>,
    /// How it is remembered.
    content: Content,
}

/// An edit that cannot be taken over.
struct Rejected {
    sha256: Sha256,
    /// The generation that it does not go together with; none: it is not valid
    /// whatever there is.
    with: Option<u64>,
}

impl RoutingFile {
    /// Nothing is read yet. `failing` is 1 while there is an error.
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

    /// Why the file is not what the newest generation is; none when all is well.
    pub fn error(&self) -> Option<FileError> {
        lock(&self.error).clone()
    }

    /// Takes over what was edited while nobody looked; at the very first start, all
    /// of the file. What is wrong with it is in the log and in
    /// [`RoutingFile::error`], and nothing is changed by it.
    pub async fn start(&self) {
        let mut memory = self.memory.lock().await;
        self.recall(&mut memory).await;
        self.look(&mut memory, &Notice::off(), true).await;
    }

    /// What is remembered of the file as the last process left it.
    async fn recall(&self, memory: &mut Memory) {
        let contents = self.state.read();
        let Ok(snapshot) = self.file.read().await else {
            // Nothing to be known yet: if it is gone, it is written again.
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
        // The older one first: it may not have been replaced yet when it was edited,
        // and what the newer one has more must not look as if it was taken out.
        for content in contents.into_iter().rev() {
            if let Some(known) = self.remembered(content).await {
                memory.known = Some(known);
                return;
            }
        }
    }

    /// A content that is not in the file any more.
    async fn remembered(&self, content: Content) -> Option<Known> {
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

    /// Keeps file and generations the same until `ending` says so, and writes what is
    /// left to be written then.
    pub async fn keep(&self, mut ending: watch::Receiver<bool>) {
        let mut memory = self.memory.lock().await;
        let memory = &mut *memory;
        let mut newest = self.truth.watch();
        let mut notice = Notice::new();
        let mut thorough = true;
        loop {
            notice.arm(&self.file.path);
            let pause = tokio::select! {
                () = told(&mut ending) => break,
                pause = self.look(memory, &notice, thorough) => pause,
            };
            if notice.arm(&self.file.path) {
                thorough = true;
                continue;
            }
            self.plan(memory);
            let due = memory.due;
            thorough = tokio::select! {
                () = told(&mut ending) => break,
                () = notice.changed() => true,
                () = sleep(pause) => false,
                Ok(()) = newest.changed() => false,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.write(memory).await;
                    false
                }
            };
        }
        if self.is_old(memory) {
            self.write(memory).await;
        }
    }

    /// Looks once, and takes over what was edited. Says when to look again.
    async fn look(&self, memory: &mut Memory, notice: &Notice, thorough: bool) -> Duration {
        match self.news(memory, notice, thorough).await {
            Ok(None) => POLL,
            Ok(Some(snapshot)) => {
                memory.missing_since = None;
                memory.seen = self.take(memory, snapshot).await;
                match memory.seen {
                    Seen::Known => self.clear_error(&["read", "take over"]),
                    // In case it was the store that failed.
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
                // At start, nobody is in the middle of anything.
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

    /// A settled content that has not been dealt with.
    async fn news(
        &self,
        memory: &mut Memory,
        notice: &Notice,
        thorough: bool,
    ) -> Result<Option<Snapshot>, ReadError> {
        memory.glances += 1;
        let stamp = self.file.stamp().await?;
        let thorough = thorough || memory.glances >= THOROUGH_EVERY || self.may_fit_now(memory);
        if memory.stamp == Some(stamp) && !thorough {
            return Ok(None);
        }
        memory.glances = 0;
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
                && !self.may_fit_now(memory)
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

    /// Whether a rejected edit is to be judged again, as there is another generation.
    fn may_fit_now(&self, memory: &Memory) -> bool {
        let with = memory.rejected.as_ref().and_then(|rejected| rejected.with);
        let newest = self.truth.newest();
        let newest = newest.map_or(0, |newest| newest.record.generation);
        with.is_some_and(|with| with != newest)
    }

    /// Whether the file is in order and does not say what the newest generation does.
    fn is_old(&self, memory: &Memory) -> bool {
        let Some(newest) = self.truth.newest() else {
            return false;
        };
        match (memory.seen, &memory.known) {
            (Seen::Unsure, _) | (Seen::Known, None) => false,
            (Seen::Missing, _) => true,
            (Seen::Known, Some(known)) => known.table.digest() != newest.record.digest,
        }
    }

    /// Sets when the file is to be written.
    fn plan(&self, memory: &mut Memory) {
        if !self.is_old(memory) {
            memory.due = None;
            return;
        }
        let soon = Instant::now() + DEBOUNCE;
        let earliest = memory.not_before.map_or(soon, |time| time.max(soon));
        memory.due.get_or_insert(earliest);
    }
}

/// Returns when the process is to end.
async fn told(ending: &mut watch::Receiver<bool>) {
    let _ = ending.wait_for(|ending| *ending).await;
}

async fn compile(document: Vec<u8>) -> Result<Result<RoutingTable, Vec<Problem>>, JoinError> {
    spawn_blocking(move || table::compile(&document)).await
}

fn broken(error: &JoinError) -> String {
    format!("broke off: {error}")
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
