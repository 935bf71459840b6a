//! The demo's processes: they are started, watched and stopped together.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A child that still runs this long after SIGTERM is killed.
const GRACE: Duration = Duration::from_secs(3);

/// A child that stopped unexpectedly.
pub(super) struct Exit {
    pub(super) name: String,
    pub(super) status: ExitStatus,
}

/// Child processes, in the order of their start. Dropping this kills those that still run.
#[derive(Default)]
pub(super) struct Children {
    running: Vec<(String, Child)>,
}

impl Children {
    /// Starts this executable with `arguments`, on the same standard streams.
    pub(super) fn start(&mut self, name: &str, arguments: &[&str]) -> Result<(), String> {
        let problem = |error| format!("cannot start {name}: {error}");
        let executable = std::env::current_exe().map_err(problem)?;
        let parent = std::process::id();
        let mut command = Command::new(executable);
        // A process group of its own keeps the terminal's Ctrl-C from the child, so that the children stop
        // in order, and none looks like a failure.
        command.args(arguments).process_group(0);
        // SAFETY: between fork and exec the closure only makes two system calls, both async-signal-safe.
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

    /// Stops them one by one, the last one first, so that the edge drains while its cells still answer.
    pub(super) async fn end(&mut self) {
        while let Some((_, child)) = self.running.last_mut() {
            terminate(child);
            let deadline = tokio::time::Instant::now() + GRACE;
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

/// Asks the kernel to kill this process when its parent dies, so that cells do not outlive a demo that was
/// killed with SIGKILL.
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
    // The parent may have died before the call above.
    if u32::try_from(current) == Ok(parent) {
        Ok(())
    } else {
        Err(std::io::Error::from_raw_os_error(libc::ECHILD))
    }
}

/// Other systems have no such call: there, cells outlive a killed demo.
#[cfg(not(target_os = "linux"))]
fn die_with(_parent: u32) -> std::io::Result<()> {
    Ok(())
}
