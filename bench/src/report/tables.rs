//! The tables, in Markdown.

use std::fmt::Write;

use super::data::{Data, Which};
use super::svg::plain;
use crate::cells::SIZES;
use crate::record::{Figures, Of, Record};

const MIB: f64 = 1_048_576.0;

/// A Markdown table: a row of headings and rows of cells.
fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return "Not measured.\n".to_owned();
    }
    let mut text = format!("| {} |\n|", headings.join(" | "));
    for index in 0..headings.len() {
        text.push_str(if index == 0 { " --- |" } else { " ---: |" });
    }
    text.push('\n');
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), plain)
}

fn whole(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.0}"))
}

fn ratio(value: Option<f64>, of: Option<f64>) -> String {
    match (value, of) {
        (Some(value), Some(of)) if of > 0.0 => format!("{:.2}", value / of),
        _ => "–".to_owned(),
    }
}

fn millions(keys: u64) -> String {
    match keys {
        keys if keys % 1_000_000 == 0 => format!("{} M", keys / 1_000_000),
        keys if keys % 1_000 == 0 => format!("{} k", keys / 1_000),
        keys => keys.to_string(),
    }
}

fn cpu(figures: &Figures) -> Option<f64> {
    Some(figures.cpu_micros)
}

/// What ran where.
pub fn machine(data: &Data) -> String {
    let Some(run) = data.run() else {
        return "Not measured.\n".to_owned();
    };
    let stolen = data.median(|record| Some(record.stolen * 100.0));
    let mut text = format!(
        "- {} with {} cores for us, Linux {}; {}\n- commit `{}`\n- proxies on core {:?}, load and \
         cells on core {:?}; {} rounds of {} s each; median share of time taken by the host {} %\n",
        run.cpu,
        run.cores,
        run.kernel,
        run.rustc,
        run.commit,
        run.proxy_cpus,
        run.load_cpus,
        run.rounds,
        run.seconds,
        number(stolen),
    );
    for (peer, version) in data.versions() {
        let _ = writeln!(text, "- {peer}: {version}");
    }
    text
}

/// The figures of requests for one size of table and body.
pub fn requests(data: &Data, keys: u64, body: usize) -> String {
    let kept = Which::Saturation {
        body,
        keepalive: true,
    };
    let own = Which::Rate {
        body,
        half_of: "itself",
    };
    let common = Which::Rate {
        body,
        half_of: "nginx",
    };
    let nginx = data.of(&kept, "nginx", keys, cpu);
    let row = |peer: String| {
        let of = |which: &Which, value: &dyn Fn(&Figures) -> Option<f64>| {
            data.of(which, &peer, keys, value)
        };
        let at = |which: &Which, percentile: f64| whole(of(which, &|f| f.at(percentile)));
        let range = data.range(&kept, &peer, keys, cpu);
        let range = range.map_or(String::new(), |(low, high)| {
            format!(" ({}–{})", plain(low), plain(high))
        });
        let saturation = of(&kept, &cpu);
        vec![
            peer.clone(),
            format!("{}{range}", number(saturation)),
            ratio(saturation, nginx),
            whole(of(&kept, &|f| Some(f.per_second))),
            whole(of(&kept, &|f| Some(f.busy * 100.0))),
            format!(
                "{} / {} / {}",
                at(&common, 50.0),
                at(&common, 99.0),
                at(&common, 99.9)
            ),
            format!(
                "{} / {} / {}",
                at(&own, 50.0),
                at(&own, 99.0),
                at(&own, 99.9)
            ),
            number(of(&common, &cpu)),
            whole(of(&kept, &|f| Some(f.errors as f64))),
        ]
    };
    let peers = data.peers(|record| record.keys == keys && kept.figures(record).is_some());
    let rows: Vec<_> = peers.into_iter().map(row).collect();
    table(
        &[
            "",
            "CPU µs a request",
            "to nginx",
            "requests/s",
            "busy %",
            "p50 / p99 / p99.9 µs at half of nginx's most",
            "at half of its own most",
            "CPU µs at half of nginx's most",
            "errors",
        ],
        &rows,
    )
}

/// All sizes, each with a title.
pub fn all_requests(data: &Data) -> String {
    let mut text = String::new();
    for keys in data.keys(|record| matches!(record.of, Of::Saturation(_))) {
        for body in SIZES {
            let kept = Which::Saturation {
                body,
                keepalive: true,
            };
            if data
                .records
                .iter()
                .any(|r| r.keys == keys && kept.figures(r).is_some())
            {
                let _ = write!(
                    text,
                    "\n**{} keys, bodies of {body} bytes**\n\n{}",
                    millions(keys),
                    requests(data, keys, body)
                );
            }
        }
    }
    text
}

