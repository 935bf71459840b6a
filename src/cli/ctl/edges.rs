//! `edges` and `status`: the edges, and the control plane itself.

use serde_json::Value;

use super::client::Client;
use super::history::{etag, record};
use crate::cli::failure::{Failure, Printed};
use crate::cli::output::{fields, table};
use crate::client::encode;
use crate::telemetry::time::rfc3339;

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Name of an edge; without it, all edges are listed
    #[arg(value_name = "ID")]
    edge_id: Option<String>,
}

/// `edges`.
pub(super) async fn edges(client: &mut Client, args: &Args) -> Result<Printed, Failure> {
    let Some(edge_id) = &args.edge_id else {
        let json = client.get("/edges").await?;
        let text = list(&json);
        return Ok(Printed { text, json });
    };
    let json = client.get(format!("/edges/{}", encode(edge_id))).await?;
    let text = one(&json);
    Ok(Printed { text, json })
}

fn list(json: &Value) -> String {
    let edges = json["edges"].as_array().map_or(&[][..], Vec::as_slice);
    let rows: Vec<_> = edges
        .iter()
        .map(|edge| {
            [
                word(&edge["edge_id"]),
                state(edge).to_owned(),
                word(&edge["generation"]),
                seconds(&edge["stale_seconds"]),
                word(&edge["dialect"]),
                word(&edge["version"]),
                word(&edge["peer"]),
                labels(&edge["labels"]),
            ]
        })
        .collect();
    let head = [
        "EDGE",
        "STATE",
        "GENERATION",
        "STALE",
        "DIALECT",
        "VERSION",
        "PEER",
        "LABELS",
    ];
    table(head, &rows)
}

fn one(edge: &Value) -> String {
    let mut lines = vec![
        ("edge", word(&edge["edge_id"])),
        ("state", state(edge).to_owned()),
        ("generation", word(&edge["generation"])),
        ("digest", word(&edge["digest"])),
        ("stale", seconds(&edge["stale_seconds"])),
        ("dialect", word(&edge["dialect"])),
        ("version", word(&edge["version"])),
        ("instance", word(&edge["instance"])),
        ("peer", word(&edge["peer"])),
        ("labels", labels(&edge["labels"])),
        ("connected at", word(&edge["connected_at"])),
        ("disconnected at", word(&edge["disconnected_at"])),
        ("why", word(&edge["why"])),
        ("last ack at", word(&edge["last_ack_at"])),
        ("serving since", word(&edge["status"]["serving_since"])),
        ("source", word(&edge["status"]["source"])),
        ("deltas sent", word(&edge["sent"]["deltas"])),
        ("snapshots sent", word(&edge["sent"]["snapshots"])),
        ("bytes sent", word(&edge["sent"]["bytes"])),
    ];
    let nack = &edge["last_nack"];
    if !nack.is_null() {
        let refused = format!("{} at {}", word(&nack["generation"]), word(&nack["at"]));
        lines.push(("refused", refused));
        lines.extend(problems(nack));
    }
    let error = &edge["status"]["last_error"];
    if !error.is_null() {
        lines.push(("last error at", word(&error["at"])));
        lines.extend(problems(error));
    }
    lines.retain(|(_, value)| !value.is_empty());
    let mut text = fields(&lines);
    text.push_str(&placements(&edge["status"]));
    text
}

/// The load of each placement, the busiest first.
fn placements(status: &Value) -> String {
    let all = status["placements"].as_object();
    let mut all: Vec<_> = all.into_iter().flatten().collect();
    if all.is_empty() {
        return String::new();
    }
    let rate = |load: &Value, of: &str| load[of].as_f64().unwrap_or_default();
    all.sort_by(|(_, one), (_, other)| {
        let by = |load| rate(load, "requests_per_second");
        by(other).total_cmp(&by(one))
    });
    let rows: Vec<_> = all
        .iter()
        .map(|(name, load)| {
            [
                name.to_string(),
                format!("{:.1}", rate(load, "requests_per_second")),
                format!("{:.1}", rate(load, "errors_per_second")),
                word(&load["in_flight"]),
            ]
        })
        .collect();
    let head = ["PLACEMENT", "REQUESTS/S", "ERRORS/S", "IN FLIGHT"];
    let mut text = format!("\n{}", table(head, &rows));
    if let Some(more @ 1..) = status["placements_left_out"].as_u64() {
        text.push_str(&format!("and {more} more\n"));
    }
    text
}

fn problems(of: &Value) -> Vec<(&'static str, String)> {
    let problems = serde_json::from_value::<Vec<crate::table::Problem>>(of["problems"].clone());
    let problems = problems.unwrap_or_default().into_iter();
    problems.map(|problem| ("", problem.to_string())).collect()
}

