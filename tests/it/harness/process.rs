//! What the system knows about a process.

use std::fs;

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
