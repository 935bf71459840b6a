//! Reading generations back, and noticing what is damaged.

use rusqlite::types::FromSqlError;
use rusqlite::{Connection, ErrorCode, Row, Statement};
use xxhash_rust::xxh3::xxh3_64;

use super::database::{Database, checksum};
use crate::control::store::{Author, Generation, Record, Step, memory_bytes};
use crate::table::{self, Delta};

/// The columns that [`Stored::of`] reads.
const COLUMNS: &str = "number, parent, digest, version, keys, time, author, source, action, \
     keys_set, keys_removed, head_changed, attempt, checksum, content, content_bytes, \
     content_checksum";

/// SQLite's numbers are signed.
const LARGEST: u64 = i64::MAX as u64;

/// Why something cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    /// It is not what was written.
    Damaged(String),
    /// It may be fine, but reading it failed.
    Failed(String),
}

impl ReadError {
    pub fn into_text(self) -> String {
        match self {
            Self::Damaged(text) | Self::Failed(text) => text,
        }
    }
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            // A value of the wrong type or range.
            | None => Self::Damaged(error.to_string()),
            Some(_) => Self::Failed(error.to_string()),
        }
    }
}

/// A generation that cannot be read.
#[derive(Debug)]
pub(super) struct Broken {
    /// The last generation before it that can be read and that it was made from.
    pub good: Option<Box<Generation>>,
    pub generation: u64,
    pub why: ReadError,
}

/// Generations that are read from one table: it, and the deltas that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The generation that is stored as a table.
    pub first: u64,
    pub generations: u64,
    pub table_bytes: u64,
    pub bytes: u64,
}

impl Run {
    /// About what a generation takes besides its content.
    pub const ROW_BYTES: u64 = 200;

    /// One that has its table, of `table_bytes` with the row.
    pub fn new(first: u64, table_bytes: u64) -> Self {
        Self {
            first,
            generations: 1,
            table_bytes,
            bytes: table_bytes,
        }
    }
}

impl Database {
    /// All runs, the oldest first. Reads no contents.
    ///
    /// # Errors
    /// The rows cannot be read.
    pub fn runs(&self) -> Result<Vec<Run>, ReadError> {
        let mut rows = self
            .connection
            .prepare("SELECT number, content, content_bytes FROM generation ORDER BY number")?;
        let mut rows = rows.query(())?;
        let mut runs: Vec<Run> = Vec::new();
        while let Some(row) = rows.next()? {
            // Damage to these columns is found when the generation is read. Here, whatever is
            // not a table belongs to the run before it, so that no table is removed by mistake.
            let bytes = row.get::<_, u64>(2).unwrap_or_default();
            let bytes = bytes.saturating_add(Run::ROW_BYTES);
            let content = row.get::<_, String>(1).unwrap_or_default();
            match (content.as_str(), runs.last_mut()) {
                ("table", _) => runs.push(Run::new(row.get(0)?, bytes)),
                (_, Some(run)) => {
                    run.generations += 1;
                    run.bytes = run.bytes.saturating_add(bytes);
                }
                // Without the table that it follows, it cannot be read.
                (_, None) => {}
            }
        }
        Ok(runs)
    }

    /// The highest number at or below `most`.
    ///
    /// # Errors
    /// The rows cannot be read.
    pub fn last(&self, most: u64) -> Result<Option<u64>, ReadError> {
        Ok(self.connection.query_row(
            "SELECT max(number) FROM generation WHERE number <= ?1",
            [most.min(LARGEST)],
            |row| row.get(0),
        )?)
    }

