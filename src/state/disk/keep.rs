//! Following what is served, and keeping it.

use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::task::spawn_blocking;

use super::chain::End;
use super::changes::{self, Base};
use super::journal::Journal;
use super::restore::{Memory, State, Tip};
use super::schedule::{CONTACT, Next, Outcome, Schedule, Served, Step};
use crate::background;
use crate::state::generation::Generation;
use crate::telemetry::time::wall;

/// A table of which the file has fewer bytes is always written whole: that costs
/// hardly more than to add to a file, and there are more to fall back to.
pub(super) const SMALL: u64 = 32 << 10;

/// Of a table that differs by more than a part in so many from what was written last,
/// to find out how would cost as much as to write it.
const CHANGED: usize = 4;

/// No fault during an upgrade.
const BUSY: &str = "another process has it (the old one of an upgrade, until it drains)";

impl Memory {
    /// Keeps every generation that is served for long enough to be worth it,
    /// until `stop`.
    pub async fn keep(self: Arc<Self>, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut generations = self.edge.watch();
        let mut schedule = Schedule::new(self.promote_after, Instant::now());
        loop {
            generations.mark_unchanged();
            let began = Instant::now();
            let current = self.edge.current();
            if let Some(current) = &current {
                schedule.serving(Served::of(current), began);
            }
            let until = match (schedule.next(began), current) {
                (Next::Take(step), Some(current)) => {
                    let since = wall(schedule.since().unwrap_or(began));
                    let memory = Arc::clone(&self);
                    let take = move || match step {
                        Step::Note => Outcome::of(memory.note(&current, since)),
                        Step::Append => memory.append(&current),
                        Step::Store => Outcome::of(memory.store(&current)),
                        Step::Promote(served) => {
                            Outcome::of(memory.promote(served, SystemTime::now()))
                        }
                        Step::Contact => Outcome::of(memory.note_contact()),
                    };
                    // `stop` has to wait: writing cannot be broken off anyway.
                    let taken = match step {
                        Step::Store => background::run(take).await,
                        _ => spawn_blocking(take).await,
                    };
                    let outcome = taken.unwrap_or(Outcome::Failed);
                    schedule.taken(step, outcome, began, Instant::now());
                    continue;
                }
                (Next::Wait(until), _) => until,
                (Next::Take(_), None) => None,
            };
            tokio::select! {
                () = &mut stop => break,
                changed = generations.changed() => if changed.is_err() { break },
                () = sleep_until(until) => {}
            }
        }
        let memory = Arc::clone(&self);
        // An error would be a panic, which was logged.
        let _ = spawn_blocking(move || memory.end()).await;
    }

    /// The process ends in order. Nothing is written after this; another
    /// process may.
    pub fn end(&self) {
        let mut state = self.state.lock();
        if state.ended {
            return;
        }
        state.ended = true;
        if state.lock.is_some() {
            let mut journal = state.journal.clone();
            journal.end();
            let written = self.write(&mut state, journal);
            self.outcome(&mut state, written);
            state.lock = None;
        }
    }

    /// Notes that `generation` has been served since `since`. Says whether that
    /// went well.
    pub(super) fn note(&self, generation: &Generation, since: SystemTime) -> bool {
        let mut state = self.state.lock();
        if state.ended {
            return true;
        }
        let number = generation.number;
        let fallback = state.fallback.as_ref();
        if fallback.is_some_and(|fallback| fallback.to != number) {
            // Something newer than what made the edge crash.
            state.fallback = None;
        }
        let noted = self.try_note(&mut state, generation, since);
        // A table that could not be written still cannot be.
        match noted {
            Ok(()) => {
                self.show(&state);
                true
            }
            Err(_) => self.outcome(&mut state, noted),
        }
    }

    fn try_note(
        &self,
        state: &mut State,
        generation: &Generation,
        since: SystemTime,
    ) -> Result<(), String> {
        let number = generation.number;
        let fresh = self.acquire(state)?;
        if fresh {
            // Whatever is there now, it is not what this process knows of.
            (state.stored, state.tip) = (None, None);
        }
        if !fresh && state.journal.last_served() == Some(number) {
            return Ok(());
        }
        let digest = generation.table.digest().to_string();
        let mut journal = state.journal.clone();
        journal.serving(number, &digest, generation.applied_at, since);
        self.write(state, journal)
    }

    /// Keeps `generation`, which was noted, as a change of what was kept last.
    pub(super) fn append(&self, generation: &Generation) -> Outcome {
        let mut state = self.state.lock();
        if state.ended {
            return Outcome::Well;
        }
        let appended = self.try_append(&mut state, generation);
        match appended {
            // Whether it can be kept is yet to be seen.
            Ok(Outcome::Whole) => Outcome::Whole,
            Ok(outcome) => {
                self.outcome(&mut state, Ok(()));
                outcome
            }
            Err(error) => Outcome::of(self.outcome(&mut state, Err::<(), _>(error.to_string()))),
        }
    }

