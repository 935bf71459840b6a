//! The lock on the state directory, and opening `state.db`, its SQLite database. [`rows`]
//! reads and writes what is in it.
//!
//! [`rows`]: super::rows

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

pub(super) const FILE: &str = "state.db";
/// The write-ahead log: transactions that are not yet copied into the database.
const LOG: &str = "state.db-wal";
const LOCK: &str = "lock";

/// The format's number, in the database's `user_version`.
const FORMAT: i64 = 1;

const SCHEMA: &str = "
-- `record` is JSON, `sum` its XXH3-64.
CREATE TABLE journal (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    record TEXT NOT NULL,
    sum INTEGER NOT NULL
) STRICT;
CREATE TABLE generations (
    number INTEGER PRIMARY KEY,
    record TEXT NOT NULL,
    sum INTEGER NOT NULL
) STRICT;
-- A generation's chunks are its routing document as one zstd frame with a checksum.
CREATE TABLE snapshots (
    generation INTEGER NOT NULL,
    chunk INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (generation, chunk)
) STRICT;";

/// The write-ahead log is copied into the database when it has more bytes than this.
const LARGE_LOG: u64 = 4 << 20;

/// Why something cannot be read or written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Error {
    /// Another process holds the lock.
    Locked,
    /// The database is damaged, or of a format that this version does not know.
    Unusable(String),
    /// What the system or SQLite says.
    Failed(String),
}

pub(super) type Result<T, E = Error> = std::result::Result<T, E>;

/// Held by the process that may write. Released when dropped, and by the system when the
/// process ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// How long a transaction waits for another process.
const BUSY: Duration = Duration::from_secs(5);

pub(super) struct Database {
    pub(super) connection: Connection,
    pub(super) dir: PathBuf,
    /// Device and inode of the file that is open.
    identity: Option<(u64, u64)>,
    writable: bool,
    /// Most bytes of a routing document.
    pub(super) max_bytes: u64,
}

impl Lock {
    /// Locks the directory, which is created if its parent exists.
    pub fn acquire(dir: &Path) -> Result<Self> {
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        let file = open_private(&dir.join(LOCK))?;
        // SAFETY: the descriptor is open; no memory is involved.
        let failed = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0;
        if !failed {
            return Ok(Self { _file: file });
        }
        match io::Error::last_os_error() {
            error if error.kind() == ErrorKind::WouldBlock => Err(Error::Locked),
            error => Err(error.into()),
        }
    }
}

/// Creates the file if there is none, readable for one user only: keys name tenants. That
/// user is the owner of the directory, as whom a daemon may run later.
fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    let file = options.mode(0o600).open(path)?;
    // SAFETY: touches no memory.
    if unsafe { libc::geteuid() } == 0
        && let Some(dir) = path.parent()
    {
        let owner = fs::metadata(dir)?;
        std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(file)
}

