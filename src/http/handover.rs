//! Upgrade without downtime: one process hands its listening sockets to the next.
//!
//! The new process (`cellgate edge -u`) waits on the upgrade socket. At SIGQUIT the old one
//! sends its sockets there, and serves on until the new one has written a marker file beside
//! the socket, which says that it serves as well. So nothing is lost if the new process dies
//! before that.

use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use log::warn;
use pingora_core::server::Fds;

/// How long the old process waits for the new one to serve.
const READY_WITHIN: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_millis(20);

/// Listening sockets by name, as one process sends them to another.
pub type NamedSockets = Vec<(String, RawFd)>;

/// The upgrade socket and its marker file.
#[derive(Clone, Debug)]
pub struct Handover {
    socket: PathBuf,
    /// Whether another process may have the sockets as well.
    shared: Arc<AtomicBool>,
}

impl Handover {
    /// A handover through the unix socket `upgrade_sock`.
    pub fn at(upgrade_sock: &Path) -> Self {
        Handover {
            socket: upgrade_sock.to_owned(),
            shared: Arc::default(),
        }
    }

    /// Whether another process may have the sockets as well. From the first attempt to hand
    /// them over, nothing may be done to them that affects a successor.
    pub fn shared(&self) -> bool {
        self.shared.load(Ordering::SeqCst)
    }

    fn marker(&self) -> PathBuf {
        let mut path = self.socket.clone().into_os_string();
        path.push(".ready");
        path.into()
    }

    fn path(&self) -> io::Result<&str> {
        self.socket
            .to_str()
            .ok_or_else(|| io::Error::other("the path is not valid utf-8"))
    }

    /// New process: receives the sockets named `names`. Blocks for about 5 s at
    /// most, until the old process has been told to send them.
    ///
    /// # Errors
    /// No process sent anything in time, or one of the sockets was not sent.
    pub fn take_over(&self, names: &[String]) -> io::Result<Vec<RawFd>> {
        // Pingora panics if it cannot bind; the usual cause is caught here.
        let parent = self
            .socket
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent
            && !parent.is_dir()
        {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("no directory {}", parent.display()),
            ));
        }
        remove(&self.marker())?;
        let mut sockets = Fds::new();
        sockets
            .get_from_sock(self.path()?)
            .map_err(io::Error::from)?;
        let find = |name: &String| {
            sockets.get(name).copied().ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("the running process has no listener {name}"),
                )
            })
        };
        names.iter().map(find).collect()
    }

    /// New process: tells the old one that it serves.
    ///
    /// # Errors
    /// The marker file cannot be written.
    pub fn announce(&self) -> io::Result<()> {
        std::fs::write(self.marker(), format!("{}\n", std::process::id()))
    }

    /// Old process: sends `sockets` and waits until the new process serves.
    /// Blocks. After an error this process should serve on.
    ///
    /// # Errors
    /// No process waits for the sockets (tried for about 5 s), or the one that took them did
    /// not serve within 30 s.
    pub fn hand_over(&self, sockets: &NamedSockets) -> io::Result<()> {
        let marker = self.marker();
        let mut fds = Fds::new();
        for (name, fd) in sockets {
            fds.add(name.clone(), *fd);
        }
        fds.send_to_sock(self.path()?).map_err(io::Error::from)?;
        let deadline = Instant::now() + READY_WITHIN;
        while !marker.exists() {
            if Instant::now() >= deadline {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("the new process did not serve within {READY_WITHIN:?}"),
                ));
            }
            std::thread::sleep(READY_POLL);
        }
        if let Err(error) = remove(&marker) {
            warn!("{}: {error}", marker.display());
        }
        Ok(())
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    use super::*;

    #[test]
    fn sockets_arrive_and_the_old_process_waits_for_the_new_one() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let handover = Handover::at(&folder.path().join("upgrade.sock"));
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let sent = vec![("proxy".to_owned(), listener.as_raw_fd())];
        let old = std::thread::spawn({
            let handover = handover.clone();
            move || handover.hand_over(&sent)
        });
        let fds = handover.take_over(&["proxy".to_owned()])?;
        let [fd] = fds.as_slice() else {
            return Err(io::Error::other("not one socket"));
        };
        // SAFETY: just received, owned by nobody else.
        let taken = TcpListener::from(unsafe { OwnedFd::from_raw_fd(*fd) });
        assert_eq!(taken.local_addr()?, listener.local_addr()?);
        assert!(!old.is_finished());
        handover.announce()?;
        old.join().map_err(|_| io::Error::other("panicked"))??;
        assert!(!handover.marker().exists());
        Ok(())
    }

    #[test]
    fn a_missing_folder_is_named() {
        let handover = Handover::at(Path::new("/nonexistent/upgrade.sock"));
        let error = handover.take_over(&[]).map_err(|error| error.to_string());
        assert_eq!(error, Err("no directory /nonexistent".to_owned()));
    }
}