    fn try_append(&self, state: &mut State, generation: &Generation) -> io::Result<Outcome> {
        let number = generation.number;
        let intact = state.tip.take_if(|tip| !self.is_there(tip.end)).is_none();
        if state.stored == Some(number) && intact {
            return Ok(Outcome::Well);
        }
        let Some(tip) = &mut state.tip else {
            return Ok(Outcome::Whole);
        };
        let end = tip.end;
        if end.base_bytes < SMALL {
            return Ok(Outcome::Whole);
        }
        let most = generation.table.key_count() / CHANGED;
        let Some(delta) = tip.table.delta_within(&generation.table, most) else {
            // Two large tables are more than one.
            let tip = state.tip.take();
            background::wait_for(|| drop(tip));
            return Ok(Outcome::Whole);
        };
        let mut lines = match end.changes_bytes {
            0 => changes::header(end.base),
            _ => Vec::new(),
        };
        lines.extend(changes::change(generation, tip.number, delta));
        let bytes = end.changes_bytes.saturating_add(lines.len() as u64);
        if bytes > end.base_bytes.saturating_mul(2) {
            return Ok(Outcome::Whole);
        }
        self.directory
            .append(end.base.number, end.changes_bytes, &lines)?;
        tip.number = number;
        tip.table = generation.table.clone();
        tip.end.changes_bytes = bytes;
        state.stored = Some(number);
        match bytes > end.base_bytes {
            true => Ok(Outcome::Long),
            false => Ok(Outcome::Well),
        }
    }

    /// Whether the files that end there are as they were left.
    fn is_there(&self, end: End) -> bool {
        self.directory.bytes(end.base.number) == end.base_bytes
            && self.directory.changes_bytes(end.base.number) == end.changes_bytes
    }

    /// Keeps the whole table of `generation`, which was noted. Says whether that
    /// went well.
    pub(super) fn store(&self, generation: &Generation) -> bool {
        let mut state = self.state.lock();
        if state.ended {
            return true;
        }
        let stored = self.try_store(&mut state, generation);
        self.outcome(&mut state, stored.map_err(|error| error.to_string()))
    }

    fn try_store(&self, state: &mut State, generation: &Generation) -> io::Result<()> {
        let number = generation.number;
        // Changes of another table, of a process that did not know of this one.
        self.directory.remove_changes(number)?;
        self.directory.write(generation)?;
        state.stored = Some(number);
        state.tip = Some(Tip {
            number,
            table: generation.table.clone(),
            end: End {
                base: Base {
                    number,
                    digest: generation.table.digest(),
                },
                base_bytes: self.directory.bytes(number),
                changes_bytes: 0,
            },
        });
        self.directory.remove_orphans()?;
        let files = self.directory.generations()?;
        let most = self.directory.max_bytes.saturating_mul(2);
        for number in state.journal.superfluous(&files, most) {
            self.directory.remove(number)?;
        }
        Ok(())
    }

    /// The generation has served for long enough. Says whether that could be noted.
    pub(super) fn promote(&self, served: Served, now: SystemTime) -> bool {
        let number = served.number;
        let mut state = self.state.lock();
        if state.ended || state.journal.is_promoted(number) {
            return true;
        }
        let mut journal = state.journal.clone();
        journal.know(number, &served.digest.to_string(), served.applied_at);
        journal.promote(number, now);
        let written = self.write(&mut state, journal);
        self.outcome(&mut state, written)
    }

    /// Notes when a control plane was last heard. Says whether that went well.
    pub(super) fn note_contact(&self) -> bool {
        let mut state = self.state.lock();
        let before = state.journal.contact().unwrap_or(SystemTime::UNIX_EPOCH);
        let contact = self.edge.last_contact().unwrap_or(before);
        let news = contact
            .duration_since(before)
            .is_ok_and(|later| later > CONTACT / 2);
        if state.ended || state.lock.is_none() || !news {
            return true;
        }
        let journal = state.journal.clone();
        let written = self.write(&mut state, journal);
        self.outcome(&mut state, written)
    }

    /// Has `journal` take the place of the one that is known, on disk and then
    /// here.
    fn write(&self, state: &mut State, mut journal: Journal) -> Result<(), String> {
        journal.heard(self.edge.last_contact());
        let written = self.directory.write_journal(&journal.to_json());
        written.map_err(|error| error.to_string())?;
        state.journal = journal;
        Ok(())
    }

    /// Sees to it that this process may write. Says whether it may only from
    /// now on: then the journal is as the process before left it.
    pub(super) fn acquire(&self, state: &mut State) -> Result<bool, String> {
        if state.lock.is_some() {
            return Ok(false);
        }
        let taken = self.directory.lock().map_err(|error| error.to_string())?;
        let taken = taken.ok_or(BUSY)?;
        state.lock = Some(taken);
        state.journal = self.read_journal();
        Ok(true)
    }

    /// Shows how a write went, and logs it when it is news.
    pub(super) fn outcome<T>(&self, state: &mut State, result: Result<T, String>) -> bool {
        let error = result.err();
        if state.error != error {
            let dir = self.directory.path.display();
            match &error {
                Some(error) if error == BUSY => log::info!(
                    target: "cellgate::state",
                    "the table is not kept in {dir} yet: {error}"
                ),
                Some(error) => log::error!(
                    target: "cellgate::state",
                    "the table cannot be kept in {dir} for a restart: {error}"
                ),
                None => log::info!(
                    target: "cellgate::state",
                    "the table can be kept in {dir} again"
                ),
            }
        }
        let well = error.is_none();
        state.error = error;
        self.show(state);
        well
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}
