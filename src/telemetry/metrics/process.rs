//! Metrics of the process itself, read from `/proc` at each scrape, under the
//! names that every Prometheus client library uses.
//!
//! The `process` feature of the `prometheus` crate has them as well, but counts
//! CPU time in whole seconds, and shows `process_max_fds` as 0 where there is no
//! limit, which would trip the alert on file descriptors.

use procfs::process::{LimitValue, Process};
use procfs::{ProcResult, WithCurrentSystemInfo};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};

use super::registered::{describe, family, sample};

/// Names and help texts. The first is a counter, the others are gauges.
const METRICS: [(&str, &str); 7] = [
    (
        "process_cpu_seconds_total",
        "User and system CPU time spent in seconds",
    ),
    ("process_max_fds", "Maximum number of open file descriptors"),
    ("process_open_fds", "Number of open file descriptors"),
    (
        "process_resident_memory_bytes",
        "Resident memory size in bytes",
    ),
    (
        "process_start_time_seconds",
        "Start time of the process since the Unix epoch in seconds",
    ),
    ("process_threads", "Number of threads of the process"),
    (
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes",
    ),
];

#[derive(Clone)]
pub(super) struct ProcessMetrics(Vec<Desc>);

impl ProcessMetrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let descriptions = METRICS.map(|(name, help)| describe(name, help, &[]));
        descriptions.into_iter().collect::<Result<_, _>>().map(Self)
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.0.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Vec::new();
        for (index, value) in read().into_iter().flatten().enumerate() {
            let kind = match index {
                0 => MetricType::COUNTER,
                _ => MetricType::GAUGE,
            };
            if let Some(value) = value {
                let (name, help) = METRICS[index];
                families.push(family(name, help, kind, vec![sample(kind, &[], value)]));
            }
        }
        families
    }
}

/// The values of [`METRICS`], in their order; none where there is none, or where
/// the process may not read it.
fn read() -> ProcResult<[Option<f64>; METRICS.len()]> {
    let process = Process::myself()?;
    let stat = process.stat()?;
    let ticks = procfs::ticks_per_second() as f64;
    let boot = procfs::boot_time_secs().ok();
    Ok([
        Some((stat.utime + stat.stime) as f64 / ticks),
        match process.limits()?.max_open_files.soft_limit {
            LimitValue::Value(limit) => Some(limit as f64),
            LimitValue::Unlimited => None,
        },
        process.fd_count().ok().map(|count| count as f64),
        Some(stat.rss_bytes().get() as f64),
        boot.map(|boot| boot as f64 + stat.starttime as f64 / ticks),
        Some(stat.num_threads as f64),
        Some(stat.vsize as f64),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_plausible_values() {
        let values = read().unwrap();
        for ((name, _), value) in METRICS.iter().zip(values) {
            assert!(value.is_some() || *name == "process_max_fds", "{name}");
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
}
