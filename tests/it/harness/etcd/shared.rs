//! The etcd cluster that the tests of a run share.
//!
//! nextest runs every test in a process of its own. So the first test that needs the cluster starts a
//! keeper: this binary again, as the ignored test [`keeper`]. It starts the members, says where they are,
//! and ends with the run: it watches the process that runs the tests (nextest, or under `cargo test` the
//! test binary itself), and kills the members and removes its files once that process has ended.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::{Etcd, EtcdCluster};
use crate::harness::{DEADLINE, LOOK};

/// The environment variables that tell the keeper where to work, and for which process.
const DIRECTORY: &str = "CELLGATE_TEST_ETCD_DIRECTORY";
const RUNNER: &str = "CELLGATE_TEST_ETCD_RUNNER";

/// Has the members' addresses; appears in one step, once the cluster has a leader.
const ADDRESSES: &str = "addresses";
/// Locked by the keeper for as long as it runs.
const KEEPER: &str = "keeper";

/// The shared cluster, started if no other test has done that.
pub async fn cluster() -> Etcd {
    let found = tokio::task::spawn_blocking(find_or_start).await;
    found.expect("the shared etcd cluster")
}

fn find_or_start() -> Etcd {
    let (run, runner) = match std::env::var("NEXTEST_RUN_ID") {
        Ok(id) => (id, std::os::unix::process::parent_id()),
        Err(_) => (std::process::id().to_string(), std::process::id()),
    };
    let directory = std::env::temp_dir().join(format!("cellgate-etcd-of-{run}"));
    fs::create_dir_all(&directory).expect("a directory for the shared etcd cluster");
    // Held until the cluster runs: whoever else needs it waits here.
    let turn = open(&directory.join("turn"));
    assert!(lock(&turn, libc::LOCK_EX), "the lock of the shared cluster");
    // With a keeper that was killed, its members are gone as well.
    let keeper = open(&directory.join(KEEPER));
    if lock(&keeper, libc::LOCK_EX | libc::LOCK_NB) {
        drop(keeper);
        let _ = fs::remove_file(directory.join(ADDRESSES));
        let mut keeper = start_keeper(&directory, runner);
        wait_started(&directory, &mut keeper);
    }
    let addresses = fs::read_to_string(directory.join(ADDRESSES)).expect("addresses");
    let pairs = addresses.lines().filter_map(|line| line.split_once(' '));
    let address = |text: &str| -> SocketAddr { text.parse().expect("an address") };
    let (clients, plain) = pairs
        .map(|(clients, plain)| (address(clients), address(plain)))
        .unzip();
    Etcd {
        clients,
        plain,
        tls: false,
        prefix: String::new(),
    }
}

fn open(path: &Path) -> File {
    let file = File::options().create(true).append(true).open(path);
    file.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Takes a lock, which ends with the file. False: it would have to wait, and was told not to.
fn lock(file: &File, operation: i32) -> bool {
    // SAFETY: no memory is involved.
    unsafe { libc::flock(file.as_raw_fd(), operation) == 0 }
}

fn start_keeper(directory: &Path, runner: u32) -> Child {
    let log = open(&directory.join("log"));
    let mut command = Command::new(std::env::current_exe().expect("the path of this binary"));
    command
        .args([
            "--exact",
            "harness::etcd::shared::keeper",
            "--ignored",
            "--nocapture",
        ])
        .env(DIRECTORY, directory)
        .env(RUNNER, runner.to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("the log"))
        .stderr(log);
    // SAFETY: one system call, which may be made between fork and exec. A session of its own: nextest ends
    // a test by a signal to the test's process group.
    unsafe {
        command.pre_exec(|| match libc::setsid() {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    command.spawn().expect("start the keeper of etcd")
}

fn wait_started(directory: &Path, keeper: &mut Child) {
    let deadline = Instant::now() + DEADLINE;
    while !directory.join(ADDRESSES).exists() {
        let ended = keeper.try_wait().expect("its status");
        if ended.is_some() || Instant::now() > deadline {
            let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
            panic!("no shared etcd cluster within {DEADLINE:?} ({ended:?}):\n{log}");
        }
        std::thread::sleep(LOOK);
    }
}

/// Not a test: the process that keeps the shared cluster until the run ends.
#[tokio::test]
#[ignore = "started by the tests that need the shared etcd cluster"]
async fn keeper() {
    let (Ok(directory), Ok(runner)) = (std::env::var(DIRECTORY), std::env::var(RUNNER)) else {
        return;
    };
    let directory = PathBuf::from(directory);
    let kept = open(&directory.join(KEEPER));
    assert!(
        lock(&kept, libc::LOCK_EX | libc::LOCK_NB),
        "another keeper runs"
    );
    let runner = Runner::of(runner.parse().expect("a process id"));
    let cluster = EtcdCluster::start().await;
    let members = cluster.clients.iter().zip(&cluster.plain);
    let lines: Vec<String> = members
        .map(|(clients, plain)| format!("{clients} {plain}"))
        .collect();
    let new = directory.join("addresses.new");
    fs::write(&new, lines.join("\n")).expect("write the addresses");
    fs::rename(new, directory.join(ADDRESSES)).expect("rename the addresses");
    runner.wait_end();
    drop(cluster);
    let _ = fs::remove_dir_all(directory);
}

/// A process that is not a child of this one.
struct Runner(OwnedFd);

impl Runner {
    fn of(pid: libc::pid_t) -> Runner {
        // SAFETY: the call takes no pointers, and returns a descriptor that is ours alone.
        let descriptor = unsafe {
            match libc::syscall(libc::SYS_pidfd_open, pid, 0) {
                -1 => panic!("process {pid}: {}", io::Error::last_os_error()),
                descriptor => {
                    OwnedFd::from_raw_fd(i32::try_from(descriptor).expect("a descriptor"))
                }
            }
        };
        Runner(descriptor)
    }

    /// Blocks until the process has ended.
    fn wait_end(&self) {
        let mut poll = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: `poll` is one valid entry for the time of the call.
        while unsafe { libc::poll(&mut poll, 1, -1) } != 1 {}
    }
}
