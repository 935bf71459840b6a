//! `set`, `unset`, `keys` and `get KEY`: the keys of the routing table.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::Condition;
use super::client::{Ask, Client};
use super::history::written;
use crate::cli::failure::{Failure, Printed};
use crate::cli::output::table;
use crate::client::encode;

#[derive(clap::Args, Debug)]
pub(super) struct Set {
    /// Keys, each followed by its new placement
    #[arg(required = true, num_args = 2.., value_names = ["KEY", "PLACEMENT"])]
    pairs: Vec<String>,

    #[command(flatten)]
    condition: Condition,
}

#[derive(clap::Args, Debug)]
pub(super) struct Unset {
    /// Keys; those that are not in the table are ignored
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,

    #[command(flatten)]
    condition: Condition,
}

#[derive(clap::Args, Debug)]
pub(super) struct List {
    /// Only keys of this placement
    #[arg(long, value_name = "PLACEMENT")]
    placement: Option<String>,

    /// Only keys that begin with this
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,

    /// The most keys to list
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// `set`.
pub(super) async fn set(client: &mut Client, args: &Set) -> Result<Printed, Failure> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for pair in args.pairs.chunks(2) {
        match pair {
            [key, placement] => pairs.push((key, placement)),
            [key] => {
                let message = format!("no placement for the key {key:?} (valid: KEY PLACEMENT …)");
                return Err(Failure::refused("usage", message));
            }
            _ => {}
        }
    }
    // Not a map, so that the control plane refuses a key that is given twice.
    let members = pairs
        .iter()
        .map(|(key, placement)| format!("{}:{}", Value::from(*key), Value::from(*placement)));
    let body = format!("{{\"set\":{{{}}}}}", members.collect::<Vec<_>>().join(","));
    batch(client, body.into(), &args.condition).await
}

/// `unset`.
pub(super) async fn unset(client: &mut Client, args: &Unset) -> Result<Printed, Failure> {
    let body = json!({"remove": args.keys}).to_string();
    batch(client, body.into(), &args.condition).await
}

/// Sends a batch of changed keys, as the API defines it.
pub(super) async fn batch(
    client: &mut Client,
    body: Bytes,
    condition: &Condition,
) -> Result<Printed, Failure> {
    let ask = Ask {
        method: Method::POST,
        path: "/keys:batch".to_owned(),
        body,
        if_match: condition.if_match.as_deref(),
    };
    written(client.json(ask).await?)
}

/// `get KEY`.
pub(super) async fn get(client: &mut Client, key: &str) -> Result<Printed, Failure> {
    let json = client.get(format!("/keys/{}", encode(key))).await?;
    let placement = json["placement"].as_str().unwrap_or_default();
    Ok(Printed {
        text: format!("{placement}\n"),
        json,
    })
}

/// `keys`.
pub(super) async fn list(client: &mut Client, args: &List) -> Result<Printed, Failure> {
    const PAGE: usize = 10_000;
    let mut filter = String::new();
    for (name, value) in [("placement", &args.placement), ("prefix", &args.prefix)] {
        if let Some(value) = value {
            filter.push_str(&format!("&{name}={}", encode(value)));
        }
    }
    let wanted = args.limit.unwrap_or(usize::MAX);
    let (mut keys, mut after, mut more) = (Vec::new(), String::new(), 0);
    while keys.len() < wanted {
        let limit = PAGE.min(wanted - keys.len());
        let path = format!("/keys?limit={limit}{after}{filter}");
        let mut page = client.get(path).await?;
        more = page["remaining"].as_u64().unwrap_or_default();
        if let Value::Array(found) = page["keys"].take() {
            keys.extend(found);
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", encode(next)),
            None => break,
        }
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows: Vec<_> = keys
        .iter()
        .map(|entry| [text(&entry["key"]), text(&entry["placement"])])
        .collect();
    let mut text = table(["KEY", "PLACEMENT"], &rows);
    if more > 0 {
        text.push_str(&format!("and {more} more\n"));
    }
    Ok(Printed {
        text,
        json: json!({"keys": keys, "remaining": more}),
    })
}
