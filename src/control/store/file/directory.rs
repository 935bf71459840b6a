//! The directory: its lock, and the names in it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const LOCK: &str = "lock";
const SUFFIX: &str = ".segment";
/// Where a segment is written first: what a crash leaves there is overwritten.
const NEW: &str = ".segment.new";

/// More than this many names are not ours.
const MOST_NAMES: usize = 1_000_000;

/// A directory that is this process's alone for as long as this lives.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
    /// Of the next times that it is synced, how many fail; in tests.
    #[cfg(test)]
    pub bad_syncs: std::sync::atomic::AtomicU32,
}

/// Why a segment was not put in its place for good.
#[derive(Debug)]
pub(super) enum PutError {
    /// It was not.
    Failed(io::Error),
    /// It was, and that may last or not.
    Unsure(io::Error),
}

impl Directory {
    /// Makes the directory if it is missing, and locks it.
    ///
    /// # Errors
    /// In words for an operator.
    pub fn open(path: &Path) -> Result<Self, String> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => sync_above(path).map_err(|error| error.to_string())?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("cannot be made: {error}")),
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(|error| format!("{LOCK}: {error}"))?;
        // SAFETY: the descriptor is open; no memory is involved.
        let failed = unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0;
        if failed {
            return Err(match io::Error::last_os_error() {
                error if error.kind() == ErrorKind::WouldBlock => {
                    "another control plane is running on it, and a directory is for one (several \
                     at once need store.etcd)"
                        .to_owned()
                }
                error => format!("{LOCK}: {error}"),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
            #[cfg(test)]
            bad_syncs: Default::default(),
        })
    }

    /// The first generations of all segments, the oldest first.
    pub fn segments(&self) -> io::Result<Vec<u64>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.path)?.take(MOST_NAMES) {
            let name = entry?.file_name();
            segments.extend(name.to_str().and_then(first));
        }
        segments.sort_unstable();
        Ok(segments)
    }

    /// Where the segment is that begins with generation `first`.
    pub fn segment(&self, first: u64) -> PathBuf {
        self.path.join(name(first))
    }

    /// A new file for a segment, to be [put in place](Self::put).
    pub fn new_segment(&self) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            // The keys are the names of tenants.
            .mode(0o600)
            .open(self.path.join(NEW))
    }

    /// Gives the new segment its name, for good.
    ///
    /// # Errors
    /// It is not there, or may be and may not stay.
    pub fn put(&self, first: u64) -> Result<(), PutError> {
        fs::rename(self.path.join(NEW), self.segment(first)).map_err(PutError::Failed)?;
        self.sync().map_err(PutError::Unsure)
    }

    /// Takes a segment away that was begun in vain.
    pub fn discard_new(&self) {
        // It takes up space, and that is all.
        let _ = fs::remove_file(self.path.join(NEW));
    }

    /// Removes a segment; that it is gone already is fine.
    pub fn remove(&self, first: u64) -> io::Result<()> {
        match fs::remove_file(self.segment(first)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => self.sync(),
        }
    }

    fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.syncs_badly() {
            return Err(io::Error::other("a bad disk"));
        }
        File::open(&self.path)?.sync_all()
    }
}

#[cfg(test)]
impl Directory {
    fn syncs_badly(&self) -> bool {
        use std::sync::atomic::Ordering::Relaxed;
        let one_less = |left: u32| left.checked_sub(1);
        self.bad_syncs
            .fetch_update(Relaxed, Relaxed, one_less)
            .is_ok()
    }
}

fn sync_above(path: &Path) -> io::Result<()> {
    let above = match path.parent() {
        Some(above) if above != Path::new("") => above,
        _ => Path::new("."),
    };
    File::open(above)?.sync_all()
}

/// Twenty digits, so that names are in the order of the numbers.
fn name(first: u64) -> String {
    format!("{first:020}{SUFFIX}")
}

fn first(file: &str) -> Option<u64> {
    let first = file.strip_suffix(SUFFIX)?.parse().ok()?;
    (name(first) == file).then_some(first)
}
