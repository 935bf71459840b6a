//! Following what is served, and keeping it.

use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::task::spawn_blocking;

use super::super::apply::lock;
use super::super::clock::wall;
use super::super::generation::Generation;
use super::journal::Journal;
use super::recall::{Memory, State};
use super::schedule::{Next, Schedule, Step};

/// No fault during an upgrade.
const BUSY: &str = "another process has it (the old one of an upgrade, until it drains)";

impl Memory {
    /// Keeps every generation that is served for long enough to be worth it,
    /// until `stop`.
    pub async fn keep(self: Arc<Self>, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut generations = self.live.watch();
        let mut schedule = Schedule::new(self.promote_after);
        loop {
            generations.mark_unchanged();
            let began = Instant::now();
            let current = self.live.current();
            if let Some(current) = &current {
                schedule.serving(current.number, began);
            }
            let until = match (schedule.next(began), current) {
                (Next::Take(step), Some(current)) => {
                    let number = current.number;
                    let since = wall(schedule.since().unwrap_or(began));
                    let memory = Arc::clone(&self);
                    let taken = spawn_blocking(move || match step {
                        Step::Note => memory.note(&current, since),
                        Step::Store => memory.store(&current),
                        Step::Promote => memory.promote(number, SystemTime::now()),
                    });
                    // `stop` has to wait: writing cannot be broken off anyway.
                    let well = taken.await.unwrap_or(false);
                    schedule.taken(step, number, well, began, Instant::now());
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
        let mut state = lock(&self.state);
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
        let mut state = lock(&self.state);
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
        if !fresh && state.journal.last_served() == Some(number) {
            return Ok(());
        }
        let digest = generation.table.digest().to_string();
        let mut journal = state.journal.clone();
        journal.serving(number, &digest, generation.applied_at, since);
        self.write(state, journal)
    }

    /// Keeps the table of `generation`, which was noted. Says whether that went
    /// well.
    pub(super) fn store(&self, generation: &Generation) -> bool {
        let mut state = lock(&self.state);
        if state.ended {
            return true;
        }
        let stored = self.try_store(&mut state, generation);
        self.outcome(&mut state, stored.map_err(|error| error.to_string()))
    }

    fn try_store(&self, state: &mut State, generation: &Generation) -> io::Result<()> {
        let number = generation.number;
        let files = self.directory.generations()?;
        let there = files.iter().any(|file| file.number == number);
        if !there || state.stored != Some(number) {
            self.directory.write(generation)?;
            state.stored = Some(number);
        }
        let files = self.directory.generations()?;
        let most = self.directory.max_bytes.saturating_mul(2);
        for number in state.journal.superfluous(&files, most) {
            self.directory.remove(number)?;
        }
        Ok(())
    }

    /// The generation `number` has served for long enough. Says whether that
    /// could be noted.
    pub(super) fn promote(&self, number: u64, now: SystemTime) -> bool {
        let mut state = lock(&self.state);
        if state.ended || state.journal.is_promoted(number) {
            return true;
        }
        let mut journal = state.journal.clone();
        journal.promote(number, now);
        let written = self.write(&mut state, journal);
        self.outcome(&mut state, written)
    }

    /// Has `journal` take the place of the one that is known, on disk and then
    /// here.
    fn write(&self, state: &mut State, journal: Journal) -> Result<(), String> {
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
                    target: "cellgate::live",
                    "the table is not kept in {dir} yet: {error}"
                ),
                Some(error) => log::error!(
                    target: "cellgate::live",
                    "the table cannot be kept in {dir} for a restart: {error}"
                ),
                None => log::info!(
                    target: "cellgate::live",
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
