//! One changed key in a large table.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::{Bench, IDLE, Running, wait_for_cell};
use crate::load::{self, Pace, Reuse};
use crate::peers::{Peer, Setting, Way};
use crate::process::{Memory, Tree};
use crate::record::Of;
use crate::table::Table;

/// How long a change may take to be live.
const LIVE: Duration = Duration::from_secs(60);
/// By then every proxy has begun to work on a change.
const BEGUN: Duration = Duration::from_millis(500);
/// Between two looks at the memory of a proxy that changes its table.
const LOOK: Duration = Duration::from_millis(20);
/// Between two changes under load.
const EVERY: Duration = Duration::from_secs(1);

impl Bench {
    /// A change on a proxy that has nothing else to do.
    pub(super) fn change(&mut self) -> anyhow::Result<()> {
        let keys = self.plan.keys.iter().copied().max().unwrap_or(0);
        for round in 0..self.plan.rounds {
            for peer in self.turns(round) {
                let Some(setting) = self.setting(peer, keys, false)? else {
                    continue;
                };
                for way in self.peers[peer].ways(&setting) {
                    self.change_once(peer, round, &setting, way)
                        .with_context(|| format!("{} by {way}", self.peers[peer].name()))?;
                }
            }
        }
        Ok(())
    }

    fn change_once(
        &mut self,
        peer: usize,
        round: usize,
        setting: &Setting,
        way: Way,
    ) -> anyhow::Result<()> {
        let variants = Variants::write(&*self.peers[peer], setting)?;
        let (running, _) = self.start_for(peer, setting, Some(way))?;
        let name = self.peers[peer].name();

        // Asked for until it is there.
        variants.apply(&*self.peers[peer], 1, way, &running.tree)?;
        let live = wait_for_cell(setting, variants.cell(1), LIVE)?;
        running.tree.settle(IDLE, LIVE);

        // And back, with nobody asking.
        let (cpu, before) = (running.tree.cpu(), running.tree.memory());
        let peak = while_watching(&running.tree, || {
            variants.apply(&*self.peers[peer], 0, way, &running.tree)?;
            std::thread::sleep(BEGUN);
            running.tree.settle(IDLE, LIVE);
            anyhow::Ok(())
        })?;
        let cpu = running.tree.cpu().saturating_sub(cpu);
        wait_for_cell(setting, variants.cell(0), LIVE)?;

        eprintln!(
            "{name:>14} {:>8} keys, one changed by {way}: live after {:.1} ms, {:.1} ms CPU, \
             {:.0} MiB at most instead of {:.0}",
            setting.table.keys,
            live.as_secs_f64() * 1e3,
            cpu.as_secs_f64() * 1e3,
            peak.resident as f64 / 1048576.0,
            before.resident as f64 / 1048576.0,
        );
        let of = Of::Change {
            way: way.to_owned(),
            seconds: live.as_secs_f64(),
            cpu_seconds: cpu.as_secs_f64(),
            before,
            peak,
        };
        self.record(name, round, setting.table.keys, of)
    }

    /// Half of what the proxy can do, while a key changes every second and while
    /// none does.
    pub(super) fn churn(&mut self) -> anyhow::Result<()> {
        let keys = self.plan.keys.iter().copied().max().unwrap_or(0);
        for round in 0..self.plan.rounds {
            for peer in self.turns(round) {
                let Some(setting) = self.setting(peer, keys, false)? else {
                    continue;
                };
                let ways = self.peers[peer].ways(&setting);
                if ways.is_empty() {
                    continue;
                }
                let variants = Variants::write(&*self.peers[peer], &setting)?;
                let (running, _) = self.start(peer, &setting)?;
                let name = self.peers[peer].name();
                let body = self.plan.bodies.first().copied().unwrap_or(128);
                let spec = self.spec(&running, body, Reuse::Keepalive, Pace::Closed);
                let rate = self.load(name, &running, &spec)?.per_second / 2.0;
                drop(running);
                for way in [None].into_iter().chain(ways.into_iter().map(Some)) {
                    let (running, _) = self.start_for(peer, &setting, way)?;
                    self.churn_once(peer, round, &running, &variants, way, rate)?;
                    drop(running);
                    // The last change may have left the other table.
                    self.peers[peer].set_up(&setting)?;
                }
            }
        }
        Ok(())
    }

