//! Following what is served, and keeping it.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::task::spawn_blocking;

use super::database::Error;
use super::journal::Journal;
use super::record::Record;
use super::restore::{Inner, StateDir, Tip};
use super::rows::Base;
use super::schedule::{CONTACT, Next, Outcome, Schedule, Served, Step};
use crate::background;
use crate::state::generation::Generation;
use crate::telemetry::time::wall;

/// A table whose document has fewer bytes is always stored as a snapshot: that costs hardly
/// more than a delta.
pub(super) const SMALL: u64 = 32 << 10;

/// When more than one in so many keys differ, finding out which would cost as much as storing
/// a snapshot.
const CHANGED: usize = 4;

impl StateDir {
    /// Keeps the generations that are served, until `stop`.
    pub async fn keep(self: Arc<Self>, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut generations = self.edge.watch();
        let mut schedule = Schedule::new(self.options.promote_after, Instant::now());
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
                    let state_dir = Arc::clone(&self);
                    let take = move || state_dir.take(step, &current, since);
                    // A write cannot be interrupted, so `stop` waits for it.
                    let taken = match step {
                        Step::Snapshot => background::run(take).await,
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
        let state_dir = Arc::clone(&self);
        // An error would be a panic, which was logged.
        let _ = spawn_blocking(move || state_dir.end()).await;
    }

    /// Closes the database until the next write. Call it before the process forks: SQLite's
    /// locks are not inherited, so another process would take the database for unused and
    /// remove its write-ahead log.
    pub fn close_before_fork(&self) {
        let mut inner = self.inner.lock();
        inner.closed = inner.database.take().is_some();
    }

    /// The process ends in order: nothing is written after this, and another process may
    /// write.
    pub fn end(&self) {
        let mut inner = self.inner.lock();
        if inner.ended {
            return;
        }
        if inner.closed {
            let opened = self.acquire(&mut inner);
            self.report(&mut inner, opened.err().as_ref());
        }
        inner.ended = true;
        if let Some(database) = inner.database.take_if(|database| database.is_writable()) {
            inner.journal.end();
            inner.journal.set_last_contact(self.edge.last_contact());
            let written = database.write_journal(&inner.journal);
            self.report(&mut inner, written.err().as_ref());
        }
        inner.lock = None;
    }

    /// Takes a step for `current`, which has been served since `since`.
    pub(super) fn take(&self, step: Step, current: &Generation, since: SystemTime) -> Outcome {
        let mut inner = self.inner.lock();
        if inner.ended {
            return Outcome::Done;
        }
        let taken = match step {
            Step::Journal => self.record_serving(&mut inner, current, since),
            Step::Delta => self.store_delta(&mut inner, current),
            Step::Snapshot => self.store_snapshot(&mut inner, current),
            Step::Promote(served) => self.promote(&mut inner, served),
            Step::Contact => self.record_contact(&mut inner),
        };
        match taken {
            // Whether the table itself can be stored is not known yet.
            Ok(outcome) if step == Step::Journal || outcome == Outcome::NeedsSnapshot => {
                self.show(&inner);
                outcome
            }
            Ok(outcome) => {
                self.report(&mut inner, None);
                outcome
            }
            Err(error) => {
                if let Error::Unusable(why) = &error {
                    // The next write creates another one.
                    let _ = self.move_aside(why);
                }
                self.report(&mut inner, Some(&error));
                Outcome::Failed
            }
        }
    }

    fn record_serving(
        &self,
        inner: &mut Inner,
        current: &Generation,
        since: SystemTime,
    ) -> Result<Outcome, Error> {
        let number = current.number;
        // The fallback ends when something newer is served.
        inner.fallback.take_if(|fallback| fallback.to != number);
        let opened = self.acquire(inner)?;
        if opened || inner.journal.last_served() != Some(number) {
            let digest = current.table.digest().to_string();
            let mut journal = inner.journal.clone();
            journal.serving(number, &digest, current.applied_at, since);
            self.replace_journal(inner, journal)?;
        }
        Ok(Outcome::Done)
    }

    fn store_delta(&self, inner: &mut Inner, current: &Generation) -> Result<Outcome, Error> {
        self.acquire(inner)?;
        if inner.stored == Some(current.number) {
            return Ok(Outcome::Done);
        }
        let (Some(tip), Some(database)) = (&mut inner.tip, &inner.database) else {
            return Ok(Outcome::NeedsSnapshot);
        };
        let Base {
            document_bytes,
            delta_bytes,
        } = tip.base;
        if document_bytes < SMALL || delta_bytes > document_bytes.saturating_mul(2) {
            return Ok(Outcome::NeedsSnapshot);
        }
        let most = current.table.key_count() / CHANGED;
        let Some(delta) = tip.table.delta_within(&current.table, most) else {
            let tip = inner.tip.take();
            background::wait_for(|| drop(tip));
            return Ok(Outcome::NeedsSnapshot);
        };
        let record = Record::new(current, Some((tip.number, delta)));
        let delta_bytes = delta_bytes.saturating_add(database.append(&record)?);
        *tip = Tip::new(
            current,
            Base {
                document_bytes,
                delta_bytes,
            },
        );
        inner.stored = Some(current.number);
        match delta_bytes > document_bytes {
            true => Ok(Outcome::DeltasTooLong),
            false => Ok(Outcome::Done),
        }
    }

    fn store_snapshot(&self, inner: &mut Inner, current: &Generation) -> Result<Outcome, Error> {
        self.acquire(inner)?;
        let Some(database) = &mut inner.database else {
            return Ok(Outcome::Failed);
        };
        let has_delta = inner.stored == Some(current.number);
        let document_bytes = database.store(current, has_delta)?;
        inner.stored = Some(current.number);
        inner.tip = Some(Tip::new(
            current,
            Base {
                document_bytes,
                delta_bytes: 0,
            },
        ));
        let most = self.options.max_bytes.saturating_mul(2);
        let snapshots = database.snapshots()?;
        for number in inner.journal.superfluous(&snapshots, most) {
            database.delete(number)?;
        }
        // Should it fail, the log keeps everything, and the next write tries again.
        let _ = database.empty_log();
        Ok(Outcome::Done)
    }

    fn promote(&self, inner: &mut Inner, served: Served) -> Result<Outcome, Error> {
        if !inner.journal.is_promoted(served.number) {
            self.acquire(inner)?;
            let mut journal = inner.journal.clone();
            journal.list(served.number, &served.digest.to_string(), served.applied_at);
            journal.promote(served.number, SystemTime::now());
            self.replace_journal(inner, journal)?;
        }
        Ok(Outcome::Done)
    }

    fn record_contact(&self, inner: &mut Inner) -> Result<Outcome, Error> {
        let before = inner
            .journal
            .last_contact()
            .unwrap_or(SystemTime::UNIX_EPOCH);
        let contact = self.edge.last_contact().unwrap_or(before);
        let later = contact.duration_since(before);
        if inner.lock.is_some() && later.is_ok_and(|later| later > CONTACT / 2) {
            self.acquire(inner)?;
            self.replace_journal(inner, inner.journal.clone())?;
        }
        Ok(Outcome::Done)
    }

    /// Writes `journal`, which takes the place of the one in memory if that succeeds.
    fn replace_journal(&self, inner: &mut Inner, mut journal: Journal) -> Result<(), Error> {
        journal.set_last_contact(self.edge.last_contact());
        if let Some(database) = &inner.database {
            database.write_journal(&journal)?;
        }
        inner.journal = journal;
        Ok(())
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}
