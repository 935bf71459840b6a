//! The SQLite database: opening it, adding generations and removing old ones.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use rusqlite::{
    Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, ffi, named_params,
};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::control::store::{AppendError, Record, StoreError};
use crate::table::{Delta, RoutingTable};
use crate::telemetry::time::rfc3339_millis;

const SCHEMA: &str = include_str!("schema.sql");

/// The format of [`SCHEMA`], in the header as `user_version`.
pub(super) const FORMAT: i32 = 1;

/// "CGDB": whose file it is, in the header as `application_id`.
pub(super) const APPLICATION: i32 = 0x4347_4442;

/// How much of a content one row holds: far below SQLite's limit of 1 GB, and little
/// to hold in memory.
const PART_BYTES: usize = 1 << 20;

/// To what size the write-ahead log shrinks after a large transaction.
const LOG_BYTES: i64 = 4 << 20;

/// How long to wait while another program, such as `sqlite3`, holds a lock.
const BUSY: Duration = Duration::from_secs(5);

/// A connection to the database. Its methods block.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) connection: Connection,
}

/// What a generation is stored as.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    Table(&'a RoutingTable),
    Delta(&'a Delta),
}

impl Database {
    /// Opens the database for writing; there is one writer. Creates the tables in an
    /// empty file, and recovers what a crash left in the write-ahead log.
    ///
    /// # Errors
    /// In words for an operator.
    pub fn open(path: &Path) -> Result<Self, String> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Self::connect(path, flags).map_err(|error| error.to_string())?;
        let prepared = database.prepare();
        prepared.map_err(|error| match error {
            PrepareError::Sqlite(error) => explain(&database.connection, &error),
            PrepareError::Refused(why) => why,
        })?;
        Ok(database)
    }

    /// Opens the database for reading. Readers and the writer do not wait for each
    /// other.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn open_reader(path: &Path) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::connect(path, flags)
    }

    fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Self> {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        // Notices more kinds of damage, at little cost.
        connection.pragma_update(None, "cell_size_check", true)?;
        Ok(Self { connection })
    }

    fn prepare(&self) -> Result<(), PrepareError> {
        let number = |pragma: &str| -> rusqlite::Result<i32> {
            self.connection
                .pragma_query_value(None, pragma, |row| row.get(0))
        };
        let objects: i64 =
            self.connection
                .query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
        let (application, format) = (number("application_id")?, number("user_version")?);
        if objects > 0 && application != APPLICATION {
            return Err(PrepareError::Refused(format!(
                "it is a database of another program: its application_id is {application} (valid: \
                 {APPLICATION})"
            )));
        }
        if objects > 0 && format != FORMAT {
            return Err(PrepareError::Refused(format!(
                "its user_version is {format} (valid: {FORMAT}): another release of cellgate wrote \
                 it"
            )));
        }
        let mode = self
            .connection
            .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
        if mode != "wal" {
            return Err(PrepareError::Refused(format!(
                "its journal_mode is {mode} and cannot be changed to wal: the file system does not \
                 support shared memory"
            )));
        }
        // The log is synced at every commit, not only at checkpoints.
        self.connection.pragma_update(None, "synchronous", "full")?;
        self.connection.pragma_update(None, "foreign_keys", true)?;
        self.connection
            .pragma_update_and_check(None, "journal_size_limit", LOG_BYTES, |_| Ok(()))?;
        if objects == 0 {
            let transaction = self.connection.unchecked_transaction()?;
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", FORMAT)?;
            transaction.commit()?;
        }
        Ok(())
    }

    /// Adds a generation, durable when this returns. Returns the bytes of its content.
    ///
    /// # Errors
    /// Nothing was stored, or the outcome is unknown.
    pub fn insert(&self, record: &Record, content: Content<'_>) -> Result<u64, AppendError> {
        let failed = |error: &dyn std::fmt::Display| {
            StoreError(format!("generation {}: {error}", record.generation))
        };
        let transaction =
            Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)
                .map_err(|error| AppendError::Failed(failed(&explain(&self.connection, &error))))?;
        let bytes = insert_rows(&transaction, record, content)
            .map_err(|error| AppendError::Failed(failed(&explain(&transaction, &error))))?;
        match transaction.execute_batch("COMMIT") {
            Ok(()) => Ok(bytes),
            // Dropping the transaction rolls it back.
            Err(error) => {
                let why = failed(&explain(&transaction, &error));
                Err(match may_be_stored(&error) {
                    true => AppendError::Unknown(why),
                    false => AppendError::Failed(why),
                })
            }
        }
    }

    /// Removes all generations below `number`.
    ///
    /// # Errors
    /// Nothing was removed, for this reason.
    pub fn remove_below(&self, number: u64) -> Result<(), String> {
        let removed = self
            .connection
            .execute("DELETE FROM generation WHERE number < ?1", [number]);
        removed
            .map(drop)
            .map_err(|error| explain(&self.connection, &error))
    }

    /// Looks for damage in the structure of the whole file. Takes time that grows with
    /// the file.
    ///
    /// # Errors
    /// What is damaged.
    pub fn check(&self) -> Result<(), String> {
        // A value that violates a constraint is a damaged row, not a damaged structure.
        let ignore = |yes: bool| {
            self.connection
                .pragma_update(None, "ignore_check_constraints", yes)
                .map_err(|error| error.to_string())
        };
        ignore(true)?;
        let found = self
            .connection
            .query_row("PRAGMA quick_check(1)", (), |row| row.get::<_, String>(0));
        ignore(false)?;
        match found {
            Ok(found) if found == "ok" => Ok(()),
            Ok(found) => Err(found),
            Err(error) => Err(explain(&self.connection, &error)),
        }
    }
}

