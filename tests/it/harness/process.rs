//! Processes that tests start, and what the operating system reports about them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::eventually;
use super::log::Log;

/// A running `cellgate` process with a temporary directory that it runs in. Dropping it kills the process;
/// when a test fails, its log is printed.
pub struct Process {
    /// What it is, for messages.
    name: &'static str,
    child: Child,
    /// What it wrote to stderr.
    pub log: Log,
    /// What it wrote to stdout.
    pub output: Log,
    directory: Arc<TempDir>,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub log: String,
    pub output: String,
}

impl Process {
    /// Starts `command` in `directory`.
    pub fn spawn(
        name: &'static str,
        command: &mut Command,
        environment: &[(String, String)],
        directory: &Arc<TempDir>,
    ) -> Process {
        for inherited in ["CONFIG_PATH", "CONTROL_PLANE_URL", "PORT"] {
            command.env_remove(inherited);
        }
        let mut child = command
            .env("RUST_LOG", "info")
            .envs(environment.iter().cloned())
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("start the {name}: {error}"));
        Process {
            name,
            log: Log::collect(child.stderr.take().expect("stderr")),
            output: Log::collect(child.stdout.take().expect("stdout")),
            child,
            directory: Arc::clone(directory),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its working directory, which has all of its files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    pub fn routing_path(&self) -> PathBuf {
        self.path("routing.json")
    }

    /// Replaces the routing file in one step, as a careful deployment does.
    pub fn write_routing(&self, document: &Value) {
        self.write_routing_bytes(document.to_string());
    }

    pub fn write_routing_bytes(&self, document: impl AsRef<[u8]>) {
        let new = self.path(".routing.json.new");
        fs::write(&new, document).expect("write the new routing file");
        fs::rename(new, self.routing_path()).expect("rename the new routing file");
    }

    pub fn signal(&self, signal: i32) {
        send_signal(self.pid(), signal);
    }

    /// Whether the process still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("its status").is_none()
    }

    /// Kills the process, as a crash would, and waits for its end.
    pub async fn kill(mut self) {
        self.child.kill().expect("kill it");
        self.exited().await;
    }

    /// Waits until the process ends.
    pub async fn exited(&mut self) -> ExitStatus {
        let what = format!("the {} ends", self.name);
        let child = &mut self.child;
        eventually(&what, async || child.try_wait().expect("its status")).await
    }

    /// Waits until the process ends and everything it wrote was read.
    pub async fn ended(mut self) -> Ended {
        let status = self.exited().await;
        self.log.ended().await;
        self.output.ended().await;
        Ended {
            status,
            log: self.log.text(),
            output: self.output.text(),
        }
    }
}

impl Ended {
    /// Asserts that it failed by itself and wrote all of `words`.
    #[track_caller]
    pub fn assert_failed(&self, words: &[&str]) {
        let all = format!("{}\n{}", self.log, self.output);
        assert!(!self.status.success(), "it succeeded:\n{all}");
        assert!(
            self.status.code().is_some(),
            "it was killed ({}):\n{all}",
            self.status
        );
        for word in words {
            assert!(all.contains(word), "nothing about {word:?} in:\n{all}");
        }
        assert!(!all.contains("panicked"), "it panicked:\n{all}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let lines = self.log.lines();
            let tail = &lines[lines.len().saturating_sub(60)..];
            let (name, pid, tail) = (self.name, self.pid(), tail.join("\n"));
            eprintln!("--- log of the {name} {pid}:\n{tail}\n---");
        }
    }
}

/// Sets one setting by its dotted path, for instance `cellgate.timeouts.connect`.
pub fn set(settings: &mut Value, path: &str, value: Value) {
    let mut at = settings;
    for name in path.split('.') {
        at = &mut at[name];
    }
    *at = value;
}

/// Resident memory of a process, in bytes.
pub fn memory(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// Peak resident memory of a process since it started, or since [`reset_peak_memory`].
pub fn peak_memory(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

/// Makes [`peak_memory`] count from now (proc(5), clear_refs).
pub fn reset_peak_memory(pid: u32) {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").unwrap_or_else(|error| panic!("{path}: {error}"));
}

fn status(pid: u32, name: &str) -> u64 {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line
        .and_then(|line| line.trim().strip_suffix("kB"))
        .map(str::trim);
    let kilobytes: u64 = kilobytes
        .and_then(|number| number.parse().ok())
        .expect("a size in kB");
    kilobytes * 1024
}

pub fn send_signal(pid: u32, signal: i32) {
    let pid = i32::try_from(pid).expect("a process id");
    // SAFETY: no memory is involved.
    let sent = unsafe { libc::kill(pid, signal) };
    assert_eq!(sent, 0, "kill: {}", std::io::Error::last_os_error());
}

/// How many file descriptors a process has open (proc(5), fd).
pub fn open_files(pid: u32) -> usize {
    let path = format!("/proc/{pid}/fd");
    let open = fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    open.count()
}

/// Raises this process's limit of open files to at least `wanted`.
pub fn raise_open_files(wanted: usize) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for writing, and then for reading.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
        }
    };
    let enough = raised && limit.rlim_cur >= wanted as u64;
    assert!(
        enough,
        "the limit of open files is {}, wanted are {wanted}",
        limit.rlim_cur
    );
}

/// CPU time of a process, user and system, over all its threads.
pub fn cpu_time(pid: u32) -> Duration {
    let pid = i32::try_from(pid).expect("a process id");
    let mut clock = 0;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: both write to the variables they are given and nowhere else.
    let read = unsafe {
        libc::clock_getcpuclockid(pid, &mut clock) == 0
            && libc::clock_gettime(clock, &mut time) == 0
    };
    assert!(read, "processor time of process {pid}");
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.expect("a time"), nanos.expect("a time"))
}

/// Pins all threads of a process, and those that they start from now on, to one CPU.
pub fn pin(pid: u32, processor: usize) {
    let path = format!("/proc/{pid}/task");
    let threads = fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    for thread in threads {
        let name = thread.expect("a thread").file_name();
        let id = name.to_str().and_then(|name| name.parse().ok());
        // SAFETY: a set of zeros is empty; it is only read after that.
        let pinned = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(processor, &mut set);
            libc::sched_setaffinity(id.expect("a thread id"), size_of_val(&set), &set)
        };
        let error = std::io::Error::last_os_error();
        assert_eq!(pinned, 0, "pin {pid} to processor {processor}: {error}");
    }
}
