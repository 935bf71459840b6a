//! `history`, `show` and `restore`: the generations of the routing table.

use std::io;

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Ask, Client};
use super::document::copy;
use super::{Condition, Done};
use crate::cli::failure::{Failure, Printed};
use crate::cli::output::{fields, table};
use crate::control::core::Etag;
use crate::control::store::Record;
use crate::telemetry::time::rfc3339;

#[derive(clap::Args, Debug)]
pub(super) struct List {
    /// The most generations to list
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

#[derive(clap::Args, Debug)]
pub(super) struct Show {
    /// Number of the generation
    generation: u64,

    /// Print the routing document of the generation
    #[arg(long)]
    document: bool,
}

#[derive(clap::Args, Debug)]
pub(super) struct Restore {
    /// Number of the generation
    generation: u64,

    #[command(flatten)]
    condition: Condition,
}

/// `history`.
pub(super) async fn list(client: &mut Client, args: &List) -> Result<Printed, Failure> {
    const PAGE: usize = 1000;
    let (mut records, mut before) = (Vec::new(), String::new());
    while records.len() < args.limit {
        let limit = PAGE.min(args.limit - records.len());
        let path = format!("/generations?limit={limit}{before}");
        let mut page = client.get(path).await?;
        if let Value::Array(found) = page["generations"].take() {
            records.extend(found);
        }
        match page["next"].as_u64() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    let rows = records
        .iter()
        .map(|value| {
            let record = record(value)?;
            Ok([
                record.generation.to_string(),
                rfc3339(record.at),
                record.version.clone(),
                record.keys.to_string(),
                change(&record),
                record.author.who,
                record.author.from,
                record.author.what,
            ])
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    let head = [
        "GENERATION",
        "AT",
        "VERSION",
        "KEYS",
        "CHANGE",
        "WHO",
        "FROM",
        "WHAT",
    ];
    Ok(Printed {
        text: table(head, &rows),
        json: json!({"generations": records}),
    })
}

/// `show`.
pub(super) async fn show(client: &mut Client, args: &Show) -> Result<Done, Failure> {
    let path = format!("/generations/{}", args.generation);
    if args.document {
        let mut answer = client.send(Ask::get(format!("{path}/document"))).await?;
        copy(&mut answer, &mut io::stdout().lock(), "standard output").await?;
        return Ok(Done::Written);
    }
    let json = client.get(path).await?;
    let record = record(&json)?;
    let parent = match record.parent {
        0 => "none".to_owned(),
        parent => parent.to_string(),
    };
    let text = fields(&[
        ("generation", record.generation.to_string()),
        ("parent", parent),
        ("at", rfc3339(record.at)),
        ("who", record.author.who.clone()),
        ("from", record.author.from.clone()),
        ("what", record.author.what.clone()),
        ("change", change(&record)),
        ("version", record.version.clone()),
        ("keys", record.keys.to_string()),
        ("digest", record.digest.to_string()),
        ("etag", etag(&record)),
    ]);
    Ok(Printed { text, json }.into())
}

/// `restore`.
pub(super) async fn restore(client: &mut Client, args: &Restore) -> Result<Printed, Failure> {
    let ask = Ask {
        method: Method::POST,
        path: format!("/generations/{}/restore", args.generation),
        if_match: args.condition.if_match.as_deref(),
        ..Ask::default()
    };
    written(client.json(ask).await?)
}

/// The result of a change.
pub(super) fn written(json: Value) -> Result<Printed, Failure> {
    let record = record(&json)?;
    let etag = etag(&record);
    let text = match json["changed"] == true {
        true => format!(
            "generation {}: {}, {} in all; etag {etag}\n",
            record.generation,
            change(&record),
            match record.keys {
                1 => "1 key".to_owned(),
                keys => format!("{keys} keys"),
            }
        ),
        false => format!(
            "unchanged: generation {} has this content already; etag {etag}\n",
            record.generation
        ),
    };
    Ok(Printed { text, json })
}

/// As in `1 set, 2 removed, other fields`: keys, and whether the document changed apart
/// from keys.
fn change(record: &Record) -> String {
    let mut parts = Vec::new();
    if record.set > 0 {
        parts.push(format!("{} set", record.set));
    }
    if record.removed > 0 {
        parts.push(format!("{} removed", record.removed));
    }
    if record.head {
        parts.push("other fields".to_owned());
    }
    parts.join(", ")
}

/// Without its quotes, for `--if-match`.
pub(super) fn etag(record: &Record) -> String {
    Etag::of(record.mark())
        .to_string()
        .trim_matches('"')
        .to_owned()
}

pub(super) fn record(json: &Value) -> Result<Record, Failure> {
    Record::deserialize(json)
        .map_err(|error| Failure::unreachable(format!("not an answer of a control plane: {error}")))
}