    fn churn_once(
        &mut self,
        peer: usize,
        round: usize,
        running: &Running,
        variants: &Variants,
        way: Option<Way>,
        rate: f64,
    ) -> anyhow::Result<()> {
        let name = self.peers[peer].name();
        let mut spec = self.spec(running, 128, Reuse::Keepalive, Pace::Rate(rate));
        spec.body = self.plan.bodies.first().copied().unwrap_or(128);
        spec.measure = self.plan.churn;
        // The first key has two right answers while it moves.
        spec.table.moves = Table::UNSETTLED;
        let over = AtomicBool::new(false);
        let peer = &*self.peers[peer];
        stop_companion(running)?;
        let outcome = std::thread::scope(|scope| {
            let changer = scope.spawn(|| {
                let mut changes = 0;
                let mut next = Instant::now() + EVERY;
                while let Some(way) = way.filter(|_| !over.load(Relaxed)) {
                    std::thread::sleep(Duration::from_millis(5));
                    if Instant::now() >= next {
                        next += EVERY;
                        changes += 1;
                        continue_companion(running)?;
                        variants.apply(peer, changes % 2, way, &running.tree)?;
                        if running.companion.is_some() {
                            wait_for_cell(&running.setting, variants.cell(changes % 2), EVERY)?;
                            stop_companion(running)?;
                        }
                    }
                }
                anyhow::Ok(changes)
            });
            let outcome = load::run(&spec, || running.tree.cpu());
            over.store(true, Relaxed);
            let changes = changer
                .join()
                .map_err(|_| anyhow::anyhow!("the changer panicked"))?;
            anyhow::Ok((outcome?, changes?))
        });
        let continued = continue_companion(running);
        let (outcome, changes) = outcome?;
        continued?;
        // A proxy that cannot keep up may be at it for a while yet.
        let last = variants.cell(changes % 2);
        let applied = wait_for_cell(&running.setting, last, LIVE).is_ok();
        let figures = self.figures(&format!("{name} {}", way.unwrap_or("-")), &spec, &outcome)?;
        // Others may cut connections when they reload; it is counted, and shown.
        self.faulty += usize::from(name.starts_with("cellgate") && figures.errors > 0);
        let of = Of::Churn {
            way: way.unwrap_or_default().to_owned(),
            every: way.map_or(0.0, |_| EVERY.as_secs_f64()),
            changes: changes as u64,
            applied,
            rate,
            figures,
        };
        self.record(name, round, running.setting.table.keys, of)
    }
}

// A control plane runs on the load's processor, behind the load. What it writes for
// people to read would still hold it up, and count as if the proxy had: it gets no time
// but for its changes.

fn stop_companion(running: &Running) -> anyhow::Result<()> {
    signal_companion(running, libc::SIGSTOP)
}

fn continue_companion(running: &Running) -> anyhow::Result<()> {
    signal_companion(running, libc::SIGCONT)
}

fn signal_companion(running: &Running, signal: i32) -> anyhow::Result<()> {
    let companion = running.companion.as_ref();
    companion.map_or(Ok(()), |companion| companion.signal(signal))
}

/// Two tables that differ in one key, written before time counts.
struct Variants(Vec<(Setting, String)>);

impl Variants {
    fn write(peer: &dyn Peer, setting: &Setting) -> anyhow::Result<Variants> {
        let mut variants = Vec::new();
        for moves in 0..2 {
            let mut setting = setting.clone();
            setting.table.moves = moves;
            let file = format!("variant-{moves}");
            if !setting.path(&file).exists() {
                peer.write_table(&setting, &file)?;
            }
            variants.push((setting, file));
        }
        Ok(Variants(variants))
    }

    fn apply(&self, peer: &dyn Peer, which: usize, way: Way, tree: &Tree) -> anyhow::Result<()> {
        let (setting, file) = &self.0[which];
        peer.apply(setting, way, file, tree)
    }

    fn cell(&self, which: usize) -> usize {
        self.0[which].0.table.cell(0)
    }
}

/// The most that the tree held while `work` was done.
fn while_watching(
    tree: &Tree,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Memory> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = Memory::default();
            while !over.load(Relaxed) {
                let now = tree.memory();
                peak.resident = peak.resident.max(now.resident);
                peak.anonymous = peak.anonymous.max(now.anonymous);
                std::thread::sleep(LOOK);
            }
            peak
        });
        let done = work();
        over.store(true, Relaxed);
        let peak = watch
            .join()
            .map_err(|_| anyhow::anyhow!("the watch panicked"))?;
        done.map(|()| peak)
    })
}
