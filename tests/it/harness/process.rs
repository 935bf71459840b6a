//! What the system knows about a process.

use std::fs;
use std::time::Duration;

/// Resident memory of a process, in bytes.
pub fn memory(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// The most resident memory that a process had since it started, or since [`reset_peak_memory`].
pub fn peak_memory(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

/// Has [`peak_memory`] count from now (proc(5), clear_refs).
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

/// Files, sockets and the like that a process has open (proc(5), fd).
pub fn open_files(pid: u32) -> usize {
    let path = format!("/proc/{pid}/fd");
    let open = fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    open.count()
}

/// Lets this process have so many files and sockets open.
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

/// Processor time that a process has used, user and system together, over all its threads.
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

/// Keeps all threads that a process has now, and what they start from now on, on one processor.
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