/// A connection for each request.
pub fn connections(data: &Data) -> String {
    let mut rows = Vec::new();
    for keys in data.keys(|record| matches!(record.of, Of::Saturation(_))) {
        for body in SIZES {
            let which = Which::Saturation {
                body,
                keepalive: false,
            };
            let nginx = data.of(&which, "nginx", keys, cpu);
            for peer in data.peers(|r| r.keys == keys && which.figures(r).is_some()) {
                let cost = data.of(&which, &peer, keys, cpu);
                rows.push(vec![
                    peer.clone(),
                    millions(keys),
                    body.to_string(),
                    number(cost),
                    ratio(cost, nginx),
                    whole(data.of(&which, &peer, keys, |f| Some(f.per_second))),
                    whole(data.of(&which, &peer, keys, |f| Some(f.busy * 100.0))),
                ]);
            }
        }
    }
    let headings = [
        "",
        "keys",
        "body",
        "CPU µs a request",
        "to nginx",
        "requests/s",
        "busy %",
    ];
    table(&headings, &rows)
}

/// Start and memory, by size of the table.
pub fn memory(data: &Data) -> String {
    let is = |record: &Record| matches!(record.of, Of::Start { .. });
    let sizes = data.keys(is);
    let mut headings = vec![String::new()];
    for &keys in &sizes {
        headings.push(format!("start s, {} keys", millions(keys)));
        headings.push(format!("CPU s, {} keys", millions(keys)));
        headings.push(format!("resident MiB, {} keys", millions(keys)));
    }
    headings.push("bytes a key".to_owned());
    let row = |peer: String| {
        let mut row = vec![peer.clone()];
        for &keys in &sizes {
            let of = |value: &dyn Fn(&Of) -> Option<f64>| {
                data.median(|r| value(&r.of).filter(|_| r.peer == peer && r.keys == keys))
            };
            row.push(number(of(&start)));
            row.push(number(of(&|of| match of {
                Of::Start { cpu_seconds, .. } => Some(*cpu_seconds),
                _ => None,
            })));
            row.push(number(resident(data, &peer, keys).map(|bytes| bytes / MIB)));
        }
        row.push(whole(bytes_a_key(data, &peer)));
        row
    };
    let rows: Vec<_> = data.peers(is).into_iter().map(row).collect();
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    table(&headings, &rows)
}

fn start(of: &Of) -> Option<f64> {
    match of {
        Of::Start { seconds, .. } => Some(*seconds),
        _ => None,
    }
}

/// Resident bytes of a peer that has just started.
pub fn resident(data: &Data, peer: &str, keys: u64) -> Option<f64> {
    data.median(|record| match &record.of {
        Of::Start { memory, .. } if record.peer == peer && record.keys == keys => {
            Some(memory.resident as f64)
        }
        _ => None,
    })
}

/// What a key more costs, from the smallest to the largest table.
pub fn bytes_a_key(data: &Data, peer: &str) -> Option<f64> {
    let ours = |record: &Record| record.peer == peer && matches!(record.of, Of::Start { .. });
    let sizes = data.keys(ours);
    let (first, last) = (*sizes.first()?, *sizes.last()?);
    if peer == "pingora" || first == last {
        return None;
    }
    let more = resident(data, peer, last)? - resident(data, peer, first)?;
    Some(more / (last - first) as f64)
}

/// One changed key.
pub fn change(data: &Data) -> String {
    let mut rows = Vec::new();
    for peer in data.peers(|record| matches!(record.of, Of::Change { .. })) {
        for (way, keys) in ways(data, &peer) {
            let of = |value: &dyn Fn(&Of) -> Option<f64>| {
                data.median(|record| {
                    let ours = record.peer == peer && record.keys == keys;
                    match &record.of {
                        Of::Change { way: found, .. } if ours && *found == way => value(&record.of),
                        _ => None,
                    }
                })
            };
            let change = |value: fn(f64, f64, f64, f64) -> f64| {
                of(&move |of| match of {
                    Of::Change {
                        seconds,
                        cpu_seconds,
                        before,
                        peak,
                        ..
                    } => Some(value(
                        *seconds,
                        *cpu_seconds,
                        before.resident as f64,
                        peak.resident as f64,
                    )),
                    _ => None,
                })
            };
            rows.push(vec![
                peer.clone(),
                way.clone(),
                millions(keys),
                number(change(|seconds, _, _, _| seconds * 1e3)),
                number(change(|_, cpu, _, _| cpu * 1e3)),
                whole(change(|_, _, before, _| before / MIB)),
                whole(change(|_, _, _, peak| peak / MIB)),
            ]);
        }
    }
    table(
        &[
            "",
            "by",
            "keys",
            "live after ms",
            "CPU ms",
            "MiB before",
            "MiB at most",
        ],
        &rows,
    )
}

