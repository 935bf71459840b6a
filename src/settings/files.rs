//! Checks whether a file could be written to a path. Nothing is created.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A path for a message, with control characters escaped.
pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string().escape_debug().to_string()
}

/// Refuses a path in a directory that does not exist.
pub(crate) fn parent_exists(file: &Path) -> Result<(), String> {
    let parent = parent(file);
    if parent.is_dir() {
        return Ok(());
    }
    Err(format!(
        "got {}, want a path in a directory that exists: {} does not",
        quoted(file),
        shown(parent)
    ))
}

/// Refuses a path in a directory where this process cannot create files.
pub(crate) fn parent_writable(file: &Path) -> Result<(), String> {
    parent_exists(file)?;
    let parent = parent(file);
    if fs::metadata(file).is_ok_and(|metadata| metadata.is_dir()) {
        return Err(format!(
            "got {}, want a file: it is a directory",
            quoted(file)
        ));
    }
    writable(parent).map_err(|error| {
        format!(
            "got {}, want a path in a directory that can be written to: {}: {error}",
            quoted(file),
            shown(parent)
        )
    })
}

/// Refuses a path that this process cannot append to, nor create.
pub(crate) fn appendable(file: &Path) -> Result<(), String> {
    let opened = OpenOptions::new()
        .append(true)
        // A FIFO without a reader could not be opened otherwise (fifo(7)).
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(file);
    match opened {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => parent_writable(file),
        Err(error) => Err(format!(
            "got {}, want a file that can be appended to: {error}",
            quoted(file)
        )),
    }
}

fn parent(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn quoted(file: &Path) -> String {
    format!("{:?}", file.display().to_string())
}

fn writable(directory: &Path) -> io::Result<()> {
    let path = CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: `path` ends with NUL and outlives the call.
    let allowed = unsafe {
        libc::faccessat(
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::W_OK | libc::X_OK,
            libc::AT_EACCESS,
        )
    };
    if allowed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_files_can_be_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let here = path("").display().to_string();
        let here = here.trim_end_matches('/');
        fs::write(path("file"), "").unwrap();
        for check in [parent_exists, parent_writable, appendable] {
            assert_eq!(check(&path("file")), Ok(()));
            assert_eq!(check(&path("new")), Ok(()));
            assert_eq!(check(Path::new("new")), Ok(()));
            assert_eq!(
                check(&path("none/new")),
                Err(format!(
                    "got \"{here}/none/new\", want a path in a directory that exists: {here}/none \
                     does not"
                ))
            );
        }
        assert!(!path("new").exists(), "looking created it");
        assert_eq!(
            parent_writable(directory.path()),
            Err(format!("got \"{here}\", want a file: it is a directory"))
        );
        let refused = appendable(directory.path()).unwrap_err();
        let expected = format!("got \"{here}\", want a file that can be appended to: ");
        assert!(refused.starts_with(&expected), "{refused}");
    }

    /// Runs `check` in a thread that is not root: on Linux, each thread has its own user.
    #[cfg(target_os = "linux")]
    fn without_privileges<T: Send>(check: impl FnOnce() -> T + Send) -> T {
        const NOBODY: libc::uid_t = 65534;
        std::thread::scope(|scope| {
            let check = scope.spawn(|| {
                // SAFETY: the calls change the ids of this thread alone, and touch no memory.
                unsafe {
                    if libc::geteuid() == 0 {
                        let (keep, user) = (libc::uid_t::MAX, NOBODY);
                        let changed = libc::syscall(libc::SYS_setresuid, keep, user, keep);
                        assert_eq!(changed, 0, "{}", io::Error::last_os_error());
                    }
                }
                check()
            });
            check.join().unwrap()
        })
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_directory_that_takes_no_files() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        let mode = |mode| {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
        };
        let file = |name: &str| directory.path().join(name);
        mode(0o555);
        let here = directory.path().display();
        for check in [parent_writable, appendable] {
            assert_eq!(
                without_privileges(|| check(&file("new"))),
                Err(format!(
                    "got \"{here}/new\", want a path in a directory that can be written to: {here}: \
                     Permission denied (os error 13)"
                ))
            );
        }
        mode(0o777);
        assert_eq!(without_privileges(|| parent_writable(&file("new"))), Ok(()));
    }
}