    /// The records of at most `limit` generations below `before`, newest first.
    ///
    /// # Errors
    /// One of them is damaged or cannot be read.
    pub fn records(&self, before: Option<u64>, limit: usize) -> Result<Vec<Record>, ReadError> {
        let mut rows = self.connection.prepare(&format!(
            "SELECT {COLUMNS} FROM generation WHERE number < ?1 ORDER BY number DESC LIMIT ?2"
        ))?;
        let before = before.unwrap_or(LARGEST).min(LARGEST);
        let mut rows = rows.query((before, i64::try_from(limit).unwrap_or(i64::MAX)))?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            records.push(Stored::read(row)?.record);
        }
        Ok(records)
    }

    /// The deltas that lead to the newest generation, oldest first: at most `most`, of
    /// about `most_bytes` of memory, and none from before the last whole table.
    ///
    /// # Errors
    /// One of them is damaged or cannot be read.
    pub fn recent(&self, most: usize, most_bytes: usize) -> Result<Vec<Step>, ReadError> {
        let transaction = self.connection.unchecked_transaction()?;
        let mut contents = Contents::of(&transaction)?;
        let mut rows = transaction.prepare(&format!(
            "SELECT {COLUMNS} FROM generation ORDER BY number DESC"
        ))?;
        let mut rows = rows.query(())?;
        let (mut steps, mut bytes) = (Vec::new(), 0);
        let mut later: Option<Stored> = None;
        while let Some(row) = rows.next()? {
            let stored = Stored::read(row)?;
            let from = stored.record.mark();
            let Some(later) = later.replace(stored) else {
                continue;
            };
            if later.is_table || later.record.parent != from.generation || steps.len() == most {
                break;
            }
            let delta = contents.delta(&later)?;
            bytes += memory_bytes(&delta);
            if bytes > most_bytes {
                break;
            }
            steps.push(Step {
                from,
                to: later.record.mark(),
                delta: delta.into(),
            });
        }
        steps.reverse();
        Ok(steps)
    }

    /// Reads generation `number`: the last table at or below it, and every delta from
    /// there. Each one's digest is compared with that of the table that results. None if
    /// there is no such generation.
    ///
    /// # Errors
    /// Which generation cannot be read, and why.
    pub fn generation(&self, number: u64) -> Result<Option<Generation>, Broken> {
        let (mut good, mut reached) = (None, number);
        match self.replay(number, &mut good, &mut reached) {
            Ok(()) => Ok(good),
            Err(why) => Err(Broken {
                good: good.map(Box::new),
                generation: reached,
                why,
            }),
        }
    }

    /// Sets `good` to each generation up to `number` in turn, and `reached` to the one
    /// that is being read.
    fn replay(
        &self,
        number: u64,
        good: &mut Option<Generation>,
        reached: &mut u64,
    ) -> Result<(), ReadError> {
        // What the writer removes meanwhile stays readable.
        let transaction = self.connection.unchecked_transaction()?;
        if self.last(number)? != Some(number) {
            return Ok(());
        }
        let mut contents = Contents::of(&transaction)?;
        let mut rows = transaction.prepare(&format!(
            "SELECT {COLUMNS} FROM generation WHERE number BETWEEN (SELECT number FROM generation \
             WHERE number <= ?1 AND content = 'table' ORDER BY number DESC LIMIT 1) AND ?1 ORDER BY \
             number"
        ))?;
        let mut rows = rows.query([number])?;
        while let Some(row) = rows.next()? {
            *reached = row.get(0)?;
            let next = contents.table(&Stored::read(row)?, good.as_ref())?;
            *good = Some(next);
        }
        match good {
            Some(_) => Ok(()),
            None => Err(ReadError::Damaged(
                "no generation at or before it is stored as a whole table".to_owned(),
            )),
        }
    }
}

/// A row of `generation`.
struct Stored {
    record: Record,
    is_table: bool,
    content_bytes: u64,
    content_checksum: i64,
}

impl Stored {
    fn read(row: &Row<'_>) -> Result<Self, ReadError> {
        let (stored, sum) = Self::of(row)?;
        match checksum(&stored.record) == sum {
            true => Ok(stored),
            false => Err(ReadError::Damaged(format!(
                "the record of generation {} does not have its checksum",
                stored.record.generation
            ))),
        }
    }