fn ways(data: &Data, peer: &str) -> Vec<(String, u64)> {
    let mut ways = Vec::new();
    for record in data.records.iter().filter(|record| record.peer == peer) {
        if let Of::Change { way, .. } = &record.of
            && !ways.contains(&(way.clone(), record.keys))
        {
            ways.push((way.clone(), record.keys));
        }
    }
    ways
}

/// A rate during which the table changes.
pub fn churn(data: &Data) -> String {
    let mut rows = Vec::new();
    let is = |record: &Record| matches!(record.of, Of::Churn { .. });
    for keys in data.keys(is) {
        for peer in data.peers(|record| is(record) && record.keys == keys) {
            let mut ways: Vec<String> = Vec::new();
            for record in data
                .records
                .iter()
                .filter(|r| r.peer == peer && r.keys == keys)
            {
                if let Of::Churn { way, .. } = &record.of
                    && !ways.contains(way)
                {
                    ways.push(way.clone());
                }
            }
            let still = Which::Churn(String::new());
            let quiet = data.of(&still, &peer, keys, |f| f.at(99.9));
            for way in ways {
                let which = Which::Churn(way.clone());
                let of = |value: fn(&Figures) -> Option<f64>| data.of(&which, &peer, keys, value);
                rows.push(vec![
                    peer.clone(),
                    if way.is_empty() {
                        "no change".to_owned()
                    } else {
                        way.clone()
                    },
                    millions(keys),
                    whole(of(|f| Some(f.per_second))),
                    whole(of(|f| f.at(50.0))),
                    whole(of(|f| f.at(99.0))),
                    whole(of(|f| f.at(99.9))),
                    ratio(of(|f| f.at(99.9)), quiet),
                    number(of(cpu)),
                    whole(of(|f| Some(f.errors as f64))),
                ]);
            }
        }
    }
    table(
        &[
            "",
            "a key a second by",
            "keys",
            "requests/s",
            "p50 µs",
            "p99 µs",
            "p99.9 µs",
            "p99.9 to none",
            "CPU µs a request",
            "failed requests",
        ],
        &rows,
    )
}

/// Bytes of a connection that waits.
pub fn idle_bytes(data: &Data, peer: &str) -> Option<f64> {
    data.median(|record| match &record.of {
        Of::Idle {
            connections,
            before,
            after,
        } if record.peer == peer => {
            let more = after.resident as f64 - before.resident as f64;
            Some(more / (*connections).max(1) as f64)
        }
        _ => None,
    })
}

/// Connections that wait for their next request.
pub fn idle(data: &Data) -> String {
    let rows: Vec<_> = data
        .peers(|record| matches!(record.of, Of::Idle { .. }))
        .into_iter()
        .map(|peer| vec![peer.clone(), whole(idle_bytes(data, &peer))])
        .collect();
    table(&["", "bytes an idle connection"], &rows)
}

/// The access log.
pub fn log(data: &Data) -> String {
    let is = |record: &Record| matches!(record.of, Of::AccessLog { .. });
    let mut rows = Vec::new();
    for keys in data.keys(is) {
        for peer in data.peers(|record| is(record) && record.keys == keys) {
            let of = |on: bool| data.of(&Which::Log(on), &peer, keys, cpu);
            rows.push(vec![
                peer.clone(),
                number(of(false)),
                number(of(true)),
                ratio(of(true), of(false)),
            ]);
        }
    }
    table(&["", "CPU µs, off", "CPU µs, on", "on to off"], &rows)
}

/// Instructions a request, outside of the kernel.
pub fn instructions(data: &Data) -> String {
    let is = |record: &Record| matches!(record.of, Of::Instructions { .. });
    let of = |peer: &str| {
        data.median(|record| match record.of {
            Of::Instructions { each } if record.peer == peer => Some(each),
            _ => None,
        })
    };
    let bare = of("pingora");
    let rows: Vec<_> = data
        .peers(is)
        .into_iter()
        .map(|peer| vec![peer.clone(), whole(of(&peer)), ratio(of(&peer), bare)])
        .collect();
    table(&["", "instructions a request", "to a bare Pingora"], &rows)
}
