//! The files: named, written in one step, read with a bound.

use std::fs::{self, File as OsFile, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::journal::File;
use super::record::{self, Stored};
use crate::state::generation::Generation;

const JOURNAL: &str = "journal.json";
const LOCK: &str = "lock";
const SUFFIX: &str = ".generation";
const CHANGES: &str = ".changes";
/// Where every file is written first: what a crash leaves there is overwritten.
const NEW: &str = ".new";

/// Twenty entries are a few kilobytes.
const LONGEST_JOURNAL: u64 = 1 << 20;

/// More than this many names are not ours.
const MOST_NAMES: usize = 10_000;

/// What a document's file has beside it: the header and the hash.
const AROUND: u64 = 64 << 10;

/// The directory that the memory is in.
#[derive(Debug)]
pub(super) struct Directory {
    pub path: PathBuf,
    /// The largest document.
    pub max_bytes: u64,
}

/// Held by the one process that may write; given back when it is dropped, and
/// by the system however the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: OsFile,
}

impl Directory {
    /// Makes the directory, if only it is missing, and takes the lock; none if
    /// another process has it.
    pub fn lock(&self) -> io::Result<Option<Lock>> {
        match fs::DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path.join(LOCK))?;
        // SAFETY: the descriptor is open; no memory is involved.
        let failed = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0;
        if !failed {
            return Ok(Some(Lock { _file: file }));
        }
        match io::Error::last_os_error() {
            error if error.kind() == ErrorKind::WouldBlock => Ok(None),
            error => Err(error),
        }
    }

    /// The journal, if there is one.
    pub fn journal(&self) -> io::Result<Option<Vec<u8>>> {
        match read_bounded(&self.path.join(JOURNAL), LONGEST_JOURNAL) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    pub fn write_journal(&self, text: &[u8]) -> io::Result<()> {
        self.replace(JOURNAL, |out| out.write_all(text))
    }

    /// The whole tables there are, whatever is in their files, in the order of their
    /// numbers; each with the bytes of its changes.
    pub fn generations(&self) -> io::Result<Vec<File>> {
        let mut files: Vec<File> = self
            .numbers(SUFFIX)?
            .into_iter()
            .map(|number| File {
                number,
                bytes: self
                    .bytes(number)
                    .saturating_add(self.changes_bytes(number)),
            })
            .collect();
        files.sort_by_key(|file| file.number);
        Ok(files)
    }

    /// The numbers in the names that end with `suffix`.
    fn numbers(&self, suffix: &str) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path)?.take(MOST_NAMES) {
            let name = entry?.file_name();
            numbers.extend(name.to_str().and_then(|name| number(name, suffix)));
        }
        Ok(numbers)
    }

    /// The bytes of the file of the whole table `number`; 0 if there is none.
    pub fn bytes(&self, number: u64) -> u64 {
        let metadata = fs::metadata(self.path.join(name(number)));
        metadata.map_or(0, |metadata| metadata.len())
    }

    /// The bytes of the changes that follow it; 0 if there are none.
    pub fn changes_bytes(&self, number: u64) -> u64 {
        let metadata = fs::metadata(self.path.join(changes_name(number)));
        metadata.map_or(0, |metadata| metadata.len())
    }

    /// The changes that follow the whole table `number`, if there are any.
    pub fn changes(&self, number: u64) -> io::Result<Option<Vec<u8>>> {
        // Not above twice the table.
        let most = self.max_bytes.saturating_add(AROUND).saturating_mul(2);
        match read_bounded(&self.path.join(changes_name(number)), most) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    /// Adds `lines` to the changes that follow the whole table `number`, which have
    /// `there` bytes. After this returns well, they are there after a crash as well.
    pub fn append(&self, number: u64, there: u64, lines: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.path.join(changes_name(number)))?;
        let written = (&file).write_all(lines).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // Half a line would end what can be read of the file.
            let _ = file.set_len(there);
            return Err(error);
        }
        match there {
            0 => OsFile::open(&self.path)?.sync_all(),
            _ => Ok(()),
        }
    }

    /// The whole table `number`, as it was written.
    ///
    /// # Errors
    ///
    /// Why it is not, in words for an operator.
    pub fn read(&self, number: u64) -> Result<Stored, String> {
        let most = self.max_bytes.saturating_add(AROUND);
        let bytes =
            read_bounded(&self.path.join(name(number)), most).map_err(|error| error.to_string())?;
        let stored = record::read(&bytes)?;
        if stored.number != number {
            return Err(format!("it holds generation {}", stored.number));
        }
        Ok(stored)
    }

    pub fn write(&self, generation: &Generation) -> io::Result<()> {
        self.replace(&name(generation.number), |out| {
            let mut out = Bounded {
                out,
                left: self.max_bytes.saturating_add(AROUND),
            };
            record::write(generation, &mut out)
        })
    }

    /// Removes the whole table `number` and what follows it; that it is gone already
    /// is fine.
    pub fn remove(&self, number: u64) -> io::Result<()> {
        self.remove_changes(number)?;
        remove(&self.path.join(name(number)))
    }

    /// Removes the changes that follow the whole table `number`.
    pub fn remove_changes(&self, number: u64) -> io::Result<()> {
        remove(&self.path.join(changes_name(number)))
    }

    /// Removes changes of which the table is gone.
    pub fn remove_orphans(&self) -> io::Result<()> {
        let tables = self.numbers(SUFFIX)?;
        for number in self.numbers(CHANGES)? {
            if !tables.contains(&number) {
                self.remove_changes(number)?;
            }
        }
        Ok(())
    }

    /// Whoever reads the file, after a crash as well, finds its old content or
    /// what `write` writes; after this returns well, the latter.
    fn replace(
        &self,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let new = self.path.join(NEW);
        let written = fill(&new, write).and_then(|()| fs::rename(&new, self.path.join(name)));
        if written.is_err() {
            // Half a table would only take up space.
            let _ = fs::remove_file(&new);
        }
        written?;
        OsFile::open(&self.path)?.sync_all()
    }
}

