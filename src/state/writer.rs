//! The one writer. Every change of what is served, whatever its source, is one transaction:
//! it makes a table, or says why there is none, and then one pointer moves.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::edge_state::EdgeState;
use super::failure::Cause;
use super::generation::{Generation, Head, Source};
use super::restore::Quarantined;
use crate::background;
use crate::files::Sha256;
use crate::table::{self, Problem, RoutingTable};
use crate::telemetry::metrics::Reload;
use crate::upstream::{Placements, Registry};

/// Keys that are added or freed in a few milliseconds.
pub(super) const FEW: usize = 4096;

/// The longest time that the writer waits for others to let go of a replaced generation.
const PATIENCE: Duration = Duration::from_millis(100);

/// How often it looks.
const PAUSE: Duration = Duration::from_millis(1);

/// What only the writer needs.
pub(super) struct Writer {
    pub(super) registry: Registry,
    /// The highest number that a generation had.
    pub(super) newest: u64,
    /// Content that made the edge crash.
    pub(super) quarantined: Vec<Quarantined>,
}

/// What became of a document.
#[derive(Debug)]
pub enum Applied {
    /// It is being served, as this generation.
    Changed(Arc<Generation>),
    /// It was being served already.
    Unchanged,
    /// It is invalid, and nothing has changed. Never empty.
    Refused(Vec<Problem>),
}

/// Where a change comes from.
pub(super) struct Change {
    pub(super) cause: Cause,
    pub(super) source: Source,
    pub(super) sha256: Option<Sha256>,
    pub(super) control_generation: Option<u64>,
    pub(super) now: SystemTime,
}

/// Why nothing is to be changed.
pub(super) enum Stop<E> {
    /// For these reasons, which are shown and logged.
    Refused(Vec<Problem>),
    /// For a reason that only the caller deals with.
    Other(E),
}

/// It is what is being served.
struct Unchanged;

impl EdgeState {
    /// Makes `document` the routing table of all requests that start from now on, or
    /// changes nothing.
    ///
    /// Takes as long as compiling the document: on a runtime, call it from
    /// `spawn_blocking`.
    pub fn apply(&self, document: &[u8], source: Source, now: SystemTime) -> Applied {
        let sha256 = Sha256::of(document);
        let change = Change {
            cause: Cause::Document(sha256),
            source,
            sha256: Some(sha256),
            control_generation: None,
            now,
        };
        let unchanged = || {
            self.recovered(source);
            Err(Stop::Other(Unchanged))
        };
        let made = self.transact(change, |current| {
            if current.is_some_and(|current| current.sha256 == Some(sha256)) {
                return unchanged();
            }
            let table = table::compile(document).map_err(Stop::Refused)?;
            // A file that says the same in other words is a new generation, so that the
            // operator sees that it was read. A control plane may write the same content in
            // any order.
            let same = |current: &Generation| current.table.digest() == table.digest();
            if source == Source::ControlPlane && current.is_some_and(same) {
                return unchanged();
            }
            Ok(table)
        });
        match made {
            Ok(generation) => Applied::Changed(generation),
            Err(Stop::Refused(problems)) => Applied::Refused(problems),
            Err(Stop::Other(Unchanged)) => Applied::Unchanged,
        }
    }

    /// Serves the table that `make` makes of the current generation, or records why there
    /// is none.
    pub(super) fn transact<E>(
        &self,
        change: Change,
        make: impl FnOnce(Option<&Generation>) -> Result<RoutingTable, Stop<E>>,
    ) -> Result<Arc<Generation>, Stop<E>> {
        let mut writer = self.writer.lock();
        let old = self.current();
        let made = make(old.as_deref()).and_then(|table| {
            let placements = writer.admit(&table, old.as_deref());
            let placements = placements.map_err(Stop::Refused)?;
            Ok((table, placements))
        });
        let Change { source, now, .. } = change;
        let (table, placements) = match made {
            Ok(made) => made,
            Err(stop) => {
                if let Stop::Refused(problems) = &stop {
                    self.refused(change.cause, source, problems, now);
                }
                writer.registry.sweep();
                return Err(stop);
            }
        };
        let head = Head {
            number: writer.newest + 1,
            sha256: change.sha256,
            source,
            control_generation: change.control_generation,
            applied_at: now,
        };
        self.metrics.reloaded(Reload::Ok);
        let message = match old {
            Some(_) => "config reloaded",
            None => "config loaded",
        };
        let generation = self.swap(&mut writer, head, table, placements, message);
        drop(writer);
        // After the lock is released: of a large table, this takes long.
        if let Some(old) = old {
            release(old, &generation);
            self.writer.lock().registry.sweep();
        }
        Ok(generation)
    }

