//! What the system lets a process hold.

use log::warn;

/// Descriptors for everything that is not a connection.
const RESERVE: u64 = 256;

/// Raises the soft limit of open files to the hard one, as nginx and HAProxy
/// do, and warns when that is still too low for what the setting `name` allows:
/// `wanted` connections.
pub(in crate::cli) fn raise_open_files(name: &str, wanted: usize) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for writing.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return;
    }
    if limit.rlim_cur < limit.rlim_max {
        let raised = libc::rlimit {
            rlim_cur: limit.rlim_max,
            ..limit
        };
        // SAFETY: `raised` is valid for reading.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } == 0 {
            limit = raised;
        }
    }
    let wanted = wanted as u64 + RESERVE;
    if limit.rlim_cur < wanted {
        warn!(
            open_files = limit.rlim_cur, wanted;
            "the limit of open files is too low for {name}"
        );
    }
}
