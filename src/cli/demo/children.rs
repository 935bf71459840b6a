//! The demo's processes: started together, watched, and ended together whatever happens.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How long each child may take to end after SIGTERM before it is killed.
const PATIENCE: Duration = Duration::from_secs(3);

/// A child that ended by itself.
pub(super) struct Exit {
    pub(super) name: String,
    pub(super) status: ExitStatus,
}

/// Children in the order in which they were started. Dropping it kills those that still run.
#[derive(Default)]
pub(super) struct Children {
    running: Vec<(String, Child)>,
}

impl Children {
    /// Starts this executable with `arguments`, with our standard streams.
    pub(super) fn start(&mut self, name: &str, arguments: &[&str]) -> Result<(), String> {
        let problem = |error| format!("cannot start {name}: {error}");
        let executable = std::env::current_exe().map_err(problem)?;
        let parent = std::process::id();
        let mut command = Command::new(executable);
        // A group of its own keeps the terminal's Ctrl-C for us alone: we end the children in order, and
        // none of them dies first and looks like a failure.
        command.args(arguments).process_group(0);
        // SAFETY: between fork and exec the closure makes two system calls and touches no memory but its
        // own, which is what async-signal-safety asks for.
        unsafe { command.pre_exec(move || die_with(parent)) };
        self.running
            .push((name.to_owned(), command.spawn().map_err(problem)?));
        Ok(())
    }

    /// Waits until one of them ends.
    pub(super) async fn first_exit(&mut self) -> Exit {
        loop {
            for at in 0..self.running.len() {
                if let Ok(Some(status)) = self.running[at].1.try_wait() {
                    let (name, _) = self.running.remove(at);
                    return Exit { name, status };
                }
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Ends them one by one, the last one started first, so that the edge drains while its cells still
    /// answer.
    pub(super) async fn end(&mut self) {
        while let Some((_, child)) = self.running.last_mut() {
            terminate(child);
            let deadline = tokio::time::Instant::now() + PATIENCE;
            while let Ok(None) = child.try_wait() {
                if tokio::time::Instant::now() >= deadline {
                    kill(child);
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            self.running.pop();
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            kill(child);
        }
    }
}

fn kill(child: &mut Child) {
    // Both fail only when the child is gone already.
    let _ = child.kill();
    let _ = child.wait();
}

fn terminate(child: &mut Child) {
    if let Ok(None) = child.try_wait()
        && let Ok(pid) = libc::pid_t::try_from(child.id())
    {
        // SAFETY: no memory is involved. The child is not reaped yet, so the id is still its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// Has the kernel kill this process when its parent dies, so that not even `kill -9` leaves cells behind.
#[cfg(target_os = "linux")]
fn die_with(parent: u32) -> std::io::Result<()> {
    // SAFETY: both calls take and return plain numbers.
    let (armed, current) = unsafe {
        (
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL),
            libc::getppid(),
        )
    };
    if armed != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // The parent may have died before the call above: then nobody is left to wait for.
    if u32::try_from(current) == Ok(parent) {
        Ok(())
    } else {
        Err(std::io::Error::from_raw_os_error(libc::ECHILD))
    }
}

/// Elsewhere there is no such call: there a killed demo leaves its children behind.
#[cfg(not(target_os = "linux"))]
fn die_with(_parent: u32) -> std::io::Result<()> {
    Ok(())
}
