//! What was measured, one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::load::{Errors, Outcome};
use crate::process::Memory;

/// Latency in microseconds: each percentile of [`PERCENTILES`].
pub const PERCENTILES: [f64; 12] = [
    1.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.99, 100.0,
];

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub peer: String,
    pub round: usize,
    pub keys: u64,
    #[serde(flatten)]
    pub of: Of,
    /// Share of the time that the host took from this machine.
    pub stolen: f64,
}

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Of {
    /// The machine and what ran on it; once a run.
    Run(Run),
    /// From the start of the process to its first 200.
    Start {
        seconds: f64,
        cpu_seconds: f64,
        memory: Memory,
    },
    /// All that a closed loop can get through.
    Saturation(Figures),
    /// A fixed rate; `of` says what it is half of.
    Rate {
        half_of: String,
        rate: f64,
        figures: Figures,
    },
    /// One changed key, on an otherwise idle proxy.
    Change {
        way: String,
        /// Until the first request went the new way.
        seconds: f64,
        /// Processor time, all in, of a change that nobody asked for.
        cpu_seconds: f64,
        /// Resident before, and at its highest.
        before: Memory,
        peak: Memory,
    },
    /// A fixed rate while one key changes every so many seconds; 0 for never.
    Churn {
        way: String,
        every: f64,
        changes: u64,
        applied: bool,
        rate: f64,
        figures: Figures,
    },
    /// Connections that had a request and wait for the next one.
    Idle {
        connections: u64,
        before: Memory,
        after: Memory,
    },
    /// Of one request, outside of the kernel.
    Instructions { each: f64 },
    /// A fixed rate, with and without an access log, in turns.
    AccessLog {
        on: bool,
        lines: u64,
        figures: Figures,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    pub at: u64,
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    pub rustc: String,
    pub commit: String,
    pub versions: Vec<(String, String)>,
    pub proxy_cpus: Vec<usize>,
    pub load_cpus: Vec<usize>,
    pub rounds: usize,
    pub seconds: f64,
}

/// What a piece of load showed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    pub body: usize,
    pub keepalive: bool,
    pub requests: u64,
    pub errors: u64,
    pub first_error: Option<String>,
    pub per_second: f64,
    /// Of the proxy's processes, user and system, for one request.
    pub cpu_micros: f64,
    /// How much of its processor the proxy used: near 1 when it was what limited.
    pub busy: f64,
    /// Microseconds at [`PERCENTILES`].
    pub latency: Vec<f64>,
}

impl Figures {
    pub fn new(body: usize, keepalive: bool, outcome: &Outcome<std::time::Duration>) -> Figures {
        let cpu = outcome.after.saturating_sub(outcome.before).as_secs_f64();
        let seconds = outcome.elapsed.as_secs_f64();
        let micros = |percentile| outcome.latency.value_at_percentile(percentile) as f64 / 1e3;
        let errors: &Errors = &outcome.errors;
        Figures {
            body,
            keepalive,
            requests: outcome.requests,
            errors: errors.total(),
            first_error: errors.first.clone(),
            per_second: outcome.requests as f64 / seconds,
            cpu_micros: cpu * 1e6 / outcome.requests.max(1) as f64,
            busy: cpu / seconds,
            latency: PERCENTILES.map(micros).to_vec(),
        }
    }

    /// Microseconds at one of [`PERCENTILES`].
    pub fn at(&self, percentile: f64) -> Option<f64> {
        let index = PERCENTILES.iter().position(|&p| p == percentile)?;
        self.latency.get(index).copied()
    }
}

/// The file of a run.
pub struct Records(File);

impl Records {
    pub fn append_to(path: &Path) -> anyhow::Result<Records> {
        let open = OpenOptions::new().create(true).append(true).open(path);
        Ok(Records(open.with_context(|| path.display().to_string())?))
    }

    pub fn add(&mut self, record: &Record) -> anyhow::Result<()> {
        writeln!(self.0, "{}", serde_json::to_string(record)?)?;
        Ok(())
    }
}

/// Reads all records of a file.
pub fn read(path: &Path) -> anyhow::Result<Vec<Record>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let parse = |(number, line): (usize, std::io::Result<String>)| {
        let line = line?;
        serde_json::from_str(&line).with_context(|| format!("{}:{}", path.display(), number + 1))
    };
    BufReader::new(file)
        .lines()
        .enumerate()
        .map(parse)
        .collect()
}

/// The middle one, or the mean of the two in the middle. None of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => Some((values.get(middle.checked_sub(1)?)? + values[middle]) / 2.0),
        _ => values.get(middle).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn records_can_be_read_back() {
        let record = Record {
            peer: "nginx".into(),
            round: 1,
            keys: 10,
            of: Of::Idle {
                connections: 5,
                before: Memory::default(),
                after: Memory::default(),
            },
            stolen: 0.0,
        };
        let line = serde_json::to_string(&record).expect("plain data");
        let back: Record = serde_json::from_str(&line).expect(&line);
        assert_eq!(serde_json::to_string(&back).expect("plain data"), line);
    }
}
