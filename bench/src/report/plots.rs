//! The plots, by file name.

use super::data::{Data, Which};
use super::svg::{Bars, Line, bars, lines};
use super::tables::resident;
use crate::record::{Of, PERCENTILES, Record};

const KEPT: Which = Which::Saturation {
    body: 128,
    keepalive: true,
};
const LARGE: Which = Which::Saturation {
    body: 65_536,
    keepalive: true,
};
const HALF: Which = Which::Rate {
    body: 128,
    half_of: "nginx",
};

/// All plots that there is data for.
pub fn all(data: &Data) -> Vec<(&'static str, String)> {
    let mut plots = vec![("cpu.svg", cpu(data)), ("throughput.svg", throughput(data))];
    if let Some(keys) = data.keys(|record| HALF.figures(record).is_some()).last() {
        plots.push(("latency.svg", latency(data, *keys)));
    }
    if let Some(keys) = data.keys(|r| matches!(r.of, Of::Start { .. })).last() {
        plots.push(("memory.svg", memory(data, *keys)));
    }
    plots
}

fn name(keys: u64) -> String {
    match keys {
        keys if keys % 1_000_000 == 0 => format!("{} M keys", keys / 1_000_000),
        keys => format!("{} k keys", keys / 1_000),
    }
}

fn by_size(
    data: &Data,
    title: &str,
    unit: &str,
    value: fn(&crate::record::Figures) -> Option<f64>,
) -> String {
    let mut groups = Vec::new();
    for (which, body) in [(KEPT, "128 B"), (LARGE, "64 KiB")] {
        for keys in data.keys(|record| which.figures(record).is_some()) {
            groups.push((which.clone(), keys, format!("{body}, {}", name(keys))));
        }
    }
    let is = |record: &Record| matches!(record.of, Of::Saturation(_));
    let series: Vec<Bars> = data
        .peers(is)
        .into_iter()
        .map(|peer| Bars {
            values: groups
                .iter()
                .map(|(w, keys, _)| data.of(w, &peer, *keys, value))
                .collect(),
            name: peer,
        })
        .collect();
    let groups: Vec<String> = groups.into_iter().map(|(_, _, name)| name).collect();
    bars(title, unit, &groups, &series)
}

fn cpu(data: &Data) -> String {
    by_size(
        data,
        "CPU a request, 64 kept connections",
        "µs, less is better",
        |figures| Some(figures.cpu_micros),
    )
}

fn throughput(data: &Data) -> String {
    by_size(
        data,
        "Requests a second on one core",
        "thousands",
        |figures| Some(figures.per_second / 1e3),
    )
}

/// Percentiles over the number of nines.
fn latency(data: &Data, keys: u64) -> String {
    let nines = |percentile: f64| -(1.0 - percentile.min(99.995) / 100.0).log10();
    let marks = [50.0, 90.0, 99.0, 99.9, 99.99].map(|p| (nines(p), format!("p{p}")));
    let shown = || {
        PERCENTILES
            .iter()
            .copied()
            .filter(|p| (50.0..=99.99).contains(p))
    };
    let series: Vec<Line> = data
        .peers(|record| record.keys == keys && HALF.figures(record).is_some())
        .into_iter()
        .map(|peer| Line {
            points: shown()
                .filter_map(|p| Some((nines(p), data.of(&HALF, &peer, keys, |f| f.at(p))?)))
                .collect(),
            name: peer,
        })
        .collect();
    let title = format!("Latency at half of nginx's most, 128 B, {}", name(keys));
    lines(&title, "µs, less is better", &marks, &series)
}

fn memory(data: &Data, keys: u64) -> String {
    let series: Vec<Bars> = data
        .peers(|record| record.keys == keys && matches!(record.of, Of::Start { .. }))
        .into_iter()
        .map(|peer| Bars {
            values: vec![resident(data, &peer, keys).map(|bytes| bytes / 1_048_576.0)],
            name: peer,
        })
        .collect();
    bars(
        "Resident memory after the start",
        "MiB, less is better",
        &[name(keys)],
        &series,
    )
}
