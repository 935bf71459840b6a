//! One reading of a file that another process may be writing.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use cellgate_core::pace;
use serde::{Serialize, Serializer};

use crate::table::Problem;

/// Bytes between two steps of reading: about 100 µs of work.
const READ_CHUNK: u64 = 256 * 1024;

/// Bytes between two steps of hashing: well below 100 µs of work.
const HASH_CHUNK: usize = 64 * 1024;

/// The SHA-256 of a document; shown in lowercase hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    pub fn of(document: &[u8]) -> Self {
        use sha2::Digest;
        let mut sha256 = sha2::Sha256::new();
        for chunk in document.chunks(HASH_CHUNK) {
            sha256.update(chunk);
            pace::stride();
        }
        Self(sha256.finalize().into())
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Metadata by which a change of a file is noticed without reading it. Two changes within
/// one tick of the file system's clock may have the same stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// The ctime: every write and every `chmod` sets it, and no program can set it back.
    changed: (i64, i64),
}

/// A whole file.
pub(crate) struct Snapshot {
    pub(crate) stamp: Stamp,
    pub(crate) sha256: Sha256,
    pub(crate) content: Vec<u8>,
}

/// Why there is no [`Snapshot`].
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The file changed while it was being read.
    Moving,
    /// Why, in words for the operator.
    Unreadable(String),
}

impl ReadError {
    /// The problem of `path`, for an operator.
    pub(crate) fn problem(&self, path: &Path) -> Problem {
        let path = path.display();
        Problem::without_place(match self {
            Self::Moving => format!("{path} is being written all the time"),
            Self::Unreadable(why) => format!("cannot read {path}: {why}"),
        })
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl Stamp {
    /// The stamp of the file at `path`, after all symbolic links.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::from(&metadata))
    }

    /// Device, inode and size: what a `touch` does not change.
    pub(crate) fn identity(&self) -> (u64, u64, u64) {
        (self.device, self.inode, self.size)
    }

    /// In bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Reads the file at `path`, at most `max_bytes` of it.
///
/// # Errors
///
/// It is not a regular file, is larger than that, cannot be read, or changed while it was
/// being read.
pub(crate) fn read(path: &Path, max_bytes: u64) -> Result<Snapshot, ReadError> {
    // Checked before it is opened: opening a device can have side effects.
    refuse_special(&fs::metadata(path)?)?;
    let mut file = OpenOptions::new()
        .read(true)
        // Without this, a pipe that replaced the file since the check would block.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let before = file.metadata()?;
    refuse_special(&before)?;
    refuse_large(before.size(), max_bytes)?;

    let mut content = Vec::new();
    let expected = usize::try_from(before.size()).unwrap_or(usize::MAX);
    content
        .try_reserve_exact(expected.saturating_add(1))
        .map_err(|_| ReadError::Unreadable(format!("no memory for its {expected} bytes")))?;
    let mut rest = Read::by_ref(&mut file).take(max_bytes.saturating_add(1));
    while Read::by_ref(&mut rest)
        .take(READ_CHUNK)
        .read_to_end(&mut content)?
        > 0
    {
        pace::stride();
    }
    let length = content.len() as u64;
    refuse_large(length, max_bytes)?;

    let stamp = Stamp::from(&before);
    if length != before.size() || stamp_of(&file)? != stamp {
        return Err(ReadError::Moving);
    }
    Ok(Snapshot {
        stamp,
        sha256: Sha256::of(&content),
        content,
    })
}

fn stamp_of(file: &File) -> io::Result<Stamp> {
    file.metadata().map(|metadata| Stamp::from(&metadata))
}

fn refuse_special(metadata: &Metadata) -> Result<(), ReadError> {
    if metadata.is_file() {
        return Ok(());
    }
    let what = if metadata.is_dir() {
        "a directory"
    } else {
        "a device, pipe or socket"
    };
    Err(ReadError::Unreadable(format!(
        "it is {what}, not a regular file"
    )))
}

fn refuse_large(size: u64, max_bytes: u64) -> Result<(), ReadError> {
    if size <= max_bytes {
        return Ok(());
    }
    Err(ReadError::Unreadable(format!(
        "it has more than {max_bytes} bytes, the most that is taken (limits.routing_file_bytes of an \
         edge, document_bytes of a control plane)"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path, max_bytes: u64) -> String {
        match read(path, max_bytes) {
            Ok(_) => panic!("{} was read", path.display()),
            Err(error) => error.problem(path).message,
        }
    }

    #[test]
    fn a_file_of_just_the_largest_size_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("routing.json");
        fs::write(&path, "0123456789").unwrap();
        let snapshot = read(&path, 10).unwrap();
        assert_eq!(snapshot.content, b"0123456789");
        assert_eq!(snapshot.stamp, Stamp::of(&path).unwrap());
        assert_eq!(snapshot.sha256, Sha256::of(b"0123456789"));
        let refusal = refusal(&path, 9);
        assert!(refusal.contains("more than 9 bytes"), "{refusal}");
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let message = refusal(directory.path(), 10);
        assert!(message.contains("it is a directory"), "{message}");

        let pipe = directory.path().join("pipe");
        let status = std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap();
        assert!(status.success());
        let message = refusal(&pipe, 10);
        assert!(message.contains("pipe"), "{message}");

        // Endless, and of size 0.
        let message = refusal(Path::new("/dev/zero"), 10);
        assert!(message.contains("not a regular file"), "{message}");
    }

    #[test]
    fn a_file_that_lies_about_its_size_is_bounded_too() {
        // Files in /proc have size 0 and content.
        assert!(matches!(
            read(Path::new("/proc/self/status"), 10),
            Err(ReadError::Unreadable(_))
        ));
        assert!(matches!(
            read(Path::new("/proc/self/status"), 1 << 20),
            Err(ReadError::Moving)
        ));
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = refusal(Path::new("/nonexistent/routing.json"), 10);
        assert!(
            message.starts_with("cannot read /nonexistent/routing.json: No such file"),
            "{message}"
        );
    }
}
