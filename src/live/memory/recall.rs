//! Starting from what was kept.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::super::apply::{Live, lock};
use super::super::generation::Generation;
use super::super::restore::Barred;
use super::directory::{Directory, Lock};
use super::journal::Journal;
use super::status::{Fallback, MemoryStatus};

/// Where the memory is, and what bounds it.
#[derive(Clone, Debug)]
pub struct MemoryOptions {
    /// Made if the directory above it exists.
    pub dir: PathBuf,
    /// The largest document that is kept. All files together have at most twice
    /// as many bytes, beyond the two that are needed most.
    pub max_bytes: u64,
    /// How long a table has to serve to count as good.
    pub promote_after: Duration,
}

/// The tables that were served last, on disk.
pub struct Memory {
    pub(super) live: Arc<Live>,
    pub(super) directory: Directory,
    pub(super) promote_after: Duration,
    pub(super) state: Mutex<State>,
}

/// What changes; held while files are written.
#[derive(Default)]
pub(super) struct State {
    /// None while another process has it. Only with it anything is written.
    pub lock: Option<Lock>,
    pub journal: Journal,
    /// The newest generation that is known to be whole in its file.
    pub stored: Option<u64>,
    /// The process ends, and another may have begun to write.
    pub ended: bool,
    pub fallback: Option<Fallback>,
    pub error: Option<String>,
}

impl Memory {
    /// Opens the memory and judges how the process before this one ended. Never
    /// fails: what cannot be used is as good as empty, and said to be so.
    pub fn open(options: MemoryOptions, live: Arc<Live>, now: SystemTime) -> Arc<Self> {
        let memory = Self {
            live,
            directory: Directory {
                path: options.dir,
                max_bytes: options.max_bytes,
            },
            promote_after: options.promote_after,
            state: Mutex::default(),
        };
        {
            let mut state = lock(&memory.state);
            let acquired = memory.acquire(&mut state);
            if state.lock.is_some() {
                state.journal.judge(now);
            } else {
                // Whoever has the lock is alive, so it has not crashed.
                state.journal = memory.read_journal();
            }
            if acquired.is_err() {
                memory.outcome(&mut state, acquired);
            }
            let stored = memory.numbers().into_iter().max().unwrap_or_default();
            memory
                .live
                .number_after(stored.max(state.journal.highest()));
        }
        Arc::new(memory)
    }

    /// Puts back the best table there is, but for condemned ones. Says whether
    /// there is one.
    pub fn recall(&self, now: SystemTime) -> bool {
        let mut state = lock(&self.state);
        let candidates = state.journal.candidates(&self.numbers());
        self.try_all(&mut state, &candidates, now)
    }

    /// Puts back a condemned table: one that crashes the edge is no worse than
    /// none at all. Says whether there is one.
    pub fn recall_condemned(&self, now: SystemTime) -> bool {
        let mut state = lock(&self.state);
        let stored = self.numbers();
        let condemned = state.journal.condemned().map(|entry| entry.number);
        let condemned: Vec<u64> = condemned.filter(|it| stored.contains(it)).collect();
        self.try_all(&mut state, &condemned, now)
    }

    /// A table is being served, wherever it came from. From now on, condemned
    /// ones are refused.
    pub fn started(&self, now: SystemTime) {
        let Some(current) = self.live.current() else {
            return;
        };
        let digest = current.table.digest().to_string();
        let mut state = lock(&self.state);
        // The same content may be in the routing file, and there was no other.
        let from = state
            .journal
            .given_up()
            .filter(|from| from.digest != digest)
            .map(|from| from.number);
        let barred = state.journal.condemned().map(|entry| Barred {
            digest: entry.digest.clone(),
            number: entry.number,
        });
        let barred = barred.filter(|barred| barred.digest != digest).collect();
        self.live.bar(barred);
        state.fallback = from.map(|from| Fallback {
            from,
            to: current.number,
            why: format!(
                "twice within a minute, the edge crashed before generation {from} had served for {}",
                humantime::format_duration(self.promote_after)
            ),
        });
        if let Some(Fallback { from, to, why }) = &state.fallback {
            log::error!(
                target: "cellgate::live",
                "falling back from generation {from} to {to}: {why}"
            );
        }
        if state.stored != Some(current.number) {
            self.note_serving(&mut state, &current, now);
        }
        self.show(&state);
    }

    fn try_all(&self, state: &mut State, candidates: &[u64], now: SystemTime) -> bool {
        for number in candidates {
            // Before it is read: should reading it be what crashes the edge,
            // that has to be known.
            state.journal.trying(*number, now);
            self.save(state);
            let restored = self
                .directory
                .read(*number)
                .and_then(|stored| self.live.restore(stored));
            match restored {
                Ok(generation) => {
                    state.stored = Some(generation.number);
                    self.note_serving(state, &generation, now);
                    return true;
                }
                Err(why) => log::error!(
                    target: "cellgate::live",
                    "generation {number} in {} is skipped: {why}",
                    self.directory.path.display()
                ),
            }
        }
        state.journal.end();
        false
    }

    fn note_serving(&self, state: &mut State, generation: &Generation, now: SystemTime) {
        let digest = generation.table.digest().to_string();
        let (number, applied_at) = (generation.number, generation.applied_at);
        state.journal.serving(number, &digest, applied_at, now);
        self.save(state);
    }

    /// Writes the journal, if this process may.
    fn save(&self, state: &mut State) {
        if state.lock.is_some() {
            let written = self.directory.write_journal(&state.journal.to_json());
            self.outcome(state, written.map_err(|error| error.to_string()));
        }
    }

    /// The journal as it is on disk; an empty one if there is none.
    pub(super) fn read_journal(&self) -> Journal {
        let read = match self.directory.journal() {
            Ok(None) => return Journal::default(),
            Ok(Some(text)) => Journal::parse(&text),
            Err(error) => Err(error.to_string()),
        };
        read.unwrap_or_else(|why| {
            log::error!(
                target: "cellgate::live",
                "the journal in {} is skipped, which of the tables are good is not known: {why}",
                self.directory.path.display()
            );
            Journal::default()
        })
    }

    /// What can be read of the directory.
    fn numbers(&self) -> Vec<u64> {
        let files = self.directory.generations().unwrap_or_default();
        files.into_iter().map(|file| file.number).collect()
    }

    pub(super) fn show(&self, state: &State) {
        let stored = state.stored;
        self.live.show_memory(MemoryStatus {
            dir: self.directory.path.display().to_string(),
            stored_generation: stored,
            promoted: stored.is_some_and(|number| state.journal.is_promoted(number)),
            fallback: state.fallback.clone(),
            error: state.error.clone(),
        });
    }
}
