//! Starting from what was kept.

use std::collections::HashMap;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::chain::{Broken, Chains, End};
use super::directory::{Directory, Lock};
use super::journal::Journal;
use super::status::{Fallback, MemoryStatus};
use crate::state::edge_state::EdgeState;
use crate::state::generation::Generation;
use crate::state::restore::Barred;
use crate::table::RoutingTable;

/// Where the memory is, and what bounds it.
#[derive(Clone, Debug)]
pub struct MemoryOptions {
    /// Made if the directory above it exists.
    pub dir: PathBuf,
    /// The largest document that is kept. All files together have at most twice
    /// as many bytes, beyond the two that are needed most and the newest changes,
    /// which have at most twice as many as the table that they are of.
    pub max_bytes: u64,
    /// How long a table has to serve to count as good.
    pub promote_after: Duration,
}

/// The tables that were served last, on disk.
pub struct Memory {
    pub(super) edge: Arc<EdgeState>,
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
    /// The newest generation that is known to be whole on disk.
    pub stored: Option<u64>,
    /// What the next change can be added to; none: to nothing.
    pub tip: Option<Tip>,
    /// What was found at start, until something is served.
    found: Chains,
    /// The process ends, and another may have begun to write.
    pub ended: bool,
    pub fallback: Option<Fallback>,
    pub error: Option<String>,
}

/// The generation that was written last, where another can be added.
pub(super) struct Tip {
    pub number: u64,
    /// Shares with what is served all that has not changed since.
    pub table: RoutingTable,
    pub end: End,
}

impl Memory {
    /// Opens the memory and judges how the process before this one ended. Never
    /// fails: what cannot be used is as good as empty, and said to be so.
    pub fn open(options: MemoryOptions, edge: Arc<EdgeState>, now: SystemTime) -> Arc<Self> {
        let memory = Self {
            edge,
            directory: Directory {
                path: options.dir,
                max_bytes: options.max_bytes,
            },
            promote_after: options.promote_after,
            state: Mutex::default(),
        };
        {
            let mut state = memory.state.lock();
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
            state.found = Chains::find(&memory.directory);
            let stored = state.found.numbers().into_iter().max();
            memory
                .edge
                .number_after(stored.unwrap_or_default().max(state.journal.highest()));
            memory.edge.heard_before(state.journal.contact());
        }
        Arc::new(memory)
    }

    /// Puts back the best table there is, but for condemned ones. Says whether
    /// there is one.
    pub fn recall(&self, now: SystemTime) -> bool {
        let mut state = self.state.lock();
        let candidates = state.journal.candidates(&state.found.numbers());
        self.try_all(&mut state, &candidates, now)
    }

    /// Puts back a condemned table: one that crashes the edge is no worse than
    /// none at all. Says whether there is one.
    pub fn recall_condemned(&self, now: SystemTime) -> bool {
        let mut state = self.state.lock();
        let stored = state.found.numbers();
        let condemned = state.journal.condemned().map(|entry| entry.number);
        let condemned: Vec<u64> = condemned.filter(|it| stored.contains(it)).collect();
        self.try_all(&mut state, &condemned, now)
    }

    /// A table is being served, wherever it came from. From now on, condemned
    /// ones are refused.
    pub fn started(&self, now: SystemTime) {
        let Some(current) = self.edge.current() else {
            return;
        };
        let digest = current.table.digest().to_string();
        let mut state = self.state.lock();
        state.found = Chains::default();
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
        self.edge.bar(barred);
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
                target: "cellgate::state",
                "falling back from generation {from} to {to}: {why}"
            );
        }
        if state.stored != Some(current.number) {
            self.note_serving(&mut state, &current, now);
        }
        self.show(&state);
    }

    fn try_all(&self, state: &mut State, candidates: &[u64], now: SystemTime) -> bool {
        let found = mem::take(&mut state.found);
        let served = self.try_each(state, &found, candidates, now);
        state.found = found;
        if !served {
            state.journal.end();
        }
        served
    }

    fn try_each(
        &self,
        state: &mut State,
        found: &Chains,
        candidates: &[u64],
        now: SystemTime,
    ) -> bool {
        // From which generation on those of a whole table cannot be had.
        let mut broken: HashMap<u64, u64> = HashMap::new();
        for number in candidates {
            let base = found.base_of(*number).unwrap_or_default();
            if broken.get(&base).is_some_and(|from| from <= number) {
                continue;
            }
            // Before it is read: should reading it be what crashes the edge,
            // that has to be known.
            state.journal.trying(*number, now);
            self.save(state);
            let restored = match found.read(&self.directory, *number) {
                Ok(found) => self.edge.restore(found.stored).map(|it| (it, found.end)),
                Err(Broken { why, from }) => {
                    broken.insert(base, from);
                    Err(why)
                }
            };
            match restored {
                Ok((generation, end)) => {
                    state.stored = Some(generation.number);
                    state.tip = end.map(|end| Tip {
                        number: generation.number,
                        table: generation.table.clone(),
                        end,
                    });
                    self.note_serving(state, &generation, now);
                    return true;
                }
                Err(why) => log::error!(
                    target: "cellgate::state",
                    "generation {number} in {} is skipped: {why}",
                    self.directory.path.display()
                ),
            }
        }
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
            state.journal.heard(self.edge.last_contact());
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
                target: "cellgate::state",
                "the journal in {} is skipped, which of the tables are good is not known: {why}",
                self.directory.path.display()
            );
            Journal::default()
        })
    }

    pub(super) fn show(&self, state: &State) {
        let stored = state.stored;
        self.edge.show_memory(MemoryStatus {
            dir: self.directory.path.display().to_string(),
            stored_generation: stored,
            promoted: stored.is_some_and(|number| state.journal.is_promoted(number)),
            promoted_generation: state.journal.newest_promoted(),
            fallback: state.fallback.clone(),
            error: state.error.clone(),
        });
    }
}