impl Database {
    /// Opens the database, and creates it if there is none. The caller holds the [`Lock`].
    pub fn open(dir: &Path, max_bytes: u64) -> Result<Self> {
        if !dir.join(FILE).try_exists()? {
            // SQLite's other files get the permissions of this one.
            open_private(&dir.join(FILE))?;
        }
        let log_bytes = fs::metadata(dir.join(LOG)).map_or(0, |log| log.len());
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let mut database = Self::connect(dir, max_bytes, flags, "unix")?;
        database.connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;",
        )?;
        if database.integer("PRAGMA user_version")? == 0 {
            let transaction = database.connection.transaction()?;
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "user_version", FORMAT)?;
            transaction.commit()?;
        }
        database.check_format()?;
        database.report_incomplete(log_bytes)?;
        database.empty_log()?;
        Ok(database)
    }

    /// Opens the database to read, while another process may write; none if there is none.
    pub fn open_to_read(dir: &Path, max_bytes: u64) -> Result<Option<Self>> {
        if !dir.join(FILE).try_exists()? {
            return Ok(None);
        }
        let open = |vfs, locking| {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
            let database = Self::connect(dir, max_bytes, flags, vfs)?;
            let no_checkpoint = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            database.connection.set_db_config(no_checkpoint, true)?;
            database
                .connection
                .pragma_update(None, "locking_mode", locking)?;
            database.check_format()?;
            Ok(database)
        };
        match open("unix", "NORMAL") {
            // To take part in locking, SQLite has to write a file. Without, it also reads on a
            // file system that is full or read-only.
            Err(Error::Failed(_)) => open("unix-none", "EXCLUSIVE").map(Some),
            opened => opened.map(Some),
        }
    }

    fn connect(dir: &Path, max_bytes: u64, flags: OpenFlags, vfs: &str) -> Result<Self> {
        let path = dir.join(FILE);
        let all_flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Ok(Self {
            connection: Connection::open_with_flags_and_vfs(&path, all_flags, vfs)?,
            dir: dir.to_owned(),
            identity: identity(&path),
            writable: flags.contains(OpenFlags::SQLITE_OPEN_READ_WRITE),
            max_bytes,
        })
    }

    fn check_format(&self) -> Result<()> {
        match self.integer("PRAGMA user_version")? {
            FORMAT => Ok(()),
            other => Err(Error::Unusable(format!(
                "it has the format {other} (known: {FORMAT})"
            ))),
        }
    }

    /// Logs it when the write-ahead log, which had `bytes` when it was opened, does not end
    /// with a complete transaction.
    fn report_incomplete(&self, bytes: u64) -> Result<()> {
        let copy = "PRAGMA wal_checkpoint(PASSIVE)";
        let pages: i64 = self.connection.query_row(copy, [], |row| row.get(1))?;
        // https://sqlite.org/fileformat2.html#walformat
        let page = self.integer("PRAGMA page_size")?.saturating_add(24);
        let complete = page.saturating_mul(pages.max(0)).saturating_add(32);
        let incomplete = bytes.saturating_sub(complete.unsigned_abs());
        if incomplete > 0 {
            log::warn!(
                target: "cellgate::state",
                "the last {incomplete} bytes of {} are ignored: they are not a complete \
                 transaction (left from earlier, a write that was cut off, or damage)",
                self.dir.join(LOG).display()
            );
        }
        Ok(())
    }

    /// Copies the write-ahead log into the database and empties it, unless another process
    /// reads it: a reader is not waited for.
    pub fn empty_log(&self) -> Result<()> {
        self.connection.busy_timeout(Duration::ZERO)?;
        let emptied = self.integer("PRAGMA wal_checkpoint(TRUNCATE)").map(|_| ());
        self.connection.busy_timeout(BUSY)?;
        emptied
    }

    pub(super) fn empty_large_log(&self) {
        if fs::metadata(self.dir.join(LOG)).is_ok_and(|log| log.len() > LARGE_LOG) {
            // On failure everything is still in the log, and the next write tries again.
            let _ = self.empty_log();
        }
    }

    /// Renames a database that cannot be used, so that the next [`open`](Self::open) creates
    /// one. Returns the new path.
    pub fn move_aside(dir: &Path) -> io::Result<PathBuf> {
        let first = dir.join(format!("{FILE}.unusable"));
        let others = (2..10).map(|nth| dir.join(format!("{FILE}.unusable-{nth}")));
        let mut names = std::iter::once(first.clone()).chain(others);
        // Of more than nine, the first is replaced.
        let aside = names.find(|name| !name.exists()).unwrap_or(first);
        fs::rename(dir.join(FILE), &aside)?;
        // It may have the newest changes; without one, there is nothing to keep.
        let mut log = aside.clone().into_os_string();
        log.push("-wal");
        let _ = fs::rename(dir.join(LOG), log);
        Ok(aside)
    }

    /// Whether this may write, into the file that is in the directory now.
    pub fn is_writable(&self) -> bool {
        self.writable && self.identity.is_some() && self.identity == identity(&self.dir.join(FILE))
    }

    pub(super) fn integer(&self, read: &str) -> Result<i64> {
        Ok(self.connection.query_row(read, [], |row| row.get(0))?)
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            // `Unknown` is what SQLite says of a table that is missing.
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) => {
                Self::Unusable(error.to_string())
            }
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Locked => {
                "another process holds the lock (the old one of an upgrade, until it drains)"
            }
            Self::Unusable(why) | Self::Failed(why) => why,
        })
    }
}
