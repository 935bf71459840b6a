//! Starting from what was kept.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::Serialize;

use super::database::{Database, Error, FILE, Lock};
use super::journal::Journal;
use super::rows::{Base, Broken};
use crate::state::edge_state::EdgeState;
use crate::state::generation::Generation;
use crate::state::restore::Quarantined;
use crate::table::RoutingTable;

#[derive(Clone, Debug)]
pub struct StateDirOptions {
    /// Created if its parent exists.
    pub dir: PathBuf,
    /// Most bytes of a routing document that is kept. All snapshots and deltas together have
    /// at most twice as many, not counting the two snapshots that are needed most.
    pub max_bytes: u64,
    /// How long a generation has to serve to be promoted.
    pub promote_after: Duration,
}

/// What `GET /debug/config` shows as `state`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StateDirStatus {
    pub dir: String,
    /// The newest generation that a restart would find.
    pub stored_generation: Option<u64>,
    /// Whether that generation is promoted.
    pub promoted: bool,
    /// The newest promoted generation: the one that a crash loop leads back to.
    pub promoted_generation: Option<u64>,
    /// Set while an older generation is served because the newest one crashed the edge.
    pub fallback: Option<Fallback>,
    /// Why nothing can be written.
    pub error: Option<String>,
}

/// The generation `to` is served instead of `from`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fallback {
    pub from: u64,
    pub to: u64,
    pub why: String,
}

/// Keeps the tables that are served in the state directory.
pub struct StateDir {
    pub(super) edge: Arc<EdgeState>,
    pub(super) options: StateDirOptions,
    pub(super) inner: Mutex<Inner>,
}

/// Locked while the database is read or written.
#[derive(Default)]
pub(super) struct Inner {
    /// Before the lock is acquired, and while writing fails, open only to read if at all.
    pub database: Option<Database>,
    /// None while another process holds it. Dropped after the database.
    pub lock: Option<Lock>,
    pub journal: Journal,
    /// The generations that are stored, until the first table is served.
    found: Vec<u64>,
    /// The newest generation that is known to be stored.
    pub stored: Option<u64>,
    /// What the next delta is made from; none: the next generation needs a snapshot.
    pub tip: Option<Tip>,
    /// The database was closed before the process forks, and is this process's as before.
    pub closed: bool,
    /// The process ends, and another one may have begun to write.
    pub ended: bool,
    pub fallback: Option<Fallback>,
    /// As it is shown.
    pub error: Option<String>,
}

/// The generation that was stored last.
pub(super) struct Tip {
    pub number: u64,
    /// Shares everything that has not changed with the table that is served.
    pub table: RoutingTable,
    pub base: Base,
}

impl StateDir {
    /// Opens the directory and judges how the last process ended. Never fails: a directory
    /// that cannot be used is treated as empty, and that is logged and shown.
    pub fn open(options: StateDirOptions, edge: Arc<EdgeState>, now: SystemTime) -> Arc<Self> {
        let state_dir = Self {
            edge,
            options,
            inner: Mutex::default(),
        };
        state_dir.report_old_format();
        {
            let mut inner = state_dir.inner.lock();
            let acquired = state_dir.acquire(&mut inner);
            if inner.database.is_none() {
                inner.database = state_dir.open_to_read();
                inner.journal = state_dir.read_journal(inner.database.as_ref());
            }
            // The process that holds the lock is alive, so it has not crashed.
            if inner.lock.is_some() {
                inner.journal.judge(now);
            }
            if let Err(error) = acquired {
                state_dir.report(&mut inner, Some(&error));
            }
            inner.found = state_dir.numbers(inner.database.as_ref());
            let newest = inner.found.last().copied().unwrap_or_default();
            state_dir
                .edge
                .number_after(newest.max(inner.journal.highest()));
            state_dir.edge.heard_before(inner.journal.last_contact());
        }
        Arc::new(state_dir)
    }

    /// Serves the best generation that is stored and not quarantined. Returns whether there
    /// is one.
    pub fn restore(&self, now: SystemTime) -> bool {
        let mut inner = self.inner.lock();
        let candidates = inner.journal.candidates(&inner.found);
        self.restore_first(&mut inner, &candidates, now)
    }

