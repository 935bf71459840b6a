//! A file replaced in one step, unless it is another one than was thought.

use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::state::sync_directory_of;
use crate::files::read::read;
use crate::live::Sha256;

/// A file that is ready to take the place of another.
#[derive(Debug)]
pub(super) struct Prepared {
    new: PathBuf,
    target: PathBuf,
}

/// What became of a replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Swapped {
    Done,
    /// Something else was there by then; it is there still.
    Edited,
}

impl Prepared {
    /// Writes `content` beside what `path` leads to.
    pub fn write(path: &Path, content: &[u8]) -> io::Result<Self> {
        // The file itself, and not a link to it, is replaced.
        let target = match fs::canonicalize(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => path.to_owned(),
            target => target?,
        };
        let mut name = OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(".new");
        let new = target.with_file_name(name);
        let prepared = Self { new, target };
        match prepared.fill(content) {
            Ok(()) => Ok(prepared),
            Err(error) => {
                let _ = fs::remove_file(&prepared.new);
                Err(error)
            }
        }
    }

    fn fill(&self, content: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&self.new)?;
        if let Ok(metadata) = fs::metadata(&self.target) {
            let mode = metadata.permissions().mode();
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        let mut out = BufWriter::new(&file);
        out.write_all(content)?;
        out.flush()?;
        drop(out);
        file.sync_all()
    }

    /// Puts it in its place, if what is there has the SHA-256 `known`; none: if
    /// nothing is there.
    pub fn swap(self, known: Option<Sha256>, max_bytes: u64) -> io::Result<Swapped> {
        let swapped = self.try_swap(known, max_bytes);
        // What was replaced, or what could not take its place.
        let _ = fs::remove_file(&self.new);
        swapped
    }

    fn try_swap(&self, known: Option<Sha256>, max_bytes: u64) -> io::Result<Swapped> {
        let Some(known) = known else {
            return match rename(&self.new, &self.target, NOREPLACE) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Swapped::Edited),
                Err(error) if !offered(&error) => {
                    if self.target.exists() {
                        return Ok(Swapped::Edited);
                    }
                    fs::rename(&self.new, &self.target)?;
                    self.done()
                }
                renamed => renamed.and_then(|()| self.done()),
            };
        };
        let is_known = |path: &Path| read(path, max_bytes).is_ok_and(|was| was.sha256 == known);
        match rename(&self.new, &self.target, EXCHANGE) {
            Ok(()) if is_known(&self.new) => self.done(),
            Ok(()) => {
                rename(&self.new, &self.target, EXCHANGE)?;
                Ok(Swapped::Edited)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Swapped::Edited),
            // Looking first leaves a moment in which an edit would be lost, but some
            // file systems offer nothing better.
            Err(error) if !offered(&error) => match is_known(&self.target) {
                true => {
                    fs::rename(&self.new, &self.target)?;
                    self.done()
                }
                false => Ok(Swapped::Edited),
            },
            Err(error) => Err(error),
        }
    }

    fn done(&self) -> io::Result<Swapped> {
        sync_directory_of(&self.target)?;
        Ok(Swapped::Done)
    }
}

/// Whether the file system knows the kind of renaming that failed.
fn offered(error: &io::Error) -> bool {
    !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS))
}

/// Fails if there is something in the way (renameat2(2)).
const NOREPLACE: libc::c_uint = 1;

/// Each file takes the other's place.
const EXCHANGE: libc::c_uint = 2;

#[cfg(target_os = "linux")]
fn rename(from: &Path, to: &Path, flags: libc::c_uint) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;

    let from = std::ffi::CString::new(from.as_os_str().as_bytes())?;
    let to = std::ffi::CString::new(to.as_os_str().as_bytes())?;
    let at = libc::AT_FDCWD;
    // SAFETY: both names end with NUL and outlive the call.
    let failed = unsafe {
        let (from, to) = (from.as_ptr(), to.as_ptr());
        libc::syscall(libc::SYS_renameat2, at, from, at, to, flags)
    };
    match failed {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "linux"))]
fn rename(_from: &Path, _to: &Path, _flags: libc::c_uint) -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}