enum PrepareError {
    Sqlite(rusqlite::Error),
    Refused(String),
}

impl From<rusqlite::Error> for PrepareError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn insert_rows(
    connection: &Connection,
    record: &Record,
    content: Content<'_>,
) -> rusqlite::Result<u64> {
    let mut parts = Parts::new(connection, record.generation)?;
    let written = match content {
        Content::Table(table) => table.write_json(&mut parts),
        Content::Delta(delta) => serde_json::to_writer(&mut parts, delta).map_err(Into::into),
    };
    let written = written.and_then(|()| parts.flush());
    if let Err(error) = written {
        // An error of SQLite, which alone can fail here, is kept aside.
        let other = || rusqlite::Error::ToSqlConversionFailure(error.into());
        return Err(parts.error.take().unwrap_or_else(other));
    }
    let (content_bytes, content_checksum) = (parts.bytes, parts.sum.digest().cast_signed());
    connection.execute(
        "INSERT INTO generation VALUES (:number, :parent, :digest, :version, :keys, :time, :author, \
         :source, :action, :keys_set, :keys_removed, :head_changed, :attempt, :checksum, :content, \
         :content_bytes, :content_checksum)",
        named_params! {
            ":number": record.generation,
            ":parent": record.parent,
            ":digest": record.digest.to_string(),
            ":version": record.version,
            ":keys": record.keys,
            ":time": rfc3339_millis(record.at),
            ":author": record.author.who,
            ":source": record.author.from,
            ":action": record.author.what,
            ":keys_set": record.set,
            ":keys_removed": record.removed,
            ":head_changed": record.head,
            ":attempt": record.id,
            ":checksum": checksum(record),
            ":content": match content {
                Content::Table(_) => "table",
                Content::Delta(_) => "delta",
            },
            ":content_bytes": content_bytes,
            ":content_checksum": content_checksum,
        },
    )?;
    Ok(content_bytes)
}

/// Of all fields of a record, as JSON.
pub(super) fn checksum(record: &Record) -> i64 {
    // Texts and numbers can always be written as JSON.
    xxh3_64(&serde_json::to_vec(record).unwrap_or_default()).cast_signed()
}

/// Writes a content into rows of [`PART_BYTES`].
struct Parts<'c> {
    insert: rusqlite::Statement<'c>,
    generation: u64,
    part: u64,
    buffer: Vec<u8>,
    bytes: u64,
    sum: Xxh3,
    error: Option<rusqlite::Error>,
}

impl<'c> Parts<'c> {
    fn new(connection: &'c Connection, generation: u64) -> rusqlite::Result<Self> {
        Ok(Self {
            insert: connection.prepare("INSERT INTO content VALUES (?1, ?2, ?3)")?,
            generation,
            part: 0,
            buffer: Vec::new(),
            bytes: 0,
            sum: Xxh3::new(),
            error: None,
        })
    }
}

impl Write for Parts<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let space = PART_BYTES.saturating_sub(self.buffer.len());
        let taken = bytes.get(..space).unwrap_or(bytes);
        self.buffer.extend_from_slice(taken);
        if self.buffer.len() >= PART_BYTES {
            self.flush()?;
        }
        Ok(taken.len())
    }

    /// Writes a row of what is buffered.
    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let row = (self.generation, self.part, &self.buffer);
        if let Err(error) = self.insert.execute(row) {
            self.error = Some(error);
            return Err(io::Error::other("the content cannot be written"));
        }
        self.part += 1;
        self.bytes += self.buffer.len() as u64;
        self.sum.update(&self.buffer);
        self.buffer.clear();
        Ok(())
    }
}

/// Whether a commit that ended with `error` may be found after a restart. It is not
/// where SQLite could not get the lock, or could not write all of it; anything else may
/// have happened after it was written.
fn may_be_stored(error: &rusqlite::Error) -> bool {
    let written = error.sqlite_extended_error_code() != Some(ffi::SQLITE_IOERR_WRITE);
    let refused = matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DiskFull | ErrorCode::ConstraintViolation)
    );
    written && !refused
}

/// An error that `connection` just had, with the system's reason if it has one.
pub(super) fn explain(connection: &Connection, error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => {
            // SAFETY: the handle is that of an open connection.
            let errno = unsafe { ffi::sqlite3_system_errno(connection.handle()) };
            match errno {
                0 => error.to_string(),
                errno => format!("{error}: {}", io::Error::from_raw_os_error(errno)),
            }
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            format!("{error}: another program holds a lock on the database")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::may_be_stored;

    #[test]
    fn a_commit_is_refused_for_sure_only_if_it_was_not_written() {
        let error = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        for code in [
            ffi::SQLITE_BUSY,
            ffi::SQLITE_FULL,
            ffi::SQLITE_IOERR_WRITE,
            ffi::SQLITE_CONSTRAINT_FOREIGNKEY,
        ] {
            assert!(!may_be_stored(&error(code)), "{code}");
        }
        for code in [
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_IOERR_DIR_FSYNC,
            ffi::SQLITE_IOERR_SHMMAP,
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_CORRUPT,
        ] {
            assert!(may_be_stored(&error(code)), "{code}");
        }
    }
}
