//! Which generations there are, where each is, and the one way to add one.

use super::FileOptions;
use super::directory::Directory;
use super::frame::{HEADER, Header, Kind, delta_frame};
use super::reading::{Broken, Reading};
use super::recover::recover;
use super::segment::{Entry, Segment};
use super::tail::{AddError, Tail};
use crate::control::store::{
    AppendError, Commit, Generation, News, Record, Step, StoreError, weight,
};
use crate::table::Delta;

/// Changes may have this many bytes before they can outweigh a table, so that a
/// small one is not written again and again.
const LEAST: u64 = 1 << 20;

/// More steps than this are as well read as a whole.
const MOST_STEPS: usize = 10_000;

/// All generations of a directory.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) directory: Directory,
    options: FileOptions,
    /// In the order of their numbers. Only the last one is written to.
    segments: Vec<Segment>,
    newest: Option<Generation>,
    /// The end of the last segment; none where the next generation has to begin a
    /// new one.
    tail: Option<Tail>,
    /// A segment that was begun in vain and may be there after the next start, and
    /// would then take the place of what is added behind the last one. So nothing is
    /// before it is gone, or before there is a later one.
    doubtful: Option<u64>,
    /// [`LEAST`], but in tests.
    pub least: u64,
}

impl Line {
    /// # Errors
    /// In words for an operator.
    pub fn open(options: FileOptions) -> Result<Self, String> {
        let directory = Directory::open(&options.data_dir)?;
        let recovered = recover(&directory)?;
        let mut line = Self {
            directory,
            options,
            segments: recovered.segments,
            newest: recovered.newest,
            tail: recovered.tail,
            doubtful: None,
            least: LEAST,
        };
        line.trim();
        Ok(line)
    }

    pub fn newest(&self) -> Option<&Generation> {
        self.newest.as_ref()
    }

    pub fn append(&mut self, commit: &Commit) -> Result<(), AppendError> {
        let newest = self.newest.as_ref();
        if commit.parent != newest.map(|newest| newest.record.mark()) {
            return Err(AppendError::Conflict);
        }
        let generation = Generation {
            record: commit.record.clone(),
            table: std::sync::Arc::clone(&commit.table),
        };
        self.remove_doubtful();
        match &commit.delta {
            Some(delta) if self.tail.is_some() && self.doubtful.is_none() => {
                self.add(&generation.record, delta, commit)?
            }
            _ => self.begin(&generation)?,
        }
        self.newest = Some(generation);
        self.trim();
        Ok(())
    }

    /// Adds to the last segment, unless that has grown enough.
    fn add(&mut self, record: &Record, delta: &Delta, commit: &Commit) -> Result<(), AppendError> {
        let frame = delta_frame(record, delta);
        let (Some(segment), Some(tail)) = (self.segments.last_mut(), &mut self.tail) else {
            return Err(AppendError::Failed(failed(record, "there is no segment")));
        };
        let table = segment.table_bytes();
        let changes = segment.end - table + frame.len() as u64;
        if changes > table.max(self.least) {
            return self.begin(&Generation {
                record: record.clone(),
                table: std::sync::Arc::clone(&commit.table),
            });
        }
        let header = frame.first_chunk::<HEADER>().and_then(Header::read);
        let header = header.ok_or_else(|| AppendError::Failed(failed(record, "no header")))?;
        match tail.add(&frame) {
            Ok(at) => {
                segment.end = at + frame.len() as u64;
                segment.entries.push(Entry {
                    record: record.clone(),
                    header,
                    at,
                });
                Ok(())
            }
            Err(AddError::Failed(error)) => Err(AppendError::Failed(failed(record, error))),
            Err(AddError::Unknown(error)) => Err(AppendError::Unknown(failed(record, error))),
        }
    }

    /// Begins a new segment.
    fn begin(&mut self, generation: &Generation) -> Result<(), AppendError> {
        match Tail::begin(&self.directory, generation) {
            Ok((segment, tail)) => {
                self.segments.push(segment);
                self.tail = Some(tail);
                // It is the one itself, or a later one, which says what came before.
                self.doubtful = None;
                Ok(())
            }
            Err(AddError::Failed(error)) => {
                Err(AppendError::Failed(failed(&generation.record, error)))
            }
            Err(AddError::Unknown(error)) => {
                self.doubtful = Some(generation.record.generation);
                Err(AppendError::Unknown(failed(&generation.record, error)))
            }
        }
    }

    fn remove_doubtful(&mut self) {
        self.doubtful
            .take_if(|doubtful| self.directory.remove(*doubtful).is_ok());
    }

