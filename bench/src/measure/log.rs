//! What an access log costs.

use std::io::{BufRead, BufReader};
use std::path::Path;

use super::Bench;
use crate::load::{Pace, Reuse};
use crate::record::Of;

impl Bench {
    /// The same rate with the access log on and off, in turns. At half load, so
    /// that no line has to be dropped.
    pub(super) fn log(&mut self) -> anyhow::Result<()> {
        let keys = self.plan.keys.iter().copied().min().unwrap_or(0);
        let body = self.plan.bodies.first().copied().unwrap_or(128);
        for round in 0..self.plan.rounds {
            for peer in self.turns(round) {
                let (Some(with), Some(without)) = (
                    self.setting(peer, keys, true)?,
                    self.setting(peer, keys, false)?,
                ) else {
                    continue;
                };
                let name = self.peers[peer].name();
                let (running, _) = self.start(peer, &without)?;
                let spec = self.spec(&running, body, Reuse::Keepalive, Pace::Closed);
                let rate = self.load(name, &running, &spec)?.per_second / 2.0;
                drop(running);
                let mut turns = [false, true];
                if round % 2 == 1 {
                    turns.reverse();
                }
                for on in turns {
                    let setting = if on { &with } else { &without };
                    let log = setting.path("access.log");
                    let _ = std::fs::remove_file(&log);
                    let (running, _) = self.start(peer, setting)?;
                    let spec = self.spec(&running, body, Reuse::Keepalive, Pace::Rate(rate));
                    let figures = self.load(&format!("{name} log"), &running, &spec)?;
                    // The proxy writes what it still has when it ends.
                    drop(running);
                    let lines = if on { count_lines(&log)? } else { 0 };
                    if on && lines < figures.requests {
                        self.faulty += 1;
                        eprintln!("{name}: {lines} lines for {} requests", figures.requests);
                    }
                    let of = Of::AccessLog { on, lines, figures };
                    self.record(name, round, keys, of)?;
                    let _ = std::fs::remove_file(&log);
                }
            }
        }
        Ok(())
    }
}

fn count_lines(path: &Path) -> anyhow::Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 20, std::fs::File::open(path)?);
    let (mut lines, mut line) = (0, Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 {
        lines += 1;
        line.clear();
    }
    Ok(lines)
}
