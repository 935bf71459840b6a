//! What is in the database: the journal, and generations as records and snapshots.

use std::io::{self, BufWriter, Read, Write};

use cellgate_core::pace;
use rusqlite::{OptionalExtension, params};
use xxhash_rust::xxh3::xxh3_64;

use super::database::{Database, Result};
use super::journal::{Journal, SnapshotSize};
use super::record::Record;
use crate::state::generation::{Generation, Head};
use crate::table::{self, RoutingTable};

/// Bytes of a chunk; to insert one takes about a tenth of a millisecond.
const CHUNK: usize = 64 << 10;

/// Shrinks a document to about a quarter, and costs less than writing the difference.
const COMPRESSION: i32 = 1;

/// The document that is written from a table may be a little larger than the one that the
/// table came from.
const SLACK: u64 = 64 << 10;

const WRITE_GENERATION: &str =
    "INSERT OR REPLACE INTO generations (number, record, sum) VALUES (?1, ?2, ?3)";

const TOO_LARGE: &str = "the table has more bytes than limits.routing_file_bytes allows";

/// A generation that was read.
pub(super) struct Found {
    pub head: Head,
    pub table: RoutingTable,
    /// None: what follows has to be stored as a snapshot.
    pub base: Option<Base>,
}

/// The snapshot that deltas can be added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub document_bytes: u64,
    /// Of the deltas that follow it.
    pub delta_bytes: u64,
}

/// Why a generation cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub why: String,
    /// This generation cannot be read, nor any that is made from it.
    pub from: u64,
}

impl Database {
    /// The journal; an empty one if there is none.
    pub fn journal(&self) -> Result<Journal, String> {
        let json = self.record("SELECT record, sum FROM journal WHERE id = ?1", 1)?;
        json.map_or(Ok(Journal::default()), |json| {
            serde_json::from_str(&json).map_err(|error| error.to_string())
        })
    }

    pub fn write_journal(&self, journal: &Journal) -> Result<()> {
        let write = "INSERT OR REPLACE INTO journal (id, record, sum) VALUES (?1, ?2, ?3)";
        self.write_record(write, 1, journal).map(|_| ())
    }

    /// The generations that are stored, in ascending order.
    pub fn numbers(&self) -> Result<Vec<u64>> {
        let read = "SELECT number FROM generations ORDER BY number";
        let mut statement = self.connection.prepare(read)?;
        let numbers = statement.query_map([], |row| row.get(0))?;
        Ok(numbers
            .map(|number| number.map(i64::unsigned_abs))
            .collect::<Result<_, _>>()?)
    }

