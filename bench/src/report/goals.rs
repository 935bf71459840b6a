//! What was to be reached, and what was.

use super::data::{Data, Which};
use super::tables::{bytes_a_key, idle_bytes};
use crate::record::{Figures, Of, Record};

const KEPT: Which = Which::Saturation {
    body: 128,
    keepalive: true,
};
const HALF: Which = Which::Rate {
    body: 128,
    half_of: "nginx",
};

fn cpu(figures: &Figures) -> Option<f64> {
    Some(figures.cpu_micros)
}

/// A table of goals, the measured value of each, and whether it is reached;
/// `ours` is the build that is judged.
pub fn goals(data: &Data, ours: &str) -> String {
    let mut rows = Vec::new();
    let mut goal = |what: String, value: Option<f64>, most: f64, unit: &str| {
        let Some(value) = value else {
            return;
        };
        let reached = if value <= most { "yes" } else { "**no**" };
        let shown = match unit {
            "" => format!("{value:.2}"),
            unit => format!("{value:.1} {unit}"),
        };
        rows.push(format!(
            "| {what} | {most}{unit} | {shown} | {reached} |",
            unit = spaced(unit)
        ));
    };
    for keys in data.keys(|record| KEPT.figures(record).is_some()) {
        let of = |peer: &str| data.of(&KEPT, peer, keys, cpu);
        let over = |value: Option<f64>| Some(of(ours)? / value?);
        let better = [of("nginx"), of("haproxy")]
            .into_iter()
            .flatten()
            .reduce(f64::min);
        goal(
            format!("CPU a request to the better of nginx and HAProxy, {keys} keys"),
            over(better),
            1.0,
            "",
        );
        let envoys = [of("envoy"), of("envoy-matcher")];
        let envoy = envoys.into_iter().flatten().reduce(f64::min);
        goal(
            format!("CPU a request to Envoy, {keys} keys"),
            over(envoy),
            0.45,
            "",
        );
        let p99 = |peer: &str| data.of(&HALF, peer, keys, |figures| figures.at(99.0));
        let latency = p99(ours).zip(p99("nginx")).map(|(us, nginx)| us / nginx);
        goal(
            format!("p99 at half load to nginx, {keys} keys"),
            latency,
            1.0,
            "",
        );
        // The same build settings on both sides: without the profile.
        let bare = of("cellgate")
            .zip(of("pingora"))
            .map(|(us, bare)| (us / bare - 1.0) * 100.0);
        goal(
            format!("CPU over a bare Pingora, {keys} keys"),
            bare,
            3.0,
            "%",
        );
    }
    let table = bytes_a_key(data, ours).or_else(|| bytes_a_key(data, "cellgate"));
    goal(
        "resident memory a key of 14 bytes, all in".into(),
        table,
        32.0,
        "bytes",
    );
    let idle = idle_bytes(data, ours).or_else(|| idle_bytes(data, "cellgate"));
    goal(
        "an idle client connection".into(),
        idle.map(|bytes| bytes / 1024.0),
        16.0,
        "KiB",
    );
    let is = |record: &Record| matches!(record.of, Of::Churn { .. }) && record.peer == ours;
    for keys in data.keys(is) {
        for way in ["file", "push"] {
            let at = |way: &str| {
                data.of(&Which::Churn(way.to_owned()), ours, keys, |figures| {
                    figures.at(99.9)
                })
            };
            let more = at(way)
                .zip(at(""))
                .map(|(changing, still)| changing / still);
            goal(
                format!("p99.9 at half load with a change a second by {way}, to none, {keys} keys"),
                more,
                1.2,
                "",
            );
        }
    }
    for keys in data.keys(|record| matches!(record.of, Of::AccessLog { .. })) {
        let of = |on: bool| data.of(&Which::Log(on), ours, keys, cpu);
        let more = of(true)
            .zip(of(false))
            .map(|(on, off)| (on / off - 1.0) * 100.0);
        goal("CPU of the access log".into(), more, 8.0, "%");
    }
    format!(
        "| goal | at most | measured | reached |\n| --- | ---: | ---: | --- |\n{}\n",
        rows.join("\n")
    )
}

fn spaced(unit: &str) -> String {
    match unit {
        "" => String::new(),
        unit => format!(" {unit}"),
    }
}