    /// Serves a quarantined generation, when there is no other table at all. Returns whether
    /// there is one.
    pub fn restore_quarantined(&self, now: SystemTime) -> bool {
        let mut inner = self.inner.lock();
        let quarantined = inner.journal.quarantined().map(|entry| entry.number);
        let quarantined: Vec<u64> = quarantined.filter(|it| inner.found.contains(it)).collect();
        self.restore_first(&mut inner, &quarantined, now)
    }

    /// Call it when the first table is served, wherever that came from. From then on,
    /// quarantined content is refused.
    pub fn started(&self, now: SystemTime) {
        let Some(current) = self.edge.current() else {
            return;
        };
        let digest = current.table.digest().to_string();
        let mut inner = self.inner.lock();
        let quarantined = inner.journal.quarantined().map(|entry| Quarantined {
            digest: entry.digest.clone(),
            number: entry.number,
        });
        // The routing file may have the same content, and there was no other.
        let quarantined = quarantined.filter(|it| it.digest != digest).collect();
        self.edge.quarantine(quarantined);
        let from = inner.journal.newest_if_quarantined();
        let from = from.filter(|from| from.digest != digest);
        inner.fallback = from.map(|from| Fallback {
            from: from.number,
            to: current.number,
            why: format!(
                "the edge crashed twice within a minute before generation {} had served for {}",
                from.number,
                humantime::format_duration(self.options.promote_after)
            ),
        });
        if let Some(Fallback { from, to, why }) = &inner.fallback {
            log::error!(
                target: "cellgate::state",
                "falling back from generation {from} to {to}: {why}"
            );
        }
        if inner.stored != Some(current.number) {
            self.write_serving(&mut inner, &current, now);
        }
        inner.database.take_if(|database| !database.is_writable());
        inner.found = Vec::new();
        self.show(&inner);
    }

    fn restore_first(&self, inner: &mut Inner, candidates: &[u64], now: SystemTime) -> bool {
        // By snapshot: the lowest of the generations made from it that cannot be read.
        let mut broken: HashMap<u64, u64> = HashMap::new();
        let snapshots = inner.database.as_ref().and_then(|it| it.snapshots().ok());
        let snapshots = snapshots.unwrap_or_default();
        for number in candidates {
            let numbers = snapshots.iter().rev().map(|snapshot| snapshot.number);
            let base = numbers.into_iter().find(|base| base <= number);
            let base = base.unwrap_or_default();
            if broken.get(&base).is_some_and(|from| from <= number) {
                continue;
            }
            // Before it is read, as reading it may be what crashes the process.
            inner.journal.trying(*number, now);
            self.write_journal(inner);
            let Some(database) = &inner.database else {
                return false;
            };
            let restored = match database.read(*number) {
                Ok(found) => self
                    .edge
                    .restore(found.head, found.table)
                    .map(|generation| (generation, found.base)),
                Err(Broken { why, from }) => {
                    broken.insert(base, from);
                    Err(why)
                }
            };
            match restored {
                Ok((generation, base)) => {
                    inner.stored = Some(generation.number);
                    inner.tip = base.map(|base| Tip::new(&generation, base));
                    self.write_serving(inner, &generation, now);
                    return true;
                }
                Err(why) => log::error!(
                    target: "cellgate::state",
                    "generation {number} in {} is skipped: {why}",
                    self.options.dir.display()
                ),
            }
        }
        inner.journal.end();
        false
    }

    fn write_serving(&self, inner: &mut Inner, generation: &Generation, now: SystemTime) {
        let digest = generation.table.digest().to_string();
        let (number, applied_at) = (generation.number, generation.applied_at);
        inner.journal.serving(number, &digest, applied_at, now);
        self.write_journal(inner);
    }

    /// Writes the journal if the database can be written.
    fn write_journal(&self, inner: &mut Inner) {
        if let Some(database) = inner.database.as_ref().filter(|it| it.is_writable()) {
            inner.journal.set_last_contact(self.edge.last_contact());
            let written = database.write_journal(&inner.journal);
            self.report(inner, written.err().as_ref());
        }
    }

