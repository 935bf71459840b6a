//! Single keys.

use bytes::Bytes;
use http::Method;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Value, json};

use super::client::{Ask, Client};
use super::failure::Failure;
use super::history::written;
use super::table::table;
use super::{Condition, Printed};

/// What has a meaning in a URL, or is not to be in one.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'+')
    .add(b'/')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

#[derive(clap::Args, Debug)]
pub(super) struct Set {
    /// Keys, each with the placement where it lives from now on
    #[arg(required = true, num_args = 2.., value_names = ["KEY", "PLACEMENT"])]
    pairs: Vec<String>,

    #[command(flatten)]
    condition: Condition,
}

#[derive(clap::Args, Debug)]
pub(super) struct Unset {
    /// Keys; those that are not in the table are not missed
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,

    #[command(flatten)]
    condition: Condition,
}

#[derive(clap::Args, Debug)]
pub(super) struct List {
    /// Only keys that live on this placement
    #[arg(long, value_name = "PLACEMENT")]
    placement: Option<String>,

    /// Only keys that begin so
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,

    /// Most keys to list
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
    // Written by hand, so that a key that is given twice is refused, not lost.
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

/// A change of keys, as the API takes it.
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
    let json = client.get(format!("/keys/{}", encoded(key))).await?;
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
            filter.push_str(&format!("&{name}={}", encoded(value)));
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
            Some(next) => after = format!("&after={}", encoded(next)),
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

/// As part of a URL.
pub(super) fn encoded(text: &str) -> String {
    match text {
        // These mean something else in a path.
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        text => utf8_percent_encode(text, ENCODED).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_fits_a_url() {
        for (key, expected) in [
            ("acme", "acme"),
            ("a/b?c#d%e+f&g=h", "a%2Fb%3Fc%23d%25e%2Bf%26g%3Dh"),
            ("café au lait", "caf%C3%A9%20au%20lait"),
            ("..", "%2E%2E"),
            ("...", "..."),
        ] {
            assert_eq!(encoded(key), expected);
            let uri: http::Uri = format!("/keys/{expected}").parse().unwrap();
            assert_eq!(uri.path(), format!("/keys/{expected}"));
        }
    }
}