    /// Removes the oldest segments while what is left is history enough, or while
    /// they take too much space. The last one stays.
    fn trim(&mut self) {
        loop {
            let (Some(oldest), true) = (self.segments.first(), self.segments.len() > 1) else {
                return;
            };
            let later = self.segments.iter().skip(1);
            let generations: usize = later.map(|segment| segment.entries.len()).sum();
            let bytes: u64 = self.segments.iter().map(|segment| segment.end).sum();
            let enough = generations as u64 >= self.options.history;
            if !enough && bytes <= self.options.history_bytes {
                return;
            }
            if let Err(error) = self.directory.remove(oldest.first) {
                log::warn!(
                    target: "cellgate::control",
                    "{}: an old segment stays for now: {error}",
                    self.directory.segment(oldest.first).display()
                );
                return;
            }
            self.segments.remove(0);
        }
    }

    pub fn since(&self, after: u64) -> Result<News, StoreError> {
        let newest = match &self.newest {
            Some(newest) if newest.record.generation > after => newest,
            _ => return Ok(News::Nothing),
        };
        let whole = || Ok(News::Whole(newest.clone()));
        let mut steps = Vec::new();
        let mut from = after;
        for segment in &self.segments {
            let entries = segment.entries.iter().enumerate();
            for (index, entry) in entries.filter(|(_, entry)| entry.record.generation > after) {
                let follows = entry.record.parent == from && entry.header.kind == Kind::Delta;
                if !follows || steps.len() >= MOST_STEPS {
                    return whole();
                }
                let delta = segment.delta(&self.directory, index).map_err(|why| {
                    StoreError(format!("generation {}: {why}", entry.record.generation))
                })?;
                from = entry.record.generation;
                steps.push((entry.record.clone(), delta.into()));
            }
        }
        Ok(News::Steps(steps))
    }

    /// The last steps, back to the table that their segment begins with at most.
    pub fn recent(&self, most: usize, most_bytes: usize) -> Result<Vec<Step>, StoreError> {
        let mut steps = Vec::new();
        let Some(segment) = self.segments.last() else {
            return Ok(steps);
        };
        let mut bytes = 0;
        let pairs = segment.entries.windows(2).enumerate().rev();
        for (index, pair) in pairs.take(most) {
            let [from, to] = pair else { continue };
            let delta = segment
                .delta(&self.directory, index + 1)
                .map_err(|why| failed(&to.record, why))?;
            bytes += weight(&delta);
            if bytes > most_bytes {
                break;
            }
            steps.push(Step {
                from: from.record.mark(),
                to: to.record.mark(),
                delta: delta.into(),
            });
        }
        steps.reverse();
        Ok(steps)
    }

    pub fn records(&self, before: Option<u64>, limit: usize) -> Vec<Record> {
        let entries = self
            .segments
            .iter()
            .rev()
            .flat_map(|segment| segment.entries.iter().rev());
        entries
            .map(|entry| &entry.record)
            .filter(|record| before.is_none_or(|before| record.generation < before))
            .take(limit)
            .cloned()
            .collect()
    }

    /// Where a generation is; none if it is not there.
    pub fn find(&self, generation: u64) -> Result<Option<Found>, StoreError> {
        if let Some(newest) = self.newest.as_ref()
            && newest.record.generation == generation
        {
            return Ok(Some(Found::Newest(newest.clone())));
        }
        for segment in &self.segments {
            let found = segment
                .entries
                .binary_search_by_key(&generation, |entry| entry.record.generation);
            if let Ok(index) = found {
                let reading = segment.reading(&self.directory, index);
                let reading = reading.map_err(|broken| unreadable(generation, &broken))?;
                return Ok(Some(Found::Stored(generation, reading)));
            }
        }
        Ok(None)
    }
}

/// A generation that there is.
pub(super) enum Found {
    Newest(Generation),
    Stored(u64, Reading),
}

impl Found {
    /// Reads it, for which nobody has to wait.
    pub fn read(self) -> Result<Generation, StoreError> {
        match self {
            Self::Newest(newest) => Ok(newest),
            Self::Stored(generation, reading) => reading
                .run()
                .map_err(|broken| unreadable(generation, &broken)),
        }
    }
}

fn unreadable(generation: u64, broken: &Broken) -> StoreError {
    StoreError(format!(
        "generation {generation} cannot be read: generation {} in {}",
        broken.generation, broken.why
    ))
}

fn failed(record: &Record, why: impl std::fmt::Display) -> StoreError {
    StoreError(format!("generation {}: {why}", record.generation))
}
