//! What the standard library does not say of Linux: epoll with nanoseconds,
//! processors to run on, and the processor time of other processes.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Readiness of many sockets, level-triggered.
pub struct Epoll(OwnedFd);

/// A socket and what it is ready for; `token` is the caller's.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    pub token: u64,
    pub writable: bool,
}

/// What to be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    Read,
    Write,
}

/// Events that one wait can bring.
pub struct Events(Vec<libc::epoll_event>);

impl Events {
    pub fn new(capacity: usize) -> Events {
        Events(vec![libc::epoll_event { events: 0, u64: 0 }; capacity])
    }
}

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: no pointers; the descriptor is ours alone.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub fn add(&self, socket: &impl AsRawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket.as_raw_fd(), token, interest)
    }

    pub fn change(&self, socket: &impl AsRawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket.as_raw_fd(), token, interest)
    }

    fn control(&self, what: i32, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        let events = match interest {
            Interest::Read => libc::EPOLLIN | libc::EPOLLRDHUP,
            Interest::Write => libc::EPOLLOUT,
        };
        let mut event = libc::epoll_event {
            events: events.cast_unsigned(),
            u64: token,
        };
        // SAFETY: `event` is valid for reading.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), what, fd, &mut event) })?;
        Ok(())
    }

    /// Waits until something is ready or `timeout` is over.
    pub fn wait<'e>(
        &self,
        events: &'e mut Events,
        timeout: Duration,
    ) -> io::Result<impl Iterator<Item = Ready> + use<'e>> {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs().cast_signed(),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        let capacity = i32::try_from(events.0.len()).unwrap_or(i32::MAX);
        // SAFETY: the buffer holds `capacity` events; the timeout is valid for reading.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.0.as_raw_fd(),
                events.0.as_mut_ptr(),
                capacity,
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        let count = match count {
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => 0,
            -1 => return Err(io::Error::last_os_error()),
            count => usize::try_from(count).unwrap_or(0),
        };
        Ok(events.0[..count].iter().map(|event| Ready {
            token: event.u64,
            writable: event.events & libc::EPOLLOUT.cast_unsigned() != 0,
        }))
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Keeps the calling thread, and what it starts from here on, on `cpus`.
pub fn pin(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: a set of processors is plain bits, for which zero is empty; it is
    // valid for reading.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for &cpu in cpus {
            libc::CPU_SET(cpu, &mut set);
        }
        check(libc::sched_setaffinity(0, size_of_val(&set), &set))?;
    }
    Ok(())
}

/// Lets the calling thread's sleeps end on time; the default may be 50 µs late.
pub fn wake_punctually() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_usize) };
}

/// Ends the calling process when the one that started it ends.
pub fn end_with_parent() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Makes the calling process as nice as this (setpriority(2)).
pub fn give_way(nice: i32) {
    // SAFETY: no pointers.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
}

/// Raises the limit of open files to `wanted`, or as far as it goes.
pub fn raise_open_files(wanted: u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for writing and reading.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_max = limit.rlim_max.max(wanted);
        limit.rlim_cur = limit.rlim_max;
        if libc::setrlimit(libc::RLIMIT_NOFILE, &limit) != 0 {
            libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// Processor time of a process, all its threads, those that ended as well.
/// None when there is no such process.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    // As clock_getcpuclockid(3) makes it.
    let clock = (!pid.cast_signed() << 3) | 2;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writing.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let nanos = u32::try_from(time.tv_nsec).ok()?;
    (result == 0).then(|| Duration::new(seconds, nanos))
}

/// Clock ticks a second, the unit of `/proc/PID/stat`.
pub fn ticks_per_second() -> u64 {
    // SAFETY: no pointers.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).unwrap_or(100).max(1)
}

/// Sends `signal` to a process, or with `group` to all of its group.
pub fn signal(pid: u32, signal: i32, group: bool) -> io::Result<()> {
    let pid = pid.cast_signed();
    // SAFETY: no pointers.
    check(unsafe { libc::kill(if group { -pid } else { pid }, signal) })?;
    Ok(())
}
