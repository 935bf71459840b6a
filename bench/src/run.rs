//! `cellgate-bench run`: what to measure, from the command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};

use crate::measure::{Bench, Plan, What};
use crate::peers::{Peer, Programs, chosen};
use crate::record::{Of, Records, Run};
use crate::sys;

/// Open files for idle connections, on both sides of them.
const OPEN_FILES: u64 = 65_536;

/// Measure, and write a JSON line for each measurement
#[derive(clap::Args, Debug)]
pub struct Args {
    /// A minute or two instead of most of an hour: shows that it works, no figures to keep
    #[arg(long)]
    quick: bool,

    /// What to measure
    #[arg(long, value_delimiter = ',', value_enum)]
    what: Vec<What>,

    /// Peers, in the order of the first round
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "cellgate,pingora,nginx,haproxy,envoy"
    )]
    peers: Vec<String>,

    /// Sizes of the table; changes are measured on the largest, the rest on all or the smallest
    #[arg(long, value_delimiter = ',')]
    keys: Vec<u64>,

    /// Sizes of bodies in bytes
    #[arg(long, value_delimiter = ',', value_parser = size)]
    bodies: Vec<usize>,

    #[arg(long)]
    rounds: Option<usize>,

    /// Length of a piece of load, in seconds
    #[arg(long)]
    seconds: Option<f64>,

    /// Processors of the proxies
    #[arg(long, value_delimiter = ',', default_value = "1")]
    proxy_cpus: Vec<usize>,

    /// Processors of the load and the cells
    #[arg(long, value_delimiter = ',', default_value = "0")]
    load_cpus: Vec<usize>,

    /// Cellgate's binary
    #[arg(long, default_value = "target/release/cellgate")]
    cellgate: PathBuf,

    /// The one of `make pgo`
    #[arg(long, default_value = "target/pgo/cellgate")]
    cellgate_pgo: PathBuf,

    /// The bare Pingora
    #[arg(long, default_value = "target/release/bare-pingora")]
    bare: PathBuf,

    /// Where scripts/setup-bench.sh put the other proxies
    #[arg(long, default_value = "target/bench/peers")]
    programs: PathBuf,

    /// The file to add to
    #[arg(long, default_value = "target/bench/results.jsonl")]
    out: PathBuf,
}

fn size(text: &str) -> Result<usize, String> {
    let sizes = crate::cells::SIZES;
    let size = text.parse().ok().filter(|size| sizes.contains(size));
    size.ok_or_else(|| format!("the cells have bodies of {sizes:?} bytes"))
}

/// Measures; fails also when an answer of any proxy was not the right one.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let programs = Programs {
        cellgate: absolute(&args.cellgate)?,
        cellgate_pgo: absolute(&args.cellgate_pgo)?,
        bare: absolute(&args.bare)?,
        peers: absolute(&args.programs)?,
    };
    let peers = chosen(&args.peers, &programs)?;
    let plan = plan(args)?;
    sys::raise_open_files(OPEN_FILES);
    sys::pin(&plan.load_cpus).context("cannot keep the load on its processors")?;
    if let Some(parent) = args.out.parent() {
        fs::create_dir_all(parent)?;
    }
    let records = Records::append_to(&args.out)?;
    let about = about(&plan, &peers)?;
    let mut bench = Bench::new(plan, peers, records)?;
    bench.record("", 0, 0, Of::Run(about))?;
    bench.run()?;
    match bench.faulty {
        0 => Ok(()),
        faulty => bail!("{faulty} pieces of load had errors, see above"),
    }
}

fn plan(args: &Args) -> anyhow::Result<Plan> {
    let quick = args.quick;
    let or = |given: &[u64], quick_one: &[u64], full: &[u64]| match (given, quick) {
        ([], true) => quick_one.to_vec(),
        ([], false) => full.to_vec(),
        (given, _) => given.to_vec(),
    };
    let what = match args.what.as_slice() {
        [] => vec![
            What::Steady,
            What::Change,
            What::Churn,
            What::Idle,
            What::Log,
            What::Instructions,
        ],
        what => what.to_vec(),
    };
    let seconds = args.seconds.unwrap_or(if quick { 0.5 } else { 2.5 });
    let keys = or(&args.keys, &[10_000], &[10_000, 1_000_000]);
    if keys.contains(&0) || seconds <= 0.0 {
        bail!("a table has at least one key, and a piece of load takes time");
    }
    let bodies: Vec<u64> = args.bodies.iter().map(|&body| body as u64).collect();
    let dir = absolute(Path::new("target/bench/run"))?;
    Ok(Plan {
        programs: absolute(&args.programs)?,
        what,
        keys,
        bodies: or(&bodies, &[128], &[128, 65_536])
            .into_iter()
            .map(|b| b as usize)
            .collect(),
        rounds: args.rounds.unwrap_or(if quick { 1 } else { 5 }),
        measure: Duration::from_secs_f64(seconds),
        warm_up: Duration::from_millis(if quick { 200 } else { 500 }),
        proxy_cpus: args.proxy_cpus.clone(),
        load_cpus: args.load_cpus.clone(),
        churn: Duration::from_secs(if quick { 3 } else { 15 }),
        idle_connections: if quick { 500 } else { 5_000 },
        dir,
    })
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
}

fn about(plan: &Plan, peers: &[Box<dyn Peer>]) -> anyhow::Result<Run> {
    let mut versions = Vec::new();
    for peer in peers {
        versions.push((peer.name().to_owned(), peer.version()?));
    }
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let is_core = |line: &&str| line.starts_with("processor");
    let cores = cpuinfo.lines().filter(is_core).count();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let at = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    Ok(Run {
        at,
        cpu: model.unwrap_or("unknown").trim().to_owned(),
        cores,
        kernel: release.trim().to_owned(),
        rustc: said("rustc", &["--version"]),
        commit: said("git", &["describe", "--always", "--dirty"]),
        versions,
        proxy_cpus: plan.proxy_cpus.clone(),
        load_cpus: plan.load_cpus.clone(),
        rounds: plan.rounds,
        seconds: plan.measure.as_secs_f64(),
    })
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    said.unwrap_or_default()
}
