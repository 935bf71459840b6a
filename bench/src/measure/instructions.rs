//! Instructions a request, outside of the kernel: a count that no other load on the
//! machine moves, so small differences can be told.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::{Bench, Running, wait_until_ready};
use crate::load::{self, Pace, Reuse};
use crate::peers::{Setting, unpacked_valgrind};
use crate::process::Tree;
use crate::record::Of;

/// Requests of two runs, whose difference leaves out what starting and ending take.
const FEW: u64 = 1_000;
const MANY: u64 = 5_000;
/// A program takes some fifty times as long while its instructions are counted.
const PATIENCE: Duration = Duration::from_secs(120);
/// Few, so that requests rarely wait for each other; enough that no proxy goes to sleep
/// after each of them.
const CONNECTIONS: usize = 8;

impl Bench {
    /// Runs each peer in valgrind's callgrind, with the smallest table.
    pub(super) fn instructions(&mut self) -> anyhow::Result<()> {
        let keys = self.plan.keys.iter().copied().min().unwrap_or(0);
        for peer in self.turns(0) {
            let name = self.peers[peer].name();
            let Some(setting) = self.setting(peer, keys, false)? else {
                continue;
            };
            if let Some(reason) = unfit(name) {
                eprintln!("{name} is left out: {reason}");
                continue;
            }
            let mut counted = |requests| {
                let total = self.counted(peer, &setting, requests);
                total.with_context(|| format!("counting instructions of {name}"))
            };
            let (few, many) = (counted(FEW)?, counted(MANY)?);
            let each = many.saturating_sub(few) as f64 / (MANY - FEW) as f64;
            eprintln!("{name:>14}: {each:.0} instructions a request");
            self.record(name, 0, keys, Of::Instructions { each })?;
        }
        Ok(())
    }

    /// All instructions of a run with so many requests.
    fn counted(&mut self, peer: usize, setting: &Setting, requests: u64) -> anyhow::Result<u64> {
        let folder = setting.path("callgrind");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let command = self.peers[peer].command(setting, None);
        let command = in_callgrind(unpacked_valgrind(&self.plan.programs), &command, &folder);
        let log = setting.path("output.log");
        let mut tree = Tree::start(command, &self.plan.proxy_cpus, &log)?;
        wait_until_ready(&mut tree, setting)?;
        let mut running = Running {
            tree,
            setting: setting.clone(),
            expect: self.peers[peer].expect(),
            companion: None,
        };
        let mut spec = self.spec(&running, 128, Reuse::Keepalive, Pace::Closed);
        spec.connections = CONNECTIONS;
        spec.warm_up = Duration::ZERO;
        spec.measure = PATIENCE;
        spec.most = requests;
        let outcome = load::run(&spec, || ())?;
        if outcome.errors.total() > 0 {
            bail!("the load had errors: {:?}", outcome.errors);
        }
        // Those of the last moment are not among them.
        if outcome.requests + (CONNECTIONS as u64) < requests {
            bail!(
                "{} of {requests} requests within {PATIENCE:?}",
                outcome.requests
            );
        }
        // It writes its counts when it ends. To all of them this signal says: now.
        running.tree.signal(libc::SIGINT)?;
        let late = Instant::now() + PATIENCE;
        while running.tree.alive().is_ok() && Instant::now() < late {
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(running);
        total(&folder)
    }
}

fn unfit(peer: &str) -> Option<&'static str> {
    match peer {
        "haproxy" => Some("what it counts depends on how soon cells answer"),
        _ => None,
    }
}

/// The same command in valgrind, with each of its processes counted into a file of its own.
fn in_callgrind(mut counted: Command, command: &Command, folder: &Path) -> Command {
    counted
        .args(["--tool=callgrind", "--trace-children=yes", "--quiet"])
        .arg(format!("--callgrind-out-file={}/%p", folder.display()))
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => counted.env(name, value),
            None => counted.env_remove(name),
        };
    }
    counted
}

/// What all files of a folder count together.
fn total(folder: &Path) -> anyhow::Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let text = fs::read_to_string(entry?.path())?;
        total += of_file(&text).context("a process did not end in time to write its counts")?;
    }
    match total {
        0 => bail!("valgrind wrote no counts into {}", folder.display()),
        total => Ok(total),
    }
}

fn of_file(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("totals: "));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_file_is_found() {
        let text = "version: 1\nevents: Ir\nfn=(1) main\n16 400\n\ntotals: 71151135\n";
        assert_eq!(of_file(text), Some(71_151_135));
        assert_eq!(of_file("version: 1\n"), None);
    }

    #[test]
    fn a_command_is_wrapped_with_what_it_is_given() {
        let mut command = Command::new("/bin/proxy");
        command.args(["-c", "file"]).env("LIBRARY", "here");
        let counted = in_callgrind(Command::new("valgrind"), &command, Path::new("/counts"));
        let arguments: Vec<_> = counted.get_args().filter_map(|a| a.to_str()).collect();
        assert_eq!(counted.get_program(), "valgrind");
        assert_eq!(
            arguments[3..],
            [
                "--callgrind-out-file=/counts/%p",
                "/bin/proxy",
                "-c",
                "file"
            ]
        );
        assert_eq!(counted.get_envs().count(), 1);
    }
}