    /// Moves the pointer and tells everyone. The log line says `message`.
    pub(super) fn swap(
        &self,
        writer: &mut Writer,
        head: Head,
        table: RoutingTable,
        placements: Placements,
        message: &str,
    ) -> Arc<Generation> {
        let alive = &self.metrics.generations_alive;
        let generation = Generation::new(head, table, placements, alive);
        let generation = Arc::new(generation);
        writer.newest = writer.newest.max(generation.number);
        let old = {
            // Whoever sees the new generation does not see the old error.
            let mut failures = self.failures.lock();
            failures.clear();
            self.current.swap(Some(Arc::clone(&generation)))
        };
        self.metrics.generation_applied(
            generation.number,
            generation.table.key_count(),
            generation.table.placements().len(),
            generation.applied_at,
        );
        writer.registry.sweep();
        writer.registry.replace(generation.placements.clone());
        self.number.send_replace(generation.number);
        log_applied(&generation, old.as_deref(), message);
        generation
    }
}

impl Writer {
    pub(super) fn new(registry: Registry) -> Self {
        Self {
            registry,
            newest: 0,
            quarantined: Vec::new(),
        }
    }

    /// The placements of `table`. A table that has the same head as `last` shares its
    /// placements, so that a change of a few keys costs no more for having many placements.
    fn admit(
        &mut self,
        table: &RoutingTable,
        last: Option<&Generation>,
    ) -> Result<Placements, Vec<Problem>> {
        self.refuse_quarantined(table)?;
        let same = |last: &&Generation| Arc::ptr_eq(last.table.head_json(), table.head_json());
        match last.filter(same) {
            Some(last) => Ok(last.placements.clone()),
            None => self.registry.bind(table),
        }
    }
}

/// Lets go of `old`, which `new` has replaced, as the last one to do so if it can be.
/// Requests hold a generation for the moment in which they are routed, and freeing one with
/// a million keys would hold up everything on their thread.
fn release(old: Arc<Generation>, new: &Generation) {
    let small = old.placements.ptr_eq(&new.placements) && old.table.shares_all_but(FEW, &new.table);
    if small {
        return;
    }
    let start = Instant::now();
    while Arc::strong_count(&old) > 1 {
        if start.elapsed() >= PATIENCE {
            // A task in the background holds it for longer, and would free it without pauses.
            background::drop_when_unshared(old);
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

fn log_applied(new: &Generation, old: Option<&Generation>, message: &str) {
    let changes = old.map(|old| table::diff(&old.table, &new.table));
    let changes = changes.map_or_else(|| "all new".to_owned(), |diff| diff.to_string());
    let (table, source) = (&new.table, new.source.as_str());
    match (new.sha256, new.control_generation) {
        (_, Some(control_generation)) => log::info!(
            target: "cellgate::state",
            version = table.version(),
            generation = new.number,
            control_generation,
            digest:% = table.digest(),
            keys = table.key_count(),
            placements = table.placements().len(),
            source,
            changes = changes.as_str();
            "{message}"
        ),
        (sha256, None) => log::info!(
            target: "cellgate::state",
            version = table.version(),
            generation = new.number,
            sha256 = sha256.map(|sha256| sha256.to_string()).unwrap_or_default().as_str(),
            keys = table.key_count(),
            placements = table.placements().len(),
            source,
            changes = changes.as_str();
            "{message}"
        ),
    }
}
