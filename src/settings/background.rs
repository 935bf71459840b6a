//! Checks what running in the background needs: Pingora would panic over it after it has
//! left the terminal.

use std::ffi::{CString, c_char, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::ptr;

use super::files;
use super::reader::{Reader, Section};
use super::server::ServerSettings;
use super::value::Parsed;

/// Checks Pingora's keys for daemons. The user and the group have to exist in
/// any case; the rest matters if the edge will be a daemon.
pub(super) fn check(
    reader: &mut Reader<'_>,
    top: &Section<'_>,
    server: &ServerSettings,
    daemon: bool,
) {
    let mut blame = |key: &str, checked: Parsed<()>| {
        if let Err(message) = checked {
            match top.get(key) {
                Some(at) => reader.problem(at, message),
                // The default cannot be used either.
                None => reader.problem_elsewhere(key, message),
            }
        }
    };
    if let Some(user) = &server.user {
        // SAFETY: touches no memory.
        let own = unsafe { libc::geteuid() };
        blame("user", account("user", user, user_id(user), own, daemon));
    }
    if let Some(group) = &server.group {
        // SAFETY: touches no memory.
        let own = unsafe { libc::getegid() };
        blame(
            "group",
            account("group", group, group_id(group), own, daemon),
        );
    }
    if daemon {
        // An existing file is renamed, so the directory has to be writable.
        blame(
            "pid_file",
            files::parent_writable(Path::new(&server.pid_file)),
        );
        if let Some(error_log) = &server.error_log {
            blame("error_log", files::appendable(Path::new(error_log)));
        }
    }
}

fn account(
    what: &str,
    name: &str,
    found: io::Result<Option<u32>>,
    own: u32,
    daemon: bool,
) -> Parsed<()> {
    // SAFETY: touches no memory.
    let root = unsafe { libc::geteuid() } == 0;
    match found {
        Err(error) => Err(format!("got {name:?}, which cannot be looked up: {error}")),
        Ok(None) => Err(format!(
            "got {name:?}, want a {what} that exists on this system"
        )),
        Ok(Some(id)) if daemon && !root && id != own => Err(format!(
            "got {name:?}, want the {what} that the edge is started as: only root can change it"
        )),
        Ok(Some(_)) => Ok(()),
    }
}

fn user_id(name: &str) -> io::Result<Option<u32>> {
    look_up(name, libc::getpwnam_r, |user: &libc::passwd| user.pw_uid)
}

fn group_id(name: &str) -> io::Result<Option<u32>> {
    look_up(name, libc::getgrnam_r, |group: &libc::group| group.gr_gid)
}

/// `getpwnam_r` and `getgrnam_r`: the name, the entry to fill, a buffer for its texts, the
/// buffer's length, and the result.
type Call<E> =
    unsafe extern "C" fn(*const c_char, *mut E, *mut c_char, libc::size_t, *mut *mut E) -> c_int;

/// Largest buffer in bytes; a group with many members needs a large one.
const LARGEST_ENTRY: usize = 16 << 20;

fn look_up<E>(name: &str, call: Call<E>, id: fn(&E) -> u32) -> io::Result<Option<u32>> {
    let name = CString::new(name)?;
    let mut buffer: Vec<c_char> = vec![0; 4096];
    loop {
        let mut entry = MaybeUninit::<E>::uninit();
        let mut found = ptr::null_mut();
        // SAFETY: everything is valid for the call, the buffer for its length.
        let failed = unsafe {
            call(
                name.as_ptr(),
                entry.as_mut_ptr(),
                buffer.as_mut_ptr(),
                buffer.len(),
                &mut found,
            )
        };
        match failed {
            // SAFETY: what was found is `entry`, which the call filled.
            0 => return Ok(unsafe { found.as_ref() }.map(id)),
            libc::ERANGE if buffer.len() < LARGEST_ENTRY => buffer.resize(buffer.len() * 2, 0),
            // Some systems report these if there is no entry, see getpwnam(3).
            libc::ENOENT | libc::ESRCH => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts() {
        assert_eq!(user_id("root").unwrap(), Some(0));
        assert!(matches!(group_id("daemon"), Ok(Some(id)) if id > 0));
        assert_eq!(user_id("no such user").unwrap(), None);
        assert_eq!(group_id("no such group").unwrap(), None);
    }
}