    fn of(row: &Row<'_>) -> rusqlite::Result<(Self, i64)> {
        let invalid = |error: Box<dyn std::error::Error + Send + Sync>| FromSqlError::Other(error);
        let digest: String = row.get(2)?;
        let time: String = row.get(5)?;
        let record = Record {
            generation: row.get(0)?,
            parent: row.get(1)?,
            digest: digest
                .parse()
                .map_err(|error: table::DigestError| invalid(error.into()))?,
            version: row.get(3)?,
            keys: row.get(4)?,
            at: humantime::parse_rfc3339(&time).map_err(|error| invalid(error.into()))?,
            author: Author {
                who: row.get(6)?,
                from: row.get(7)?,
                what: row.get(8)?,
            },
            set: row.get(9)?,
            removed: row.get(10)?,
            head: row.get(11)?,
            id: row.get(12)?,
        };
        let stored = Self {
            record,
            is_table: row.get::<_, String>(14)? == "table",
            content_bytes: row.get(15)?,
            content_checksum: row.get(16)?,
        };
        Ok((stored, row.get(13)?))
    }
}

/// Reads contents.
struct Contents<'c>(Statement<'c>);

impl<'c> Contents<'c> {
    fn of(connection: &'c Connection) -> Result<Self, ReadError> {
        let parts = connection
            .prepare("SELECT part, bytes FROM content WHERE generation = ?1 ORDER BY part")?;
        Ok(Self(parts))
    }

    /// The generation that `stored` is, made from the one before it.
    fn table(
        &mut self,
        stored: &Stored,
        before: Option<&Generation>,
    ) -> Result<Generation, ReadError> {
        let problem = |problems: Vec<table::Problem>| {
            let first = problems.first().map(ToString::to_string);
            ReadError::Damaged(format!(
                "its content is not valid: {}",
                first.unwrap_or_default()
            ))
        };
        let table = match before {
            _ if stored.is_table => table::compile(&self.bytes(stored)?).map_err(problem)?,
            Some(before) if before.record.generation == stored.record.parent => {
                before.table.apply(&self.delta(stored)?).map_err(problem)?
            }
            _ => {
                return Err(ReadError::Damaged(format!(
                    "generation {}, which it was made from, is missing",
                    stored.record.parent
                )));
            }
        };
        match table.digest() == stored.record.digest {
            true => Ok(Generation {
                record: stored.record.clone(),
                table: table.into(),
            }),
            false => Err(ReadError::Damaged(format!(
                "its table has the digest {}, not {}",
                table.digest(),
                stored.record.digest
            ))),
        }
    }

    fn delta(&mut self, stored: &Stored) -> Result<Delta, ReadError> {
        serde_json::from_slice(&self.bytes(stored)?)
            .map_err(|error| ReadError::Damaged(format!("its delta is not valid: {error}")))
    }

    fn bytes(&mut self, stored: &Stored) -> Result<Vec<u8>, ReadError> {
        let expected = stored.content_bytes;
        let mut bytes = Vec::new();
        let reserved = usize::try_from(expected).map(|length| bytes.try_reserve_exact(length));
        if !matches!(reserved, Ok(Ok(()))) {
            return Err(ReadError::Failed(format!(
                "no memory for its {expected} bytes"
            )));
        }
        let mut rows = self.0.query([stored.record.generation])?;
        while let Some(row) = rows.next()? {
            let part = row.get_ref(1)?;
            let part = part.as_blob().map_err(rusqlite::Error::from)?;
            if (bytes.len() + part.len()) as u64 > expected {
                break;
            }
            bytes.extend_from_slice(part);
        }
        match xxh3_64(&bytes).cast_signed() == stored.content_checksum {
            true => Ok(bytes),
            false => Err(ReadError::Damaged(
                "its content does not have its checksum".to_owned(),
            )),
        }
    }
}
