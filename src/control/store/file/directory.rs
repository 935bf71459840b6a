//! The store's directory: its lock, and the newest generation that was acknowledged.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::protocol::limits::NUMBER_MAX;

const LOCK: &str = "lock";
/// The name of the database in the directory.
pub(super) const DATABASE: &str = "cellgate.db";

/// How the files of the previous format ended.
const SEGMENT: &str = "segment";

/// A directory that this process holds exclusively until this is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Locked. Contains the number of the newest acknowledged generation, so that the
    /// loss of acknowledged generations is noticed even where SQLite cannot notice it:
    /// it takes a damaged write-ahead log for one that ends earlier.
    lock: File,
}

impl Directory {
    /// Creates the directory if it does not exist, and locks it.
    ///
    /// # Errors
    /// Another process holds the lock, the directory has generations of the previous
    /// format, or the system refused; in words for an operator.
    pub fn open(path: &Path) -> Result<Self, String> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => sync_parent(path).map_err(|error| error.to_string())?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("cannot be created: {error}")),
        }
        let lock = open_private(&path.join(LOCK)).map_err(|error| format!("{LOCK}: {error}"))?;
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
        let directory = Self {
            path: path.to_owned(),
            lock,
        };
        directory.refuse_segments()?;
        Ok(directory)
    }

    fn refuse_segments(&self) -> Result<(), String> {
        let entries = fs::read_dir(&self.path).map_err(|error| error.to_string())?;
        for entry in entries {
            let path = entry.map_err(|error| error.to_string())?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == SEGMENT)
            {
                let name = path.file_name().unwrap_or_default().display();
                return Err(format!(
                    "{name} is in the format of an earlier release, which this one does not read: \
                     run the earlier release once more, save the newest generation with `cellgate \
                     ctl get >routing.json`, then start this release with that file as \
                     store.file.path and an empty directory as store.file.data_dir"
                ));
            }
        }
        Ok(())
    }

    /// The path of the database.
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Creates the database as an empty file, unless it exists, readable by this user
    /// only: the keys are the names of tenants. Returns whether it is empty.
    ///
    /// # Errors
    /// The file cannot be created or its creation cannot be made durable.
    pub fn create_database(&self) -> io::Result<bool> {
        let file = open_private(&self.database())?;
        File::open(&self.path)?.sync_all()?;
        Ok(file.metadata()?.len() == 0)
    }

    /// The newest generation that was acknowledged, as far as it is known; 0 if not.
    pub fn acknowledged(&self) -> u64 {
        let mut text = [0; 20];
        let read = self.lock.read_exact_at(&mut text, 0);
        let number = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.parse().ok());
        match (read, number) {
            (Ok(()), Some(number)) if number <= NUMBER_MAX => number,
            _ => 0,
        }
    }

    /// Records that a generation was acknowledged. It is not synced: after a power
    /// failure an earlier number may be there, which is never wrong.
    pub fn acknowledge(&self, generation: u64) {
        let text = format!("{generation:020}\n");
        if let Err(error) = self.lock.write_all_at(text.as_bytes(), 0) {
            log::warn!(
                target: "cellgate::control",
                "{}: cannot record that generation {generation} was acknowledged: {error}",
                self.path.join(LOCK).display()
            );
        }
    }
}

fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Makes the creation of `path` durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}