    /// The snapshots in ascending order, each with the bytes of the deltas that follow it.
    pub fn snapshots(&self) -> Result<Vec<SnapshotSize>> {
        let read = "WITH sizes AS (
                SELECT generation AS number, sum(length(bytes)) AS bytes,
                    lead(generation, 1, 9223372036854775807) OVER (ORDER BY generation) AS next
                FROM snapshots GROUP BY generation)
            SELECT number, bytes, (SELECT ifnull(sum(octet_length(record)), 0) FROM generations
                WHERE number > sizes.number AND number < sizes.next)
            FROM sizes ORDER BY number";
        let mut statement = self.connection.prepare(read)?;
        let snapshots = statement.query_map([], |row| {
            let [number, bytes, deltas] = [row.get(0)?, row.get(1)?, row.get(2)?];
            Ok(SnapshotSize {
                number: i64::unsigned_abs(number),
                bytes: i64::unsigned_abs(bytes).saturating_add(i64::unsigned_abs(deltas)),
            })
        })?;
        Ok(snapshots.collect::<Result<_, _>>()?)
    }

    /// The generation `number`, made of the newest intact snapshot that leads to it and the
    /// deltas in between.
    pub fn read(&self, number: u64) -> Result<Found, Broken> {
        let mut deltas = Vec::new();
        let mut at = number;
        let (mut table, document_bytes, mut head) = loop {
            let broken = |why| Broken { why, from: at };
            let record = self.generation(at).map_err(broken)?;
            let snapshot = self.snapshot(at, &record);
            match (snapshot, record.parent()) {
                (Ok(Some((table, bytes))), _) => break (table, bytes, record.head()),
                (Ok(None), None) => return Err(broken("it has no table".to_owned())),
                (Err(why), None) => return Err(broken(why)),
                (Ok(None), Some(parent)) => at = parent,
                (Err(why), Some(parent)) => {
                    log::error!(
                        target: "cellgate::state",
                        "generation {at} in {} is made from the deltas before it: {why}",
                        self.dir.display()
                    );
                    at = parent;
                }
            }
            deltas.push(record);
        };
        for record in deltas.iter().rev() {
            let from = record.generation;
            table = record.apply(&table).map_err(|why| Broken { why, from })?;
            head = record.head();
        }
        let base = self.delta_bytes(at).ok().flatten();
        let base = base.map(|delta_bytes| Base {
            document_bytes,
            delta_bytes,
        });
        Ok(Found { head, table, base })
    }

    /// Bytes of the deltas that follow the snapshot `number`; none if it is not the newest.
    fn delta_bytes(&self, number: u64) -> Result<Option<u64>> {
        if self.integer("SELECT max(generation) FROM snapshots")? != key(number) {
            return Ok(None);
        }
        let read = "SELECT ifnull(sum(octet_length(record)), 0) FROM generations WHERE number > ?1";
        let bytes: i64 = self
            .connection
            .query_row(read, [key(number)], |row| row.get(0))?;
        Ok(Some(bytes.unsigned_abs()))
    }

    fn generation(&self, number: u64) -> Result<Record, String> {
        let read = "SELECT record, sum FROM generations WHERE number = ?1";
        let json = self.record(read, key(number))?;
        Record::parse(&json.ok_or("it is missing")?, number)
    }

    /// The table in the snapshot of this generation, and the bytes of its document; none if
    /// there is no such snapshot.
    fn snapshot(
        &self,
        number: u64,
        record: &Record,
    ) -> Result<Option<(RoutingTable, u64)>, String> {
        let damaged = |error: String| format!("its table is damaged: {error}");
        let compressed = self
            .chunks(number)
            .map_err(|error| damaged(error.to_string()))?;
        if compressed.is_empty() {
            return Ok(None);
        }
        let most = self.max_bytes.saturating_add(SLACK);
        let mut document = Vec::new();
        zstd::Decoder::with_buffer(compressed.as_slice())
            .and_then(|decoder| {
                decoder
                    .take(most.saturating_add(1))
                    .read_to_end(&mut document)
            })
            .map_err(|error| damaged(error.to_string()))?;
        let bytes = document.len() as u64;
        if bytes > most {
            return Err(TOO_LARGE.to_owned());
        }
        drop(compressed);
        let table = table::compile(&document).map_err(|problems| {
            let first = problems.first().map(ToString::to_string);
            format!("its table is not valid: {}", first.unwrap_or_default())
        })?;
        Ok(Some((record.check(table)?, bytes)))
    }

    fn chunks(&self, number: u64) -> Result<Vec<u8>> {
        let read = "SELECT bytes FROM snapshots WHERE generation = ?1 ORDER BY chunk";
        let mut statement = self.connection.prepare(read)?;
        let mut rows = statement.query([key(number)])?;
        let mut bytes = Vec::new();
        while let Some(row) = rows.next()? {
            bytes.extend_from_slice(row.get_ref(0)?.as_blob().unwrap_or_default());
        }
        Ok(bytes)
    }

    /// Stores a record with a delta. Returns its bytes.
    pub fn append(&self, record: &Record) -> Result<u64> {
        self.write_record(WRITE_GENERATION, key(record.generation), record)
    }

    /// Stores the whole table of `generation`. Keeps the record with its delta if this process
    /// stored one (`keep_record`). Deletes what has a higher number: another process stored
    /// it before this one got the lock. Returns the bytes of the document.
    pub fn store(&mut self, generation: &Generation, keep_record: bool) -> Result<u64> {
        let most = self.max_bytes.saturating_add(SLACK);
        let mut encoder = zstd::Encoder::new(Vec::new(), COMPRESSION)?;
        encoder.include_checksum(true)?;
        let bounded = Bounded {
            out: encoder,
            left: most,
        };
        let mut out = BufWriter::with_capacity(CHUNK, bounded);
        generation.table.write_json(&mut out)?;
        let Bounded { out, left } = out.into_inner().map_err(|error| error.into_error())?;
        let compressed = out.finish()?;

        let number = key(generation.number);
        let transaction = self.connection.transaction()?;
        transaction.execute("DELETE FROM generations WHERE number > ?1", [number])?;
        transaction.execute("DELETE FROM snapshots WHERE generation >= ?1", [number])?;
        if !keep_record {
            let (json, sum) = to_json(&Record::new(generation, None));
            transaction.execute(WRITE_GENERATION, params![number, json, sum])?;
        }
        let write = "INSERT INTO snapshots (generation, chunk, bytes) VALUES (?1, ?2, ?3)";
        let mut insert = transaction.prepare(write)?;
        for (nth, chunk) in (0i64..).zip(compressed.chunks(CHUNK)) {
            insert.execute(params![number, nth, chunk])?;
            pace::stride();
        }
        drop(insert);
        transaction.commit()?;
        Ok(most.saturating_sub(left))
    }

    /// Deletes the snapshot `number` and the generations that follow it up to the next one.
    pub fn delete(&mut self, number: u64) -> Result<()> {
        let transaction = self.connection.transaction()?;
        let number = [key(number)];
        transaction.execute(
            "DELETE FROM generations WHERE number >= ?1 AND number < (SELECT
             ifnull(min(generation), 9223372036854775807) FROM snapshots WHERE generation > ?1)",
            number,
        )?;
        transaction.execute("DELETE FROM snapshots WHERE generation = ?1", number)?;
        Ok(transaction.commit()?)
    }

    /// The record that `read` selects with its sum, if there is one.
    fn record(&self, read: &str, id: i64) -> Result<Option<String>, String> {
        let row = self.connection.query_row(read, [id], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
        });
        match row.optional() {
            Ok(Some((json, sum))) if sum != sum_of(&json) => {
                Err("its record is damaged: it does not match its checksum".to_owned())
            }
            Ok(row) => Ok(row.map(|(json, _)| json)),
            Err(error) => Err(format!("its record is damaged: {error}")),
        }
    }

    fn write_record(&self, write: &str, id: i64, record: &impl serde::Serialize) -> Result<u64> {
        let (json, sum) = to_json(record);
        self.connection.execute(write, params![id, json, sum])?;
        self.empty_large_log();
        Ok(json.len() as u64)
    }
}

fn to_json(record: &impl serde::Serialize) -> (String, i64) {
    // Texts and numbers can always be written.
    let json = serde_json::to_string(record).unwrap_or_default();
    let sum = sum_of(&json);
    (json, sum)
}

fn sum_of(json: &str) -> i64 {
    xxh3_64(json.as_bytes()).cast_signed()
}

/// SQLite's integers are signed.
fn key(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Takes `left` more bytes.
struct Bounded<W> {
    out: W,
    left: u64,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| io::Error::other(TOO_LARGE))?;
        self.out.write_all(bytes)?;
        pace::stride();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
