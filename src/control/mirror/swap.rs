//! Replacing a file atomically, unless it changed since it was last read.

use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::state::sync_directory_of;
use crate::files::Sha256;
use crate::files::read::read;

/// How many edits in a row are put back.
const MOST_PUT_BACK: u32 = 8;

/// A file that is ready to replace another.
#[derive(Debug)]
pub(super) struct Prepared {
    new: PathBuf,
    target: PathBuf,
    /// Of the new content.
    sha256: Sha256,
    /// The largest file that is read.
    max_bytes: u64,
}

/// The outcome of a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Swapped {
    Done,
    /// Done, but a crash may bring the old content back, for this reason.
    Unsure(String),
    /// The file had another content by then, which is still there.
    Edited,
}

impl Prepared {
    /// Writes `content` to a new file beside the target of `path`.
    pub fn write(path: &Path, content: &[u8], max_bytes: u64) -> io::Result<Self> {
        // A symbolic link is kept, and its target replaced.
        let target = match fs::canonicalize(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => path.to_owned(),
            target => target?,
        };
        let mut name = OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(".new");
        let new = target.with_file_name(name);
        let prepared = Self {
            new,
            target,
            sha256: Sha256::of(content),
            max_bytes,
        };
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

    /// Replaces the target, if its SHA-256 is `known`; with none, if there is no file.
    ///
    /// # Errors
    /// The target was not replaced. An edit that was saved meanwhile is still in its place,
    /// or where the error says.
    pub fn swap(self, known: Option<Sha256>) -> io::Result<Swapped> {
        self.swap_on(known, &System)
    }

    pub fn swap_on(self, known: Option<Sha256>, disk: &impl Disk) -> io::Result<Swapped> {
        let swapped = self.try_swap(known, disk);
        // It may be an edit by now, which is not ours to remove.
        if self.sha256_of(&self.new) == Some(self.sha256) {
            self.discard();
        }
        swapped
    }

    fn try_swap(&self, known: Option<Sha256>, disk: &impl Disk) -> io::Result<Swapped> {
        let Some(known) = known else {
            return match disk.rename(&self.new, &self.target, How::NoReplace) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Swapped::Edited),
                Err(error) if !offered(&error) => {
                    if self.target.exists() {
                        return Ok(Swapped::Edited);
                    }
                    disk.rename(&self.new, &self.target, How::Replace)?;
                    Ok(self.done(disk))
                }
                renamed => renamed.map(|()| self.done(disk)),
            };
        };
        match disk.rename(&self.new, &self.target, How::Exchange) {
            Ok(()) => match self.sha256_of(&self.new) {
                Some(was) if was == known => {
                    self.discard();
                    Ok(self.done(disk))
                }
                was => self.put_back(was, disk).map(|()| Swapped::Edited),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Swapped::Edited),
            // An edit between the comparison and the replacement is lost, but some file
            // systems cannot exchange two files.
            Err(error) if !offered(&error) => match self.sha256_of(&self.target) {
                Some(was) if was == known => {
                    disk.rename(&self.new, &self.target, How::Replace)?;
                    Ok(self.done(disk))
                }
                _ => Ok(Swapped::Edited),
            },
            Err(error) => Err(error),
        }
    }

    /// Puts back an edit that was replaced. If another one was saved meanwhile, that one is
    /// put back in turn.
    fn put_back(&self, edit: Option<Sha256>, disk: &impl Disk) -> io::Result<()> {
        let (mut there, mut here) = (Some(self.sha256), edit);
        for _ in 0..MOST_PUT_BACK {
            if let Err(error) = disk.rename(&self.new, &self.target, How::Exchange) {
                return Err(self.keep_aside(&error));
            }
            let came = self.sha256_of(&self.new);
            // A file that cannot be read may be an edit.
            if came.is_some() && came == there {
                self.discard();
                return Ok(());
            }
            (there, here) = (here, came);
        }
        Err(self.keep_aside(&"it was saved again many times in a row"))
    }

    /// Keeps an edit that cannot be put back under another name.
    fn keep_aside(&self, why: &dyn std::fmt::Display) -> io::Error {
        let mut name = self.new.clone().into_os_string();
        name.push(format!(".{:016x}", rand::random::<u64>()));
        let aside = match fs::rename(&self.new, &name) {
            Ok(()) => name,
            Err(_) => self.new.clone().into_os_string(),
        };
        io::Error::other(format!(
            "an edit was saved while the file was replaced, and cannot be put back: {why}; it is in {}",
            Path::new(&aside).display()
        ))
    }

    fn sha256_of(&self, path: &Path) -> Option<Sha256> {
        read(path, self.max_bytes).ok().map(|was| was.sha256)
    }

    /// Removes what was replaced, or the new file if it was not used.
    fn discard(&self) {
        // If it stays, it only takes space.
        let _ = fs::remove_file(&self.new);
    }

    fn done(&self, disk: &impl Disk) -> Swapped {
        match disk.sync(&self.target) {
            Ok(()) => Swapped::Done,
            Err(error) => Swapped::Unsure(error.to_string()),
        }
    }
}

/// How a file is renamed to the name of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Replaces a file of that name.
    Replace,
    /// Fails if there is a file of that name.
    NoReplace,
    /// Exchanges the two.
    Exchange,
}

/// The operations of the file system; tests have one of their own.
pub(super) trait Disk {
    fn rename(&self, from: &Path, to: &Path, how: How) -> io::Result<()>;

    /// Makes renaming to this path durable.
    fn sync(&self, path: &Path) -> io::Result<()>;
}

/// The real one.
pub(super) struct System;

impl Disk for System {
    fn rename(&self, from: &Path, to: &Path, how: How) -> io::Result<()> {
        match how {
            How::Replace => fs::rename(from, to),
            How::NoReplace => rename(from, to, NOREPLACE),
            How::Exchange => rename(from, to, EXCHANGE),
        }
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        sync_directory_of(path)
    }
}

/// Whether the file system supports the kind of renaming that failed.
fn offered(error: &io::Error) -> bool {
    !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS))
}

/// See [`How`], and renameat2(2).
const NOREPLACE: libc::c_uint = 1;

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
