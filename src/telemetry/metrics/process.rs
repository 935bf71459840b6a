//! The process itself, under the names that every Prometheus client uses.
//!
//! Read from `/proc/self` at scrape; where there is none, nothing is shown.

use std::collections::HashMap;
use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};

const NAMES: [(&str, &str, MetricType); 7] = [
    (
        "process_cpu_seconds_total",
        "User and system CPU time spent in seconds",
        MetricType::COUNTER,
    ),
    (
        "process_max_fds",
        "Maximum number of open file descriptors",
        MetricType::GAUGE,
    ),
    (
        "process_open_fds",
        "Number of open file descriptors",
        MetricType::GAUGE,
    ),
    (
        "process_resident_memory_bytes",
        "Resident memory size in bytes",
        MetricType::GAUGE,
    ),
    (
        "process_start_time_seconds",
        "Start time of the process since the Unix epoch in seconds",
        MetricType::GAUGE,
    ),
    (
        "process_threads",
        "Number of threads of the process",
        MetricType::GAUGE,
    ),
    (
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes",
        MetricType::GAUGE,
    ),
];

pub(crate) struct Process {
    descriptions: Vec<Desc>,
}

impl Process {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let descriptions = NAMES
            .iter()
            .map(|(name, help, _)| {
                Desc::new(
                    (*name).to_owned(),
                    (*help).to_owned(),
                    Vec::new(),
                    HashMap::new(),
                )
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { descriptions })
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let values = read();
        NAMES
            .into_iter()
            .zip(values)
            .filter_map(|((name, help, kind), value)| {
                let value = value?;
                let mut metric = Metric::default();
                if kind == MetricType::COUNTER {
                    let mut counter = Counter::default();
                    counter.set_value(value);
                    metric.set_counter(counter);
                } else {
                    let mut gauge = Gauge::default();
                    gauge.set_value(value);
                    metric.set_gauge(gauge);
                }
                let mut family = MetricFamily::default();
                family.set_name(name.to_owned());
                family.set_help(help.to_owned());
                family.set_field_type(kind);
                family.set_metric(vec![metric]);
                Some(family)
            })
            .collect()
    }
}

/// In the order of [`NAMES`].
fn read() -> [Option<f64>; NAMES.len()] {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let system = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = system_constant(libc::_SC_CLK_TCK);
    let page = system_constant(libc::_SC_PAGESIZE);
    // The second field is the command's name in parentheses, which may itself
    // hold spaces and parentheses: count from the last one. See proc(5).
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().skip(1))
        .into_iter()
        .flatten()
        .map(|field| field.parse().unwrap_or_default())
        .collect();
    // `fields[0]` is field 4 of proc(5).
    let field = |number: usize| fields.get(number - 4).copied();
    let boot = system
        .lines()
        .find_map(|line| line.strip_prefix("btime "))
        .and_then(|seconds| seconds.trim().parse::<f64>().ok());
    [
        Some((field(14).zip(field(15))).map(|(user, system)| user + system))
            .flatten()
            .zip(ticks)
            .map(|(time, ticks)| time / ticks),
        open_files_limit(&limits),
        // One of them is the directory that is being read.
        fs::read_dir("/proc/self/fd")
            .ok()
            .map(|entries| entries.count().saturating_sub(1) as f64),
        field(24).zip(page).map(|(pages, page)| pages * page),
        boot.zip(field(22))
            .zip(ticks)
            .map(|((boot, start), ticks)| boot + start / ticks),
        field(20),
        field(23),
    ]
}

/// The soft limit; none when it is `unlimited`.
fn open_files_limit(limits: &str) -> Option<f64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn system_constant(name: libc::c_int) -> Option<f64> {
    // SAFETY: sysconf takes a number and touches no memory of ours.
    let value = unsafe { libc::sysconf(name) };
    (value > 0).then_some(value as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_plausible_numbers() {
        let values = read();
        for ((name, _, _), value) in NAMES.iter().zip(values) {
            if *name != "process_max_fds" {
                assert!(value.is_some(), "{name}");
            }
        }
        let [_, _, files, resident, start, threads, virtual_size] =
            values.map(Option::unwrap_or_default);
        assert!(files >= 3.0, "{files}");
        assert!(
            resident > 1e6 && resident <= virtual_size,
            "{resident} of {virtual_size}"
        );
        assert!(start > 1.6e9, "{start}");
        assert!(threads >= 1.0, "{threads}");
    }

    #[test]
    fn the_limit_of_files_is_the_soft_one() {
        let limits =
            "Limit   Soft Limit  Hard Limit  Units\nMax open files   1024   524288   files\n";
        assert_eq!(open_files_limit(limits), Some(1024.0));
        assert_eq!(
            open_files_limit("Max open files unlimited unlimited files"),
            None
        );
        assert_eq!(open_files_limit(""), None);
    }
}