    /// Makes sure that this process may write. Returns whether the database was opened for
    /// that just now; then the journal has to be written, even if it is as it was before.
    pub(super) fn acquire(&self, inner: &mut Inner) -> Result<bool, Error> {
        if inner.database.as_ref().is_some_and(Database::is_writable) {
            return Ok(false);
        }
        let dir = &self.options.dir;
        inner.database = None;
        if std::mem::take(&mut inner.closed) {
            inner.database = Some(Database::open(dir, self.options.max_bytes)?);
            return Ok(true);
        }
        // The directory may be another one than before.
        let held = inner.lock.take().is_some();
        inner.lock = Some(Lock::acquire(dir)?);
        let database = match Database::open(dir, self.options.max_bytes) {
            Err(Error::Unusable(why)) => {
                self.move_aside(&why)?;
                Database::open(dir, self.options.max_bytes)
            }
            opened => opened,
        }?;
        match held {
            // Of a database that is new, or of another directory.
            true => database.write_journal(&inner.journal)?,
            false => inner.journal = self.read_journal(Some(&database)),
        }
        // What is stored may be of another process.
        (inner.stored, inner.tip) = (None, None);
        inner.database = Some(database);
        Ok(true)
    }

    pub(super) fn move_aside(&self, why: &str) -> Result<(), Error> {
        let dir = &self.options.dir;
        let aside = Database::move_aside(dir)?;
        log::error!(
            target: "cellgate::state",
            "{} cannot be used: {why}; it is renamed to {} and a new one is created",
            dir.join(FILE).display(),
            aside.display()
        );
        Ok(())
    }

    fn open_to_read(&self) -> Option<Database> {
        let opened = Database::open_to_read(&self.options.dir, self.options.max_bytes);
        opened.unwrap_or_else(|error| {
            self.report_unreadable(&error);
            None
        })
    }

    fn numbers(&self, database: Option<&Database>) -> Vec<u64> {
        let numbers = database.map_or(Ok(Vec::new()), Database::numbers);
        numbers.unwrap_or_else(|error| {
            self.report_unreadable(&error);
            Vec::new()
        })
    }

    fn report_unreadable(&self, error: &Error) {
        let path = self.options.dir.join(FILE);
        log::error!(
            target: "cellgate::state",
            "{} cannot be read: {error}",
            path.display()
        );
    }

    fn read_journal(&self, database: Option<&Database>) -> Journal {
        let journal = database.map_or(Ok(Journal::default()), Database::journal);
        journal.unwrap_or_else(|why| {
            log::error!(
                target: "cellgate::state",
                "the journal in {} is skipped, which generations are promoted or quarantined is \
                 not known: {why}",
                self.options.dir.join(FILE).display()
            );
            Journal::default()
        })
    }

    /// Until version 0.1, there were files in the place of the database.
    fn report_old_format(&self) {
        let old = self.options.dir.join("journal.json");
        if old.exists() {
            log::warn!(
                target: "cellgate::state",
                "{} and the files *.generation and *.changes beside it are of an earlier version \
                 and are not read; once the edge has stored its table in {FILE}, remove them",
                old.display()
            );
        }
    }

    pub(super) fn show(&self, inner: &Inner) {
        let stored = inner.stored;
        self.edge.show_state_dir(StateDirStatus {
            dir: self.options.dir.display().to_string(),
            stored_generation: stored,
            promoted: stored.is_some_and(|number| inner.journal.is_promoted(number)),
            promoted_generation: inner.journal.newest_promoted(),
            fallback: inner.fallback.clone(),
            error: inner.error.clone(),
        });
    }

    /// Shows how a write went, and logs it when that changes.
    pub(super) fn report(&self, inner: &mut Inner, error: Option<&Error>) {
        let text = error.map(ToString::to_string);
        if inner.error != text {
            let dir = self.options.dir.display();
            match error {
                Some(Error::Locked) => log::info!(
                    target: "cellgate::state",
                    "the table is not yet kept in {dir}: {}", Error::Locked
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
        inner.error = text;
        self.show(inner);
    }
}

impl Tip {
    pub fn new(generation: &Generation, base: Base) -> Self {
        Self {
            number: generation.number,
            table: generation.table.clone(),
            base,
        }
    }
}
