//! The measurements, each a file: what they share is here.

mod change;
mod idle;
mod instructions;
mod log;
mod preflight;
mod steady;

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::cells::Cells;
use crate::client::Client;
use crate::load::{self, Expect, Outcome, Pace, Reuse, Spec};
use crate::peers::{Peer, Setting, Way, free_address};
use crate::process::{Stolen, Tree};
use crate::record::{Figures, Of, Record, Records};
use crate::table::Table;

/// How long a proxy may take to serve.
const START: Duration = Duration::from_secs(60);
/// Share of a processor below which a proxy counts as idle.
const IDLE: f64 = 0.02;
/// How long to wait for that.
const SETTLE: Duration = Duration::from_secs(20);
/// Client connections of every load.
pub const CONNECTIONS: usize = 64;
/// Bound on the requests of one piece of load.
const MOST: u64 = 20_000_000;

/// What is measured, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    pub what: Vec<What>,
    pub keys: Vec<u64>,
    pub bodies: Vec<usize>,
    pub rounds: usize,
    /// Length of a piece of load.
    pub measure: Duration,
    pub warm_up: Duration,
    pub proxy_cpus: Vec<usize>,
    pub load_cpus: Vec<usize>,
    /// Length of a load during which the table changes.
    pub churn: Duration,
    pub idle_connections: usize,
    pub dir: PathBuf,
    /// What scripts/setup-bench.sh made.
    pub programs: PathBuf,
}

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// CPU per request, throughput, latency, start, memory.
    Steady,
    /// One changed key: time, CPU and memory.
    Change,
    /// Latency while the table changes every second.
    Churn,
    /// Memory of idle connections.
    Idle,
    /// The access log, on and off.
    Log,
    /// Instructions a request, counted by valgrind.
    Instructions,
}

/// A run.
pub struct Bench {
    pub plan: Plan,
    pub peers: Vec<Box<dyn Peer>>,
    cells: Cells,
    records: Records,
    settings: HashMap<(&'static str, u64, bool), Setting>,
    stolen: Stolen,
    seed: u64,
    /// Pieces of load in which something was not as it should be.
    pub faulty: usize,
}

/// A proxy that serves.
struct Running {
    tree: Tree,
    setting: Setting,
    expect: Expect,
    companion: Option<Tree>,
}

impl Bench {
    pub fn new(plan: Plan, peers: Vec<Box<dyn Peer>>, records: Records) -> anyhow::Result<Bench> {
        let cells = Cells::start(&plan.load_cpus)?;
        // What an earlier run left speaks of cells that are gone.
        if plan.dir.exists() {
            fs::remove_dir_all(&plan.dir).with_context(|| plan.dir.display().to_string())?;
        }
        Ok(Bench {
            plan,
            peers,
            cells,
            records,
            settings: HashMap::new(),
            stolen: Stolen::default(),
            seed: 1,
            faulty: 0,
        })
    }

    /// Measures all that is planned.
    pub fn run(&mut self) -> anyhow::Result<()> {
        for what in self.plan.what.clone() {
            match what {
                What::Steady => self.steady()?,
                What::Change => self.change()?,
                What::Churn => self.churn()?,
                What::Idle => self.idle()?,
                What::Log => self.log()?,
                What::Instructions => self.instructions()?,
            }
        }
        Ok(())
    }

    pub fn record(&mut self, peer: &str, round: usize, keys: u64, of: Of) -> anyhow::Result<()> {
        let record = Record {
            peer: peer.to_owned(),
            round,
            keys,
            of,
            stolen: self.stolen.share(),
        };
        self.records.add(&record)
    }

    /// Peers of a round, every other round backwards, so that what drifts does
    /// so in nobody's favour.
    fn turns(&self, round: usize) -> Vec<usize> {
        let turns = 0..self.peers.len();
        match round % 2 {
            0 => turns.collect(),
            _ => turns.rev().collect(),
        }
    }

    /// The setting of a peer, with its files written; None when it cannot take it.
    fn setting(&mut self, peer: usize, keys: u64, log: bool) -> anyhow::Result<Option<Setting>> {
        let peer = &self.peers[peer];
        if let Some(setting) = self.settings.get(&(peer.name(), keys, log)) {
            return Ok(Some(setting.clone()));
        }
        let kind = if log { "-log" } else { "" };
        let dir = self.plan.dir.join(format!("{}-{keys}{kind}", peer.name()));
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let setting = Setting {
            dir,
            listen: free_address()?,
            admin: free_address()?,
            control: free_address()?,
            cells: self.cells.addresses().to_vec(),
            table: Table { keys, moves: 0 },
            access_log: log,
        };
        if let Some(reason) = peer.unfit(&setting) {
            eprintln!("{} is left out at {keys} keys{kind}: {reason}", peer.name());
            return Ok(None);
        }
        peer.set_up(&setting)
            .with_context(|| format!("setting up {}", peer.name()))?;
        let key = (peer.name(), keys, log);
        self.settings.insert(key, setting.clone());
        Ok(Some(setting))
    }

