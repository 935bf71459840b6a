//! What commands that serve ask of the operating system.

use std::io;

use log::warn;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT and SIGTERM.
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// Handles the signals from now on.
    ///
    /// # Errors
    /// The system does not permit it.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next of either signal. Cancel safe.
    pub async fn requested(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// File descriptors for everything that is not a connection.
const RESERVE: u64 = 256;

/// Raises the soft limit of open files to the hard one, as nginx and HAProxy do, and
/// warns if that is less than `wanted` connections need. `name` is the setting that
/// allows so many.
pub(super) fn raise_open_files(name: &str, wanted: usize) {
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
