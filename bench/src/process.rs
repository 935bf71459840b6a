//! A proxy's processes: started on their processors, weighed, and ended.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::sys;

/// How long a proxy may take to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process and all that it started. Dropping it ends them.
pub struct Tree {
    child: Child,
    log: PathBuf,
    pub started: Instant,
}

/// Memory of a whole tree, in bytes. What its processes share counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Resident, shared pages divided by those who share them.
    pub resident: u64,
    /// Of that, what is in no file.
    pub anonymous: u64,
}

impl Tree {
    /// Starts `command` on the processors `cpus`, with its output in `log`.
    pub fn start(command: Command, cpus: &[usize], log: &Path) -> anyhow::Result<Tree> {
        Self::start_at(command, cpus, log, 0)
    }

    /// The same for one that gives way to whatever else runs there.
    pub fn start_behind(command: Command, cpus: &[usize], log: &Path) -> anyhow::Result<Tree> {
        Self::start_at(command, cpus, log, 19)
    }

    fn start_at(
        mut command: Command,
        cpus: &[usize],
        log: &Path,
        nice: i32,
    ) -> anyhow::Result<Tree> {
        let output = File::create(log).with_context(|| log.display().to_string())?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        let cpus = cpus.to_vec();
        // SAFETY: nothing but system calls, on memory that was there before.
        unsafe {
            command.pre_exec(move || {
                sys::end_with_parent();
                if nice > 0 {
                    sys::give_way(nice);
                }
                sys::pin(&cpus)
            });
        }
        let started = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        Ok(Tree {
            child,
            log: log.to_owned(),
            started,
        })
    }

    /// The first process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails when the first process has ended.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let from = log.len().saturating_sub(2_000);
            bail!(
                "it ended ({status}): {}",
                String::from_utf8_lossy(&log.as_bytes()[from..])
            );
        }
        Ok(())
    }

    /// The first process and its descendants.
    pub fn pids(&self) -> Vec<u32> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if let Some(stat) = Stat::of(pid) {
                children.entry(stat.parent).or_default().push(pid);
            }
        }
        let mut pids = vec![self.pid()];
        let mut next = 0;
        while let Some(pid) = pids.get(next) {
            let found = children.remove(pid).unwrap_or_default();
            pids.extend(found);
            next += 1;
        }
        pids
    }

    /// Processor time, user and system, that the tree has taken until now.
    pub fn cpu(&self) -> Duration {
        let mut time = Duration::ZERO;
        for pid in self.pids() {
            time += sys::cpu_time(pid).unwrap_or_default();
            // Of those that ended and were waited for.
            time += Stat::of(pid).map(|stat| stat.ended).unwrap_or_default();
        }
        time
    }

    /// What the tree holds now.
    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for pid in self.pids() {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
            let rollup = rollup.unwrap_or_default();
            memory.resident += kilobytes(&rollup, "Pss:");
            memory.anonymous += kilobytes(&rollup, "Pss_Anon:");
        }
        memory
    }

    /// Waits until the tree takes no more processor time than an idle one, at
    /// most `patience`. `idle` is a share of one processor.
    pub fn settle(&self, idle: f64, patience: Duration) {
        let window = Duration::from_millis(250);
        let end = Instant::now() + patience;
        let mut before = self.cpu();
        while Instant::now() < end {
            std::thread::sleep(window);
            let now = self.cpu();
            if (now.saturating_sub(before)).as_secs_f64() < idle * window.as_secs_f64() {
                return;
            }
            before = now;
        }
    }

    pub fn signal(&self, signal: i32) -> anyhow::Result<()> {
        sys::signal(self.pid(), signal, false)
            .with_context(|| format!("process {} cannot be signalled", self.pid()))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let pids = self.pids();
        let _ = sys::signal(self.pid(), libc::SIGTERM, false);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its own group, whatever of it is left.
        let _ = sys::signal(self.pid(), libc::SIGKILL, true);
        for pid in &pids[1..] {
            while Instant::now() < end && Stat::of(*pid).is_some_and(|stat| stat.state != 'Z') {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn kilobytes(rollup: &str, field: &str) -> u64 {
    let line = rollup.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0_u64) * 1024
}

/// What `/proc/PID/stat` says.
struct Stat {
    state: char,
    parent: u32,
    /// Processor time of children that ended and were waited for.
    ended: Duration,
}

impl Stat {
    fn of(pid: u32) -> Option<Stat> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before it may hold anything, but for this at its end.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let ticks = fields.get(13)?.parse::<u64>().ok()? + fields.get(14)?.parse::<u64>().ok()?;
        Some(Stat {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            ended: Duration::from_secs_f64(ticks as f64 / sys::ticks_per_second() as f64),
        })
    }
}

/// Share of time that the machine was taken from us by its host, since the last
/// call: what is measured while it is high is worth little.
#[derive(Default)]
pub struct Stolen {
    last: (u64, u64),
}

impl Stolen {
    pub fn share(&mut self) -> f64 {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line
            .split_whitespace()
            .filter_map(|tick| tick.parse().ok())
            .collect();
        let now = (
            ticks.iter().take(8).sum(),
            ticks.get(7).copied().unwrap_or(0),
        );
        let (all, stolen) = (now.0 - self.last.0, now.1 - self.last.1);
        self.last = now;
        if all == 0 {
            0.0
        } else {
            stolen as f64 / all as f64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_weighed_with_its_children_and_ended() {
        let log = std::env::temp_dir().join(format!("cellgate-bench-{}", std::process::id()));
        let mut command = Command::new("sh");
        // A child that burns a known time and ends, and one that stays.
        let burn = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        command.args(["-c", &format!("sh -c '{burn}'; sh -c 'sleep 60; :' & wait")]);
        let tree = Tree::start(command, &[0], &log).expect("sh");
        let end = Instant::now() + Duration::from_secs(30);
        while tree.pids().len() < 3 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        let pids = tree.pids();
        assert_eq!(pids.len(), 3, "sh, sh and sleep");
        assert!(tree.cpu() >= Duration::from_millis(30), "{:?}", tree.cpu());
        assert!(tree.memory().resident > 100 << 10);
        drop(tree);
        assert!(
            pids.iter()
                .all(|&pid| Stat::of(pid).is_none_or(|stat| stat.state == 'Z'))
        );
        let _ = fs::remove_file(log);
    }
}