    /// Starts a peer and waits until it serves; seconds until its first 200.
    fn start(&self, peer: usize, setting: &Setting) -> anyhow::Result<(Running, f64)> {
        self.start_for(peer, setting, None)
    }

    /// The same, for a table that is going to change in this way.
    fn start_for(
        &self,
        peer: usize,
        setting: &Setting,
        way: Option<Way>,
    ) -> anyhow::Result<(Running, f64)> {
        let peer = &self.peers[peer];
        let start = || {
            let companion = match way {
                Some(way) => self.start_companion(&**peer, setting, way)?,
                None => None,
            };
            let log = setting.path("output.log");
            let command = peer.command(setting, way);
            let mut tree = Tree::start(command, &self.plan.proxy_cpus, &log)?;
            let seconds = wait_until_ready(&mut tree, setting)?;
            let running = Running {
                tree,
                setting: setting.clone(),
                expect: peer.expect(),
                companion,
            };
            Ok::<_, anyhow::Error>((running, seconds))
        };
        let (running, seconds) = start().with_context(|| format!("starting {}", peer.name()))?;
        running.tree.settle(IDLE, SETTLE);
        if let Some(companion) = &running.companion {
            companion.settle(IDLE, SETTLE);
        }
        Ok((running, seconds))
    }

    fn start_companion(
        &self,
        peer: &dyn Peer,
        setting: &Setting,
        way: Way,
    ) -> anyhow::Result<Option<Tree>> {
        let Some(command) = peer.companion(setting, way)? else {
            return Ok(None);
        };
        let log = setting.path("companion.log");
        let mut tree = Tree::start_behind(command, &self.plan.load_cpus, &log)?;
        let mut client = Client::new(setting.control);
        while tree.started.elapsed() < START {
            tree.alive()?;
            if client
                .get("/health", None)
                .is_ok_and(|answer| answer.status == 200)
            {
                return Ok(Some(tree));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("what brings a change by {way} does not serve after {START:?}")
    }

    fn spec(&mut self, running: &Running, body: usize, reuse: Reuse, pace: Pace) -> Spec {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        Spec {
            target: running.setting.listen,
            connections: CONNECTIONS,
            reuse,
            pace,
            body,
            table: running.setting.table,
            expect: running.expect,
            warm_up: self.plan.warm_up,
            measure: self.plan.measure,
            most: MOST,
            seed: self.seed,
        }
    }

    /// Runs a piece of load and says what it showed.
    fn load(&mut self, name: &str, running: &Running, spec: &Spec) -> anyhow::Result<Figures> {
        let outcome =
            load::run(spec, || running.tree.cpu()).with_context(|| format!("load on {name}"))?;
        let figures = self.figures(name, spec, &outcome)?;
        self.faulty += usize::from(figures.errors > 0);
        Ok(figures)
    }

    fn figures(
        &self,
        name: &str,
        spec: &Spec,
        outcome: &Outcome<Duration>,
    ) -> anyhow::Result<Figures> {
        let figures = Figures::new(spec.body, spec.reuse == Reuse::Keepalive, outcome);
        let pace = match spec.pace {
            Pace::Closed => "all it can".to_owned(),
            Pace::Rate(rate) => format!("{rate:.0}/s"),
        };
        eprintln!(
            "{name:>14} {:>8} keys {:>6} B {} {pace:>10}: {:>7.0}/s {:>6.2} us CPU {:>4.0} % busy \
             p50 {:.0} p99 {:.0} p99.9 {:.0} us{}",
            spec.table.keys,
            spec.body,
            if figures.keepalive { "kept" } else { "new " },
            figures.per_second,
            figures.cpu_micros,
            figures.busy * 100.0,
            figures.at(50.0).unwrap_or(0.0),
            figures.at(99.0).unwrap_or(0.0),
            figures.at(99.9).unwrap_or(0.0),
            match (figures.errors, &figures.first_error) {
                (0, _) => String::new(),
                (errors, first) => format!(
                    "  {errors} ERRORS, the first: {}",
                    first.as_deref().unwrap_or("no answer when the load ended")
                ),
            },
        );
        if outcome.requests == 0 {
            bail!("{name} answered nothing: {:?}", outcome.errors);
        }
        Ok(figures)
    }
}

fn wait_until_ready(tree: &mut Tree, setting: &Setting) -> anyhow::Result<f64> {
    let mut client = Client::new(setting.listen);
    while tree.started.elapsed() < START {
        tree.alive()?;
        if client.cell(0).is_some() {
            return Ok(tree.started.elapsed().as_secs_f64());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    bail!("it does not serve after {START:?}")
}

/// Waits until the first key is answered by `cell`; how long that took.
fn wait_for_cell(setting: &Setting, cell: usize, patience: Duration) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let mut client = Client::new(setting.listen);
    while started.elapsed() < patience {
        if client.cell(0) == Some(cell) {
            return Ok(started.elapsed());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    bail!("the change is not live after {patience:?}")
}