fn fill(new: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        // The keys are the names of tenants.
        .mode(0o600)
        .open(new)?;
    let mut out = BufWriter::with_capacity(1 << 16, file);
    write(&mut out)?;
    let file = out.into_inner().map_err(|error| error.into_error())?;
    file.sync_all()
}

/// Twenty digits, so that names are in the order of the numbers.
pub(super) fn name(number: u64) -> String {
    format!("{number:020}{SUFFIX}")
}

pub(super) fn changes_name(number: u64) -> String {
    format!("{number:020}{CHANGES}")
}

fn number(file: &str, suffix: &str) -> Option<u64> {
    let number = file.strip_suffix(suffix)?.parse().ok()?;
    (format!("{number:020}{suffix}") == file).then_some(number)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        // Of a pipe, the end is read at once instead of waited for.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let mut bytes = Vec::new();
    let expected = file.metadata()?.len().min(most);
    let expected = usize::try_from(expected).unwrap_or(usize::MAX);
    bytes
        .try_reserve_exact(expected.saturating_add(1))
        .map_err(|_| io::Error::other(format!("no memory for its {expected} bytes")))?;
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(too_large(most));
    }
    Ok(bytes)
}

fn too_large(most: u64) -> io::Error {
    io::Error::other(format!(
        "it has more than {most} bytes, what limits.routing_file_bytes allows with its header"
    ))
}

/// Takes so many bytes and no more.
struct Bounded<'a> {
    out: &'a mut dyn Write,
    left: u64,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len() as u64;
        if length > self.left {
            return Err(io::Error::other(
                "the table takes more bytes than limits.routing_file_bytes allows",
            ));
        }
        let written = self.out.write(bytes)?;
        self.left = self.left.saturating_sub(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