fn state(edge: &Value) -> &'static str {
    match (edge["connected"] == true, edge["in_sync"] == true) {
        (false, _) => "disconnected",
        (true, true) => "in sync",
        (true, false) => "behind",
    }
}

/// As in `rack=7,zone=a`.
fn labels(labels: &Value) -> String {
    let labels = labels.as_object().into_iter().flatten();
    let labels = labels.map(|(name, value)| format!("{name}={}", word(value)));
    labels.collect::<Vec<_>>().join(",")
}

fn seconds(value: &Value) -> String {
    match value.as_u64() {
        Some(0) => String::from("-"),
        Some(seconds) => {
            humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
        }
        None => String::new(),
    }
}

/// A value without quotes; empty for null.
fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `status`.
pub(super) async fn status(client: &mut Client) -> Result<Printed, Failure> {
    let json = client.get("/status").await?;
    let mut lines = vec![
        ("control plane", word(&json["id"])),
        ("version", word(&json["version"])),
        ("store", word(&json["store"])),
    ];
    if json["newest"].is_null() {
        lines.push(("generation", "none yet".to_owned()));
    } else {
        let newest = record(&json["newest"])?;
        let by = format!(
            "{} by {}: {}",
            rfc3339(newest.at),
            newest.author.who,
            newest.author.what
        );
        lines.push(("generation", newest.generation.to_string()));
        lines.push(("created", by));
        lines.push(("document", newest.version.clone()));
        lines.push(("keys", newest.keys.to_string()));
        lines.push(("etag", etag(&newest)));
    }
    let edges = &json["edges"];
    lines.push((
        "edges",
        format!(
            "{} connected, {} in sync",
            word(&edges["connected"]),
            word(&edges["in_sync"])
        ),
    ));
    let file = &json["file_error"];
    if !file.is_null() {
        let problem = word(&file["problems"][0]["message"]);
        let (what, path) = (word(&file["what"]), word(&file["path"]));
        lines.push(("file", format!("cannot {what} {path}: {problem}")));
    }
    Ok(Printed {
        text: fields(&lines),
        json,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn edge(id: &str, connected: bool, in_sync: bool) -> Value {
        json!({
            "edge_id": id, "instance": "i", "peer": "192.0.2.1:5", "dialect": "cellgate.v1",
            "version": "0.1.0", "labels": {"zone": "a", "rack": "7"}, "connected": connected,
            "connected_at": "2026-01-01T00:00:00.000Z", "generation": 7, "in_sync": in_sync,
            "stale_seconds": if in_sync { 0 } else { 65 }, "last_nack": null, "status": null,
            "sent": {"deltas": 1, "snapshots": 2, "bytes": 3},
        })
    }

    #[test]
    fn edges_are_a_table() {
        let json = json!({"edges": [edge("e-1", true, true), edge("edge-two", true, false), edge("e-3", false, false)]});
        assert_eq!(
            list(&json),
            "EDGE      STATE         GENERATION  STALE  DIALECT      VERSION  PEER         LABELS\n\
             e-1       in sync       7           -      cellgate.v1  0.1.0    192.0.2.1:5  rack=7,zone=a\n\
             edge-two  behind        7           1m 5s  cellgate.v1  0.1.0    192.0.2.1:5  rack=7,zone=a\n\
             e-3       disconnected  7           1m 5s  cellgate.v1  0.1.0    192.0.2.1:5  rack=7,zone=a\n"
        );
    }

    #[test]
    fn one_edge_shows_why_it_refused() {
        let mut edge = edge("e-1", true, false);
        edge["last_nack"] = json!({"generation": 8, "at": "2026-01-01T00:00:01.000Z", "problems": [
            {"pointer": "/set/acme", "line": 0, "column": 0, "message": "is odd"},
        ]});
        let text = one(&edge);
        assert!(
            text.starts_with("edge            e-1\nstate           behind\n"),
            "{text}"
        );
        assert!(
            text.ends_with("refused         8 at 2026-01-01T00:00:01.000Z\n                set[\"acme\"]: is odd\n"),
            "{text}"
        );
        assert!(!text.contains("disconnected"), "{text}");
    }

    #[test]
    fn one_edge_shows_the_load_of_its_placements() {
        let mut edge = edge("e-1", true, true);
        edge["status"] = json!({"placements_left_out": 3, "placements": {
            "tier1": {"requests_per_second": 7.25, "errors_per_second": 0.0, "in_flight": 2},
            "visa": {"requests_per_second": 812.5, "errors_per_second": 0.13, "in_flight": 12},
        }});
        let text = one(&edge);
        let (_, rates) = text.split_once("\n\n").unwrap();
        assert_eq!(
            rates,
            "PLACEMENT  REQUESTS/S  ERRORS/S  IN FLIGHT\n\
             visa       812.5       0.1       12\n\
             tier1      7.2         0.0       2\n\
             and 3 more\n"
        );
    }
}
